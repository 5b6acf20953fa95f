# The shared library: the static one's objects linked once more, so that nothing is compiled twice.
# It exports what include/polyhead declares, and nothing else (tools/check_symbols.py).
set(polyhead_exports ${PROJECT_SOURCE_DIR}/cmake/polyhead.map)
add_library(polyhead_shared SHARED $<TARGET_OBJECTS:polyhead>)
add_library(polyhead::shared ALIAS polyhead_shared)
target_include_directories(polyhead_shared INTERFACE
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:include>)
target_compile_features(polyhead_shared INTERFACE cxx_std_20)
target_link_libraries(polyhead_shared PRIVATE Threads::Threads)
target_link_options(polyhead_shared PRIVATE
  LINKER:--version-script=${polyhead_exports} LINKER:--as-needed)
if(POLYHEAD_SANITIZE)
  target_link_options(polyhead_shared PUBLIC -fsanitize=${POLYHEAD_SANITIZE})
else()
  target_link_options(polyhead_shared PRIVATE LINKER:--no-undefined)
endif()
# Below 1.0 a minor version may change the ABI, so it is part of the SONAME.
set_target_properties(polyhead_shared PROPERTIES
  OUTPUT_NAME polyhead
  EXPORT_NAME shared
  LINKER_LANGUAGE CXX
  LINK_DEPENDS ${polyhead_exports}
  VERSION ${PROJECT_VERSION}
  SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
