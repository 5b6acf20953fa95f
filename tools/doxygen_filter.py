#!/usr/bin/env python3
"""Shows Doxygen our plain comments as documentation: `//` and `/*` become `///` and `/**`.

The INPUT_FILTER of docs/Doxyfile; each line stays a line. The comment that opens a file is about the
file, and what it indents is code.
"""

import re
import sys
from pathlib import Path


def marked(line):
    stripped = line.lstrip()
    if stripped.startswith("//"):
        return re.sub(r"//(  +)", r"//     \1", line, count=1).replace("//", "///", 1)
    if stripped.startswith("/* ----"):
        return line  # a heading inside the file
    if stripped.startswith("/*"):
        return line.replace("/*", "/**", 1)
    if stripped.startswith("*"):
        return re.sub(r"\*(   +)", r"*     \1", line, count=1)
    line = re.sub(r"\s// (?!NOLINT)", " ///< ", line, count=1)
    return re.sub(r"\s/\* ", " /**< ", line, count=1)


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        lines = [marked(line) for line in file.read().splitlines()]
    name = Path(sys.argv[1]).name
    lines[0] = re.sub(r"^(///|/\*\*)", rf"\1 @file {name} \\ilinebr", lines[0])
    print("\n".join(lines))


if __name__ == "__main__":
    main()
