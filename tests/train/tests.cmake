# The program that test_ranks.c starts under mpirun; vl2 itself for the tests that kill it; and runs with device memory
# protected outside of operations (ops/guard.h).
include(${CMAKE_CURRENT_SOURCE_DIR}/mpi.cmake)
add_executable(train_rank train/ranks.c)
target_link_libraries(train_rank PRIVATE ${libraries} PkgConfig::VL_CMOCKA)
target_compile_definitions(train_rank PRIVATE VL_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
target_compile_definitions(train_test_ranks PRIVATE VL_RANK_PROGRAM="$<TARGET_FILE:train_rank>")
foreach(program train_test_ranks train_test_stops)
  target_compile_definitions(${program} PRIVATE VL2_PROGRAM="$<TARGET_FILE:vl2>")
  add_dependencies(${program} vl2 train_rank)
endforeach()
add_test(NAME train.curve.guarded COMMAND train_test_curve golden_curves
  WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
set_tests_properties(train.curve.guarded PROPERTIES LABELS fast TIMEOUT 600)
foreach(test bad_input checkpoint curve curve.guarded heldout memory_plan stops)
  set_tests_properties(train.${test} PROPERTIES ENVIRONMENT OMP_WAIT_POLICY=passive)
endforeach()
set_property(TEST train.curve.guarded APPEND PROPERTY ENVIRONMENT VL2_GUARD=1)
set_tests_properties(train.ranks PROPERTIES ENVIRONMENT "${VL_MPI_ENVIRONMENT}")
add_test(NAME train.overfit COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/train/overfit.sh $<TARGET_FILE:vl2> ${CMAKE_SOURCE_DIR}
  WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
set_tests_properties(train.overfit PROPERTIES LABELS slow TIMEOUT 900 SKIP_RETURN_CODE 77)
