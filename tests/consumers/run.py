#!/usr/bin/env python3
"""Builds and runs small programs that use the library as others do.

    run.py installed BUILD CC CXX         installs BUILD's library, moves the tree, and links to it
                                          by find_package and pkg-config, shared and static
    run.py add_subdirectory SOURCE CC CXX compiles the library as part of the program
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SONAME = "libpolyhead.so."


def run(*command, **more):
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, **more)
    if result.returncode != 0:
        sys.exit(f"failed ({result.returncode}): {' '.join(map(str, command))}\n"
                 f"{result.stdout}{result.stderr}")
    return result.stdout


class Consumers:
    def __init__(self, folder, c_compiler, cxx_compiler):
        self.folder, self.c_compiler, self.cxx_compiler = folder, c_compiler, cxx_compiler

    def check(self, name, program, started, shared, environment=None):
        """Runs it, and makes sure that it was linked as its name says."""
        printed = run(program, env=environment).strip()
        needs_us = SONAME in run("readelf", "--dynamic", program)
        if needs_us != shared:
            sys.exit(f"{name}: {'not ' if shared else ''}linked to the shared library")
        print(f"{name}: {printed} ({time.monotonic() - started:.1f} s)")

    def by_cmake(self, name, source, *options, shared):
        started = time.monotonic()
        build = self.folder / f"build-{name}"
        run("cmake", "-G", "Ninja", "-S", HERE / source, "-B", build,
            f"-DCMAKE_C_COMPILER={self.c_compiler}",
            f"-DCMAKE_CXX_COMPILER={self.cxx_compiler}", "--no-warn-unused-cli", *options)
        run("cmake", "--build", build, "--target", "consumer")
        self.check(name, build / "consumer", started, shared)

    def by_pkg_config(self, name, compiler, program, prefix, *, static, package="polyhead"):
        started = time.monotonic()
        folder, = prefix.glob("**/pkgconfig")
        ask = ["pkg-config", "--cflags", "--libs", *(["--static"] if static else []), package]
        flags = run(*ask, env={**os.environ, "PKG_CONFIG_PATH": str(folder)}).split()
        standard = "-std=c99" if program.endswith(".c") else "-std=c++20"
        out = self.folder / name
        run(compiler, standard, HERE / program, "-o", out, *(["-static"] if static else []), *flags)
        environment = {**os.environ, "LD_LIBRARY_PATH": str(folder.parent)}
        self.check(name, out, started, not static, environment)


def trains(prefix, consumers):
    """The example of several files, from what is installed alone."""
    sources = sorted((prefix / "share/doc/polyhead/examples/train").glob("*.cc"))
    folder, = prefix.glob("**/pkgconfig")
    flags = run("pkg-config", "--cflags", "--libs", "polyhead-nn",
                env={**os.environ, "PKG_CONFIG_PATH": str(folder)}).split()
    program = consumers.folder / "train"
    run(consumers.cxx_compiler, "-std=c++20", *sources, "-o", program, *flags)
    printed = run(program, "--steps", "2", "--width", "16", "--heads", "2", cwd=consumers.folder,
                  env={**os.environ, "LD_LIBRARY_PATH": str(folder.parent)})
    if not (consumers.folder / "heads.html").exists():
        sys.exit(f"the installed example wrote no page:\n{printed}")
    print("examples/train:", printed.splitlines()[0])


def check_links(readme):
    for target in re.findall(r"\]\(([^)#:]+)\)", readme.read_text(encoding="utf-8")):
        if not (readme.parent / target).exists():
            sys.exit(f"the installed {readme.name} links to {target}, which is not installed")


def installed(build, consumers):
    first, moved = consumers.folder / "first", consumers.folder / "moved" / "elsewhere"
    run("cmake", "--install", build, "--prefix", first)
    moved.parent.mkdir()
    shutil.move(first, moved)
    for kind, language, program in (("shared", "CXX", "program"), ("static", "CXX", "program"),
                                    ("static", "C", "program"), ("shared", "CXX", "training"),
                                    ("static", "CXX", "training")):
        consumers.by_cmake(f"find_package-{kind}-{language}-{program}", "find_package",
                           f"-DKIND={kind}", f"-DLANGUAGE={language}", f"-DPROGRAM={program}",
                           f"-DCMAKE_PREFIX_PATH={moved}", shared=kind == "shared")
    cxx, c = consumers.cxx_compiler, consumers.c_compiler
    consumers.by_pkg_config("pkg-config", cxx, "program.cc", moved, static=False)
    consumers.by_pkg_config("nn", cxx, "training.cc", moved, static=False, package="polyhead-nn")
    consumers.by_pkg_config("c", c, "program.c", moved, static=False)
    consumers.by_pkg_config("c-static", c, "program.c", moved, static=True)
    trains(moved, consumers)
    check_links(moved / "share/doc/polyhead/README.md")
    if (command := moved / "bin" / "polyhead").exists():
        print("command:", run(command, "info").splitlines()[0])


def refuses_a_project_in_c_alone(source, folder):
    words = ["cmake", "-G", "Ninja", "-S", HERE / "add_subdirectory", "-B", folder / "build-c",
             "-DLANGUAGES=C", f"-DPOLYHEAD_SOURCE={source}"]
    told = subprocess.run(words, capture_output=True, text=True, check=False)
    if told.returncode == 0 or "enable_language(CXX)" not in told.stderr:
        sys.exit(f"a project in C alone is not told what to write:\n{told.stderr}")


def add_subdirectory(source, consumers):
    refuses_a_project_in_c_alone(source, consumers.folder)
    # Compiled without optimisation, which is half the work: the way of linking is what is tested.
    consumers.by_cmake("add_subdirectory", "add_subdirectory", f"-DPOLYHEAD_SOURCE={source}",
                       "-DLANGUAGES=CXX", "-DCMAKE_BUILD_TYPE=Debug",
                       "-DCMAKE_CXX_FLAGS_DEBUG=", shared=False)


def main():
    what, where, c_compiler, cxx_compiler = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        consumers = Consumers(Path(folder), c_compiler, cxx_compiler)
        {"installed": installed, "add_subdirectory": add_subdirectory}[what](where, consumers)


if __name__ == "__main__":
    main()
