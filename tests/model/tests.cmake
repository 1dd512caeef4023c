# The same programs with device memory protected outside of operations (ops/guard.h).
foreach(source IN LISTS sources)
  get_filename_component(name ${source} NAME_WE)
  string(REGEX REPLACE "^test_" "" short ${name})
  add_test(NAME model.${short}.guarded COMMAND model_${name} WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
  set_tests_properties(model.${short}.guarded PROPERTIES LABELS fast TIMEOUT 1500 ENVIRONMENT VL2_GUARD=1)
endforeach()
