#!/usr/bin/env python3
"""Proves that the README shows code that is compiled and run: each of its C++ blocks stands, line
by line, in one of the programs under examples/, and its from-scratch Python class is the one that
tests/parity compares with."""

import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def blocks(text, language):
    return [textwrap.dedent(block) for block in
            re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)]


def plain(text):
    """Indentation does not count, nor do blank lines: a block may stand inside a function."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def contains(whole, part):
    lines, wanted = plain(whole), plain(part)
    return any(lines[i:i + len(wanted)] == wanted for i in range(len(lines) - len(wanted) + 1))


def main():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    examples = [path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("examples/*.cc"))]
    cpp_blocks = blocks(readme, "cpp")
    strays = [b for b in cpp_blocks if not any(contains(text, b) for text in examples)]
    for block in strays:
        print(f"README.md: this C++ is in no program under examples/:\n{block}")
    seed = blocks((ROOT / "tests/parity/seed.txt").read_text(encoding="utf-8"), "python")
    has_seed = any(plain(block) == plain(seed[0]) for block in blocks(readme, "python"))
    if not has_seed:
        print("README.md: the from-scratch class is not the one of tests/parity/seed.txt")
    print(f"README.md: {len(cpp_blocks)} C++ blocks, {len(strays)} without a compiled program")
    return 1 if strays or not cpp_blocks or not has_seed else 0


if __name__ == "__main__":
    sys.exit(main())
