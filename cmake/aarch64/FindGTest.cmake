# Debian has GoogleTest for the machine at hand alone; for another one it is built from the sources
# of the package `googletest`.
if(NOT TARGET GTest::gtest)
  add_subdirectory(/usr/src/googletest ${CMAKE_BINARY_DIR}/googletest EXCLUDE_FROM_ALL)
endif()
set(GTest_FOUND TRUE)
