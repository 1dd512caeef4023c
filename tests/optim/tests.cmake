# The optimizer once more with device memory protected outside of operations (ops/guard.h).
add_test(NAME optim.optimizer.guarded COMMAND optim_test_optimizer WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
set_tests_properties(optim.optimizer.guarded PROPERTIES LABELS fast TIMEOUT 1500 ENVIRONMENT VL2_GUARD=1)
