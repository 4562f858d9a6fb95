# Install rules: the library, its headers under include/hone, and a package that find_package(hone) finds.
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/hone)

install(TARGETS hone EXPORT hone-targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(EXPORT hone-targets NAMESPACE hone:: DESTINATION ${package_dir})

foreach(room ${HONE_ROOMS})
  if(EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${room})
    install(DIRECTORY ${room} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/hone FILES_MATCHING PATTERN "*.h")
  endif()
endforeach()
install(FILES hone.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/hone)

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/hone-config.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/hone-config.cmake
                              INSTALL_DESTINATION ${package_dir})
# Before 1.0 a new minor version may break the API.
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/hone-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/hone-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/hone-config-version.cmake
              ${CMAKE_CURRENT_LIST_DIR}/FindHoneBLAS.cmake DESTINATION ${package_dir})
