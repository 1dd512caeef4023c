# The program that test_ranks.c starts under mpirun, and both once more with device memory protected (ops/guard.h).
include(${CMAKE_CURRENT_SOURCE_DIR}/mpi.cmake)
add_executable(dist_rank dist/ranks.c)
target_link_libraries(dist_rank PRIVATE ${libraries})
target_compile_definitions(dist_test_ranks PRIVATE VL_RANKS_PROGRAM="$<TARGET_FILE:dist_rank>")
add_dependencies(dist_test_ranks dist_rank)
add_test(NAME dist.ranks.guarded COMMAND dist_test_ranks WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
set_tests_properties(dist.ranks dist.ranks.guarded PROPERTIES LABELS fast TIMEOUT 1500 SKIP_RETURN_CODE 77
  ENVIRONMENT "${VL_MPI_ENVIRONMENT}")
set_property(TEST dist.ranks.guarded APPEND PROPERTY ENVIRONMENT VL2_GUARD=1)
