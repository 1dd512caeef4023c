# The program that these tests call.
target_compile_definitions(cli_test_program PRIVATE VL2_PROGRAM="$<TARGET_FILE:vl2>")
add_dependencies(cli_test_program vl2)
set_tests_properties(cli.program PROPERTIES ENVIRONMENT OMP_WAIT_POLICY=passive)
