# Installing: headers under include/tweedie/, the library, find_package and pkg-config files, the program.

include(CMakePackageConfigHelpers)

install(TARGETS tweedie EXPORT tweedieTargets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
foreach(header IN LISTS TWEEDIE_HEADERS)
  if(header MATCHES "${TWEEDIE_SHOWN_HEADERS}" OR NOT header MATCHES "^kernels/(cpu|reference|simt|cuda)/|/detail/")
    get_filename_component(folder ${header} DIRECTORY)
    install(FILES ${PROJECT_SOURCE_DIR}/${header} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/tweedie/${folder})
  endif()
endforeach()
install(FILES ${TWEEDIE_INCLUDE_ROOT}/tweedie/tweedie.h ${TWEEDIE_INCLUDE_ROOT}/tweedie/version.h
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/tweedie)

# A static library's users need the CUDA runtime that it was built against, and may have no toolkit.
if(TWEEDIE_HAVE_CUDA AND NOT BUILD_SHARED_LIBS)
  install(FILES ${TWEEDIE_CUDART} DESTINATION ${CMAKE_INSTALL_LIBDIR} RENAME libtweedie_cudart.a)
endif()

set(TWEEDIE_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/tweedie)
install(EXPORT tweedieTargets NAMESPACE tweedie:: DESTINATION ${TWEEDIE_CMAKE_DIR})
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/tweedieConfig.cmake.in ${PROJECT_BINARY_DIR}/tweedieConfig.cmake
  INSTALL_DESTINATION ${TWEEDIE_CMAKE_DIR})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/tweedieConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/tweedieConfig.cmake ${PROJECT_BINARY_DIR}/tweedieConfigVersion.cmake DESTINATION ${TWEEDIE_CMAKE_DIR})

# pkg-config: what a static link needs besides is private to a shared one.
set(TWEEDIE_PC_PRIVATE "-lstdc++ -lm -pthread")
if(TWEEDIE_HAVE_CUDA)
  string(PREPEND TWEEDIE_PC_PRIVATE "-ltweedie_cudart -ldl -lrt ")
endif()
if(TWEEDIE_ZLIB)
  set(TWEEDIE_PC_REQUIRES "zlib")
endif()
if(NOT BUILD_SHARED_LIBS)
  set(TWEEDIE_PC_LIBS "${TWEEDIE_PC_PRIVATE}")
  set(TWEEDIE_PC_PUBLIC_REQUIRES "${TWEEDIE_PC_REQUIRES}")
endif()
file(RELATIVE_PATH TWEEDIE_PC_UP /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)  # from the file to the prefix: `cmake --install --prefix` moves both
configure_file(${PROJECT_SOURCE_DIR}/cmake/tweedie.pc.in ${PROJECT_BINARY_DIR}/tweedie.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/tweedie.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

if(TWEEDIE_CLI)
  install(TARGETS tweedie_program RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
