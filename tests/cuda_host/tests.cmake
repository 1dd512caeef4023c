# The CUDA backend, executed on the host (execute.h): its sources compiled as C++ with this folder in front of the include
# path. A program that links vl_ops_cuda_host before vl_ops gets its vl_backend_cuda in place of the one in vl_ops.
enable_language(CXX)
set(folder ${CMAKE_CURRENT_SOURCE_DIR}/cuda_host)
file(GLOB machinery CONFIGURE_DEPENDS ${folder}/*.cc)
list(FILTER machinery EXCLUDE REGEX "/(test_[a-z_]+|cublas_host|nccl_host)\\.cc$") # NCCL's stand-in needs MPI
set_source_files_properties(${folder}/cublas_host.cc PROPERTIES COMPILE_OPTIONS ${OpenMP_C_FLAGS})
add_library(vl_cuda_host STATIC ${machinery})
target_link_libraries(vl_cuda_host PUBLIC vl_ops)

file(GLOB kernels CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/ops/cuda/*.cu)
list(FILTER kernels EXCLUDE REGEX "/libraries\\.cu$") # loads cuBLASLt, whose place cublas_host.cc takes
# What g++ warns of: helpers that a file leaves unused, pragmas for nvcc, pieces of a row that the row does not have.
set_source_files_properties(${kernels} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS
  "-x;c++;-Wno-unused-function;-Wno-unknown-pragmas;-Wno-uninitialized;-Wno-maybe-uninitialized")
add_library(vl_ops_cuda_host OBJECT ${kernels} ${folder}/cublas_host.cc)
target_link_libraries(vl_ops_cuda_host PUBLIC vl_cuda_host)

add_executable(ops_cuda_machine ${folder}/test_machine.cc)
target_link_libraries(ops_cuda_machine PRIVATE vl_cuda_host PkgConfig::VL_CMOCKA)
add_test(NAME ops.cuda.machine COMMAND ops_cuda_machine)
set_tests_properties(ops.cuda.machine PROPERTIES LABELS fast TIMEOUT 600)
foreach(target vl_cuda_host vl_ops_cuda_host ops_cuda_machine)
  target_include_directories(${target} BEFORE PRIVATE ${folder})
  set_target_properties(${target} PROPERTIES CXX_STANDARD 20 CXX_STANDARD_REQUIRED ON)
endforeach()

# The operations' tests once more, on this backend.
file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/ops/test_*.c)
list(FILTER sources EXCLUDE REGEX "/test_(context|vector_math)\\.c$") # of the CPU alone
foreach(source IN LISTS sources)
  get_filename_component(name ${source} NAME_WE)
  string(REGEX REPLACE "^test_" "" short ${name})
  add_executable(ops_cuda_${name} ${source})
  target_link_libraries(ops_cuda_${name} PRIVATE vl_ops_cuda_host vl_ops_check)
  set_target_properties(ops_cuda_${name} PROPERTIES LINKER_LANGUAGE CXX)
  target_compile_definitions(ops_cuda_${name} PRIVATE VL_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  add_test(NAME ops.cuda.${short} COMMAND ops_cuda_${name})
  set_tests_properties(ops.cuda.${short} PROPERTIES LABELS fast TIMEOUT 600 ENVIRONMENT VL_TEST_DEVICE=cuda)
endforeach()
