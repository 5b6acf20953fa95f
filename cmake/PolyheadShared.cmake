# The shared libraries: the static ones' objects linked once more, so that nothing is compiled twice.
# They export what include/polyhead declares, and nothing else (tools/check_symbols.py).

# polyhead_shared_library(target STATIC_TARGET FILE_NAME EXPORT_NAME)
function(polyhead_shared_library target static_target file_name export_name)
  set(exports ${PROJECT_SOURCE_DIR}/cmake/polyhead.map)
  add_library(${target} SHARED $<TARGET_OBJECTS:${static_target}>)
  add_library(polyhead::${export_name} ALIAS ${target})
  target_include_directories(${target} INTERFACE
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:include>)
  target_compile_features(${target} INTERFACE cxx_std_20)
  target_link_libraries(${target} PRIVATE Threads::Threads)
  target_link_options(${target} PRIVATE
    LINKER:--version-script=${exports} LINKER:--as-needed LINKER:--gc-sections)
  if(POLYHEAD_SANITIZE)
    target_link_options(${target} PUBLIC -fsanitize=${POLYHEAD_SANITIZE})
  else()
    target_link_options(${target} PRIVATE LINKER:--no-undefined)
  endif()
  # Below 1.0 a minor version may change the ABI, so it is part of the SONAME.
  set_target_properties(${target} PROPERTIES
    OUTPUT_NAME ${file_name}
    EXPORT_NAME ${export_name}
    LINKER_LANGUAGE CXX
    LINK_DEPENDS ${exports}
    VERSION ${PROJECT_VERSION}
    SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
endfunction()

polyhead_shared_library(polyhead_shared polyhead polyhead shared)
