# What every target of ours is compiled with, and the one way to declare a test.

function(polyhead_compile_options target)
  # Contraction off: a*b+c stays two roundings on every ISA; fused ones are written fma(a, b, c).
  target_compile_options(${target} PRIVATE -ffp-contract=off)
  # So that the linker may leave out what nobody calls.
  target_compile_options(${target} PRIVATE -ffunction-sections -fdata-sections)
  if(POLYHEAD_DEVELOPER)
    # To clang, -Wconversion in C++ means signs as well.
    target_compile_options(${target} PRIVATE -Wall -Wextra -Wconversion -Wshadow -Werror
      $<$<COMPILE_LANG_AND_ID:CXX,Clang>:-Wno-sign-conversion>)
  endif()
  if(POLYHEAD_SANITIZE)
    # Instrumented code misleads GCC's flow analysis (mismatched new and delete, maybe uninitialised):
    # there warnings do not stop the build. In every other build they do.
    target_compile_options(${target} PRIVATE -Wno-error -fsanitize=${POLYHEAD_SANITIZE}
      -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
    target_link_options(${target} PUBLIC -fsanitize=${POLYHEAD_SANITIZE})
  endif()
  if(POLYHEAD_FUZZ)
    target_compile_options(${target} PRIVATE -fsanitize=fuzzer-no-link)
  endif()
endfunction()

# polyhead_test(name source... [LIBS lib...]): a GoogleTest program that sees src/ and testing/.
function(polyhead_test name)
  if(NOT POLYHEAD_DEVELOPER)
    return()
  endif()
  cmake_parse_arguments(ARG "" "" "LIBS" ${ARGN})
  add_executable(${name} ${ARG_UNPARSED_ARGUMENTS})
  polyhead_compile_options(${name})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR})
  target_compile_definitions(${name} PRIVATE
    POLYHEAD_TEST_DATA="${PROJECT_SOURCE_DIR}/tests/data")
  target_link_libraries(${name} PRIVATE polyhead polyhead_testing GTest::gtest GTest::gtest_main
    ${ARG_LIBS})
  add_test(NAME ${name} COMMAND ${name})
endfunction()
