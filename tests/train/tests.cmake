# The programs that test_ranks.c and test_mixes.c start under mpirun; vl2 itself for the tests that kill it; and runs with device memory
# protected outside of operations (ops/guard.h).
include(${CMAKE_CURRENT_SOURCE_DIR}/mpi.cmake)
add_executable(train_rank train/ranks.c)
target_link_libraries(train_rank PRIVATE ${libraries} PkgConfig::VL_CMOCKA)
target_compile_definitions(train_rank PRIVATE VL_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
target_compile_definitions(train_test_ranks PRIVATE VL_RANK_PROGRAM="$<TARGET_FILE:train_rank>")
add_executable(train_mixes train/mixes.c)
target_link_libraries(train_mixes PRIVATE ${libraries} PkgConfig::VL_CMOCKA)
target_compile_definitions(train_mixes PRIVATE VL_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
target_compile_definitions(train_test_mixes PRIVATE VL_MIXES_PROGRAM="$<TARGET_FILE:train_mixes>")
add_dependencies(train_test_mixes train_mixes)
foreach(program train_test_convert train_test_ranks train_test_stops)
  target_compile_definitions(${program} PRIVATE VL2_PROGRAM="$<TARGET_FILE:vl2>")
  add_dependencies(${program} vl2 train_rank)
endforeach()
add_test(NAME train.curve.guarded COMMAND train_test_curve golden_curves*
  WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
set_tests_properties(train.curve.guarded PROPERTIES LABELS fast TIMEOUT 1500)
foreach(test bad_input checkpoint convert curve curve.guarded heldout memory_plan stops)
  set_tests_properties(train.${test} PROPERTIES ENVIRONMENT OMP_WAIT_POLICY=passive)
endforeach()
set_property(TEST train.curve.guarded APPEND PROPERTY ENVIRONMENT VL2_GUARD=1)
set_tests_properties(train.ranks train.mixes PROPERTIES ENVIRONMENT "${VL_MPI_ENVIRONMENT}")
# The same program on stand-ins for CUDA and NCCL (tests/dist/tests.cmake).
if(TARGET vl_dist_cuda_host)
  add_executable(train_cuda_rank train/ranks.c)
  target_link_libraries(train_cuda_rank PRIVATE vl_dist_cuda_host vl_ops_cuda_host ${libraries} PkgConfig::VL_CMOCKA)
  set_target_properties(train_cuda_rank PROPERTIES ENABLE_EXPORTS ON LINKER_LANGUAGE CXX)
  target_compile_definitions(train_cuda_rank PRIVATE VL_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  target_compile_definitions(train_test_gpus PRIVATE VL_RANK_PROGRAM="$<TARGET_FILE:train_cuda_rank>"
    VL_NCCL_FOLDER="$<TARGET_FILE_DIR:vl_nccl_host>")
  add_dependencies(train_test_gpus train_cuda_rank vl_nccl_host)
  add_test(NAME train.gpus.curves COMMAND train_test_gpus whole_curves WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
  set_tests_properties(train.gpus.curves PROPERTIES LABELS slow TIMEOUT 7200 SKIP_RETURN_CODE 77)
  set_tests_properties(train.gpus train.gpus.curves PROPERTIES ENVIRONMENT "${VL_MPI_ENVIRONMENT}")
endif()
foreach(config overfit overfit-sounds)
  add_test(NAME train.${config}
    COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/train/overfit.sh $<TARGET_FILE:vl2> ${CMAKE_SOURCE_DIR} configs/examples/${config}.yaml
    WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
  set_tests_properties(train.${config} PROPERTIES LABELS slow TIMEOUT 900 SKIP_RETURN_CODE 77)
endforeach()

# Conversions of a model with holes: small, and of the size of a 72B model (145 GB long, minutes, some MB on the disk).
add_executable(train_convert_holes train/convert_holes.c)
target_link_libraries(train_convert_holes PRIVATE ${libraries} PkgConfig::VL_CMOCKA)
target_compile_definitions(train_convert_holes PRIVATE VL2_PROGRAM="$<TARGET_FILE:vl2>" VL_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
add_dependencies(train_convert_holes vl2)
add_test(NAME train.convert_holes COMMAND train_convert_holes WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
set_tests_properties(train.convert_holes PROPERTIES LABELS fast TIMEOUT 120)
add_test(NAME train.convert_holes.72b COMMAND train_convert_holes 72b WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
set_tests_properties(train.convert_holes.72b PROPERTIES LABELS slow TIMEOUT 3600)

# What we export against Hugging Face transformers: skipped where Python (VL_PYTHON, or python3) lacks it.
add_test(NAME train.export_transformers COMMAND sh -c
  "python=\${VL_PYTHON:-python3}; command -v \"$python\" >/dev/null || exit 77; exec \"$python\" \"$@\"" sh
  ${CMAKE_CURRENT_SOURCE_DIR}/train/export_transformers.py $<TARGET_FILE:vl2> ${CMAKE_SOURCE_DIR}
  WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
set_tests_properties(train.export_transformers PROPERTIES LABELS fast TIMEOUT 1500 SKIP_RETURN_CODE 77)
