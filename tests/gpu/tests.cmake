# What tests/gpu/run takes along (tests/gpu/bundle). Here, without a GPU, the golden models and runs go through the CUDA
# backend that is executed on the host (tests/cuda_host).
add_executable(gpu_bench_ops ${CMAKE_CURRENT_SOURCE_DIR}/gpu/bench_ops.c)
target_link_libraries(gpu_bench_ops PRIVATE vl_ops vl_base)
add_executable(gpu_curves ${CMAKE_CURRENT_SOURCE_DIR}/gpu/curves.c)
target_link_libraries(gpu_curves PRIVATE ${libraries} PkgConfig::VL_CMOCKA)
target_compile_definitions(gpu_curves PRIVATE VL_SOURCE_DIR=".")

if(TARGET vl_ops_cuda_host AND TARGET vl_cli)
  add_executable(model_cuda_parity ${CMAKE_CURRENT_SOURCE_DIR}/model/test_parity.c)
  target_link_libraries(model_cuda_parity PRIVATE vl_ops_cuda_host ${libraries} PkgConfig::VL_CMOCKA)
  set_target_properties(model_cuda_parity PROPERTIES LINKER_LANGUAGE CXX)
  target_compile_definitions(model_cuda_parity PRIVATE VL_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  add_test(NAME model.cuda.parity COMMAND model_cuda_parity WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
  set_tests_properties(model.cuda.parity PROPERTIES LABELS fast TIMEOUT 600
    ENVIRONMENT "VL_TEST_DEVICE=cuda;OMP_WAIT_POLICY=passive")
  # The stages without sound: BEATs over half a minute takes hours here.
  add_executable(gpu_cuda_curves ${CMAKE_CURRENT_SOURCE_DIR}/gpu/curves.c)
  target_link_libraries(gpu_cuda_curves PRIVATE vl_ops_cuda_host ${libraries} PkgConfig::VL_CMOCKA)
  set_target_properties(gpu_cuda_curves PROPERTIES LINKER_LANGUAGE CXX)
  target_compile_definitions(gpu_cuda_curves PRIVATE VL_SOURCE_DIR=".")
  add_test(NAME train.cuda.curves COMMAND gpu_cuda_curves pretrain finetune)
  set_tests_properties(train.cuda.curves PROPERTIES LABELS slow TIMEOUT 7200
    ENVIRONMENT "VL_TEST_ROOT=${CMAKE_SOURCE_DIR};VL_TEST_DEVICE=cuda;OMP_WAIT_POLICY=passive")
endif()
