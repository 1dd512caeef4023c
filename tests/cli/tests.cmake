# The program that these tests call.
foreach(test program hearing)
  target_compile_definitions(cli_test_${test} PRIVATE VL2_PROGRAM="$<TARGET_FILE:vl2>")
  add_dependencies(cli_test_${test} vl2)
  set_tests_properties(cli.${test} PROPERTIES ENVIRONMENT OMP_WAIT_POLICY=passive)
endforeach()
