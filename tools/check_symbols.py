#!/usr/bin/env python3
"""Proves what the shared library gives and asks for: it exports what include/polyhead declares and
nothing else, the C functions being those of a list that only grows; it needs no library but the
compiler's and the C library; stripped, it is small.

    python3 tools/check_symbols.py libpolyhead.so.0.3.0 [--c-functions LIST] [--max-bytes N]
    python3 tools/check_symbols.py libpolyhead_nn.so.0.3.0 --nn
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

INCLUDE = Path(__file__).resolve().parent.parent / "include" / "polyhead"
ALLOWED_NEEDS = re.compile(r"^(libstdc\+\+|libgcc_s|libm|libc|ld-linux[-\w]*)\.so(\.\d+)?$")
# A C++ name of ours, and what the compiler makes for one of our classes.
OURS = re.compile(r"^(?:typeinfo for |typeinfo name for |vtable for )?polyhead::(.+)$")


def output_of(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def exported(library):
    """Demangled names of what the library defines for others."""
    lines = output_of("nm", "--dynamic", "--defined-only", "--demangle", library).splitlines()
    return sorted({line.split(maxsplit=2)[2] for line in lines})


def without_comments(text):
    """Nor strings: the name of an instruction set in one declares nothing."""
    return re.sub(r'//[^\n]*|/\*.*?\*/|"[^"\n]*"', "", text, flags=re.DOTALL)


def words(name):
    """The names of scopes and of the function itself: `A::B<C>::f(int) const` gives A, B, f."""
    plain, depth = "", 0
    for character in name.split("[abi:")[0]:
        depth += {"<": 1, ">": -1}.get(character, 0)
        if depth == 0 and character == "(":
            break
        plain += character if depth == 0 and character != ">" else ""
    return re.findall(r"\w+", plain.replace("operator", ""))


def symbol_problems(names, c_functions, of_nn=False):
    headers = [path for path in INCLUDE.glob("**/*.h" if of_nn else "*.h")
               if path.name != "c_api.h"]
    declared = set(re.findall(r"\w+", " ".join(without_comments(path.read_text())
                                               for path in headers)))
    c_header = "" if of_nn else without_comments((INCLUDE / "c_api.h").read_text())
    declared_c = set(re.findall(r"\b(polyhead_\w+)\(", c_header))
    exported_c = {name for name in names if name.startswith("polyhead_")}
    for name in names:
        match = OURS.match(name)
        if name in exported_c:
            continue
        if not match:
            yield f"exports what is not ours: {name}"
        elif unknown := [word for word in words(match.group(1)) if word not in declared]:
            yield f"exports what no public header declares ({', '.join(unknown)}): {name}"
    for name in sorted(declared_c ^ exported_c):
        yield f"{'not exported' if name in declared_c else 'not in c_api.h'}: {name}"
    if c_functions is not None:
        listed = set(c_functions.split())
        for name in sorted(listed ^ exported_c):
            yield (f"gone, which breaks callers: {name}" if name in listed
                   else f"new: add it to the list of C functions: {name}")


def dynamic_section(library):
    """(soname, needed libraries)"""
    text = output_of("readelf", "--dynamic", "--wide", library)
    soname = re.findall(r"\(SONAME\).*\[(.+)\]", text)
    return soname[0] if soname else "", re.findall(r"\(NEEDED\).*\[(.+)\]", text)


def stripped_bytes(library):
    with tempfile.NamedTemporaryFile() as copy:
        subprocess.run(["strip", "-o", copy.name, library], check=True)
        return Path(copy.name).stat().st_size


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("library")
    parser.add_argument("--c-functions", type=Path)
    parser.add_argument("--max-bytes", type=int, default=3_000_000)
    parser.add_argument("--nn", action="store_true", help="the library is polyhead::nn")
    arguments = parser.parse_args()

    names = exported(arguments.library)
    listed = arguments.c_functions.read_text() if arguments.c_functions else None
    problems = list(symbol_problems(names, listed, arguments.nn))
    soname, needed = dynamic_section(arguments.library)
    versioned = re.compile(r"libpolyhead\w*\.so\.\d+(\.\d+)?")
    if not versioned.fullmatch(soname):
        problems.append(f"its SONAME is {soname!r}; must be versioned")
    allowed = [versioned.fullmatch(name) if arguments.nn else None for name in needed]
    problems += [f"needs {name}" for name, ours in zip(needed, allowed, strict=True)
                 if not ours and not ALLOWED_NEEDS.match(name)]
    size = stripped_bytes(arguments.library)
    if size > arguments.max_bytes:
        problems.append(f"takes {size} bytes stripped; at most {arguments.max_bytes}")

    print("\n".join(names))
    num_c = sum(name.startswith("polyhead_") for name in names)
    print(f"{soname}: {size} bytes stripped; needs {', '.join(needed)}; exports {num_c} C functions "
          f"and {len(names) - num_c} C++ names")
    for problem in problems:
        print(f"check_symbols: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
