# `cmake --install`: the libraries, their headers, the command, and what find_package and pkg-config
# need. Everything is relative to the prefix, so the tree may be moved.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set_target_properties(polyhead PROPERTIES EXPORT_NAME static)
install(TARGETS polyhead polyhead_nn EXPORT polyhead-targets)
if(POLYHEAD_SHARED)
  install(TARGETS polyhead_shared polyhead_nn_shared EXPORT polyhead-targets)
endif()
install(DIRECTORY include/polyhead DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
# The README, and what it links to.
install(FILES LICENSE README.md ARCHITECTURE.md CHANGELOG.md CONTRIBUTING.md SECURITY.md
  DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs examples DESTINATION ${CMAKE_INSTALL_DOCDIR}
  FILES_MATCHING PATTERN *.md PATTERN *.svg PATTERN *.cc PATTERN *.h PATTERN *.c
  PATTERN *.safetensors)

set(polyhead_config_folder ${CMAKE_INSTALL_LIBDIR}/cmake/polyhead)
install(EXPORT polyhead-targets NAMESPACE polyhead:: DESTINATION ${polyhead_config_folder})
configure_package_config_file(cmake/polyhead-config.cmake.in polyhead-config.cmake
  INSTALL_DESTINATION ${polyhead_config_folder})
write_basic_package_version_file(polyhead-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/polyhead-config.cmake
  ${PROJECT_BINARY_DIR}/polyhead-config-version.cmake DESTINATION ${polyhead_config_folder})

file(RELATIVE_PATH polyhead_include_from_pc ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig
  ${CMAKE_INSTALL_FULL_INCLUDEDIR})
foreach(polyhead_pc polyhead polyhead-nn)
  configure_file(cmake/${polyhead_pc}.pc.in ${polyhead_pc}.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/${polyhead_pc}.pc
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()
