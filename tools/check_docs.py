#!/usr/bin/env python3
"""Keeps the pages of docs/ true: their C++ is compiled and run, and their links lead somewhere.

    check_docs.py links            each relative link of each page names a file that is there
    check_docs.py extract OUT.cc   the C++ of all pages as one program

A page's blocks, ```cpp and the invisible <!-- cpp ... -->, are one function in the order in which
they stand: later ones see what earlier ones declare. `check` and `refused` are theirs to use.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^(?:```|<!-- )cpp\n(.*?)^(?:```|-->)$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
PRELUDE = """\
#include <cstdio>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>

#include <polyhead/c_api.h>
#include <polyhead/polyhead.h>

using namespace polyhead;

namespace {

void check(bool condition, const char* what) {
  if (!condition) throw std::logic_error(std::string("not so: ") + what);
}
#define check(condition) check(condition, #condition)

// The message of the exception that `call` must throw.
template <class Exception, class Call>
std::string refused(const Call& call) {
  try {
    call();
  } catch (const Exception& error) {
    return error.what();
  }
  throw std::logic_error("nothing was thrown");
}
"""
MAIN = """
struct Page {
  const char* name;
  void (*run)();
};

}  // namespace

int main() {
  int failed = 0;
  for (const Page& page : std::initializer_list<Page>{%s}) {
    try {
      page.run();
      std::printf("%%s: as it says\\n", page.name);
    } catch (const std::exception& error) {
      std::printf("%%s: %%s\\n", page.name, error.what());
      failed = 1;
    }
  }
  return failed;
}
"""


def pages():
    return sorted((ROOT / "docs").rglob("*.md"))


def program(named_texts):
    """The program of [(page's path, its text)]; errors name the page and its line."""
    body, calls, includes = "", [], ""
    for path, text in named_texts:
        blocks = list(BLOCK.finditer(text))
        if not blocks:
            continue
        function = "page_" + re.sub(r"\W", "_", Path(path).stem)
        calls.append(f'{{"{path}", {function}}}')
        body += f"\nvoid {function}() {{\n"
        for block in blocks:
            code = block.group(1)
            includes += "".join(re.findall(r"^#include .*\n", code, re.MULTILINE))
            code = re.sub(r"^#include .*$", "", code, flags=re.MULTILINE)
            line = text[:block.start(1)].count("\n") + 1
            body += f'#line {line} "{path}"\n{code}'
        body += "}\n"
    return includes + PRELUDE + body + MAIN % ", ".join(calls)


def broken_links(path, text):
    return [target for target in LINK.findall(text)
            if "://" not in target and not (path.parent / target).exists()]


def main():
    if sys.argv[1:] == ["links"]:
        broken = [(path.relative_to(ROOT), target)
                  for path in [*pages(), *sorted(ROOT.glob("*.md"))]
                  for target in broken_links(path, path.read_text(encoding="utf-8"))]
        for path, target in broken:
            print(f"{path}: {target} is not there")
        print(f"{len(pages())} pages, {len(broken)} broken links")
        return 1 if broken else 0
    if len(sys.argv) == 3 and sys.argv[1] == "extract":
        texts = [(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))
                 for path in pages()]
        Path(sys.argv[2]).write_text(program(texts), encoding="utf-8")
        return 0
    sys.exit(__doc__)


if __name__ == "__main__":
    sys.exit(main())
