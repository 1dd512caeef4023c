# The shared part of the operations' tests (tests/ops/check.h).
add_library(vl_ops_check STATIC ${CMAKE_CURRENT_SOURCE_DIR}/ops/check.c)
target_link_libraries(vl_ops_check PUBLIC vl_ops vl_base PkgConfig::VL_CMOCKA m)
foreach(source IN LISTS sources)
  get_filename_component(name ${source} NAME_WE)
  target_link_libraries(ops_${name} PRIVATE vl_ops_check)
endforeach()

add_test(NAME ops.mutations COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/ops/mutate)
set_tests_properties(ops.mutations PROPERTIES LABELS slow TIMEOUT 7200)
