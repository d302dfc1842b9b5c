# Tests of the house itself: include directions, and strangers' projects that use the library.
add_test(NAME house.include_directions
  COMMAND ${CMAKE_COMMAND} -DROOT=${PROJECT_SOURCE_DIR} -P ${CMAKE_CURRENT_SOURCE_DIR}/house/include_directions.cmake)

# Each consumer builds in its own folder against this build's own installation or sources; see consumers.sh for what each proves.
if(PROJECT_IS_TOP_LEVEL AND CMAKE_BUILD_TYPE STREQUAL "Release" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  foreach(consumer static shared native_asan subdirectory pkg_config)
    add_test(NAME house.consumer_${consumer}
      COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/house/consumers.sh ${consumer} ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR})
    set_tests_properties(house.consumer_${consumer} PROPERTIES TIMEOUT 900 LABELS slow RESOURCE_LOCK consumers)
  endforeach()
endif()
