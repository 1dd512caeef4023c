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

# The collectives over GPUs (dist/nccl*.cu) compiled as C++ on the stand-in for CUDA (tests/cuda_host), and a stand-in for
# NCCL that the program loads, and that finds CUDA in the program.
if(VL_HAVE_MPI)
  enable_language(CXX)
  file(GLOB collectives CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/dist/*.cu)
  set_source_files_properties(${collectives} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-x;c++")
  add_library(vl_dist_cuda_host OBJECT ${collectives})
  add_library(vl_nccl_host SHARED cuda_host/nccl_host.cc)
  set_target_properties(vl_nccl_host PROPERTIES OUTPUT_NAME nccl SOVERSION 2
    LIBRARY_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/nccl)
  foreach(target vl_dist_cuda_host vl_nccl_host)
    target_include_directories(${target} BEFORE PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/cuda_host)
    target_link_libraries(${target} PRIVATE vl_flags vl_mpi)
    set_target_properties(${target} PROPERTIES CXX_STANDARD 20 CXX_STANDARD_REQUIRED ON)
  endforeach()
  foreach(name rank device_rank)
    add_executable(dist_cuda_${name} dist/${name}s.c)
    target_link_libraries(dist_cuda_${name} PRIVATE vl_dist_cuda_host vl_ops_cuda_host ${libraries})
    set_target_properties(dist_cuda_${name} PROPERTIES ENABLE_EXPORTS ON LINKER_LANGUAGE CXX)
    add_dependencies(dist_test_device dist_cuda_${name} vl_nccl_host)
  endforeach()
  target_compile_definitions(dist_test_device PRIVATE
    VL_RANKS_PROGRAM="$<TARGET_FILE:dist_cuda_rank>" VL_DEVICE_RANKS_PROGRAM="$<TARGET_FILE:dist_cuda_device_rank>"
    VL_NCCL_FOLDER="${CMAKE_CURRENT_BINARY_DIR}/nccl")
  set_tests_properties(dist.device PROPERTIES ENVIRONMENT "${VL_MPI_ENVIRONMENT}")
endif()
