# `./dev package`: a .deb and a .tar.gz of what `cmake --install` installs.
set(CPACK_PACKAGE_VENDOR "Polyhead contributors")
set(CPACK_PACKAGE_CONTACT "Polyhead contributors <polyhead@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "Multi-head attention for C++ and C: library and command")
set(CPACK_RESOURCE_FILE_LICENSE ${PROJECT_SOURCE_DIR}/LICENSE)
set(CPACK_GENERATOR TGZ DEB)
set(CPACK_STRIP_FILES ON)
set(CPACK_PACKAGE_CHECKSUM SHA256)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
# So that installing the package refreshes the loader's cache.
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
include(CPack)
