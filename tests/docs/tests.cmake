# The commands of a page of docs/, run as they stand there.
add_test(NAME docs.your_own_videos COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/docs/run_blocks.sh $<TARGET_FILE:vl2> ${CMAKE_SOURCE_DIR}
  ${CMAKE_SOURCE_DIR}/docs/your-own-videos.md WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
set_tests_properties(docs.your_own_videos PROPERTIES LABELS fast TIMEOUT 1500 SKIP_RETURN_CODE 77
  ENVIRONMENT OMP_WAIT_POLICY=passive)
