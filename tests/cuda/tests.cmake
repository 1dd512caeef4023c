# All kernels for all architectures: cuda_kernels.txt in the build folder says what each takes.
add_test(NAME cuda.compile COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cuda/compile ${CMAKE_BINARY_DIR}/cuda_kernels.txt
  ${VL_CUDA_ARCHITECTURES})
set_tests_properties(cuda.compile PROPERTIES LABELS fast TIMEOUT 1500 SKIP_RETURN_CODE 77)
if(VL_NVCC)
  set_tests_properties(cuda.compile PROPERTIES ENVIRONMENT "NVCC=${VL_NVCC}")
endif()
