# cmake -DNAME=kHeads -DPAGE=page.html "-DSTYLES=a.css;b.css" "-DSCRIPTS=a.js;b.js"
#   -DOUT=heads_sources.cc -P embed.cmake
# Writes a page's files as string literals of C++.

set(delimiter "polyhead_page")
file(READ "${PAGE}" page)
foreach(path IN LISTS STYLES)
  file(READ "${path}" text)
  string(APPEND style "${text}")
endforeach()
# One closure: the scripts share names with each other and with nothing else.
set(script "\"use strict\";\n(() => {\n")
foreach(path IN LISTS SCRIPTS)
  file(READ "${path}" text)
  string(APPEND script "${text}")
endforeach()
string(APPEND script "})();\n")
foreach(text IN ITEMS "${page}" "${style}" "${script}")
  string(FIND "${text}" ")${delimiter}\"" found)
  if(NOT found EQUAL -1)
    message(FATAL_ERROR "embed.cmake: a source holds the literal's end, )${delimiter}\"")
  endif()
endforeach()
file(WRITE "${OUT}" "#include \"report/page_sources.h\"

namespace polyhead::page_sources {

const PageSources ${NAME} = {
    R\"${delimiter}(${page})${delimiter}\",
    R\"${delimiter}(${style})${delimiter}\",
    R\"${delimiter}(${script})${delimiter}\"};

}  // namespace polyhead::page_sources
")
