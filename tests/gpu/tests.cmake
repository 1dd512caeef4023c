# What tests/gpu/run takes along (tests/gpu/bundle). Here, without a GPU, the golden models run on the CUDA backend that is
# executed on the host (tests/cuda_host).
add_executable(gpu_bench_ops ${CMAKE_CURRENT_SOURCE_DIR}/gpu/bench_ops.c)
target_link_libraries(gpu_bench_ops PRIVATE vl_ops vl_base)

if(TARGET vl_ops_cuda_host AND TARGET vl_cli)
  add_executable(model_cuda_parity ${CMAKE_CURRENT_SOURCE_DIR}/model/test_parity.c)
  target_link_libraries(model_cuda_parity PRIVATE vl_ops_cuda_host ${libraries} PkgConfig::VL_CMOCKA)
  set_target_properties(model_cuda_parity PROPERTIES LINKER_LANGUAGE CXX)
  target_compile_definitions(model_cuda_parity PRIVATE VL_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  add_test(NAME model.cuda.parity COMMAND model_cuda_parity WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
  set_tests_properties(model.cuda.parity PROPERTIES LABELS fast TIMEOUT 600
    ENVIRONMENT "VL_TEST_DEVICE=cuda;OMP_WAIT_POLICY=passive")
  # Whole runs against the reference's curves, of the stages without sound: BEATs over half a minute takes hours here.
  add_executable(train_cuda_curve ${CMAKE_CURRENT_SOURCE_DIR}/train/test_curve.c)
  target_link_libraries(train_cuda_curve PRIVATE vl_ops_cuda_host ${libraries} PkgConfig::VL_CMOCKA)
  set_target_properties(train_cuda_curve PROPERTIES LINKER_LANGUAGE CXX)
  target_compile_definitions(train_cuda_curve PRIVATE VL_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  add_test(NAME train.cuda.curve COMMAND train_cuda_curve golden_curves WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
  set_tests_properties(train.cuda.curve PROPERTIES LABELS slow TIMEOUT 3600
    ENVIRONMENT "VL_TEST_DEVICE=cuda;OMP_WAIT_POLICY=passive")
endif()
