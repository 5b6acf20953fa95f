#!/usr/bin/env python3
"""Checks what CONTRIBUTING.md promises and no compiler sees: who includes whom, size budgets,
words that do not belong. Prints one line per finding; exits 1 if there is any.

    python3 tools/check_style.py [--sizes]
"""

import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import cpp_scan

ROOT = Path(__file__).resolve().parent.parent

# layer: the layers of src/ it may include besides itself. `public` stands for include/polyhead.
ALLOWED = {
    "public": {"public"},
    "base": {"public"},
    "simd": {"base", "public"},
    "kernels": {"base", "simd"},
    "attention": {"base", "simd", "kernels", "public"},
    "io": {"base", "public"},
    "module": {"base", "kernels", "attention", "io", "public"},
    # A library of its own: links to the public functions alone, and shares headers with the layers.
    "nn": {"base", "simd", "kernels", "module", "public"},
    "c_api": {"base", "public"},
    "report": {"base", "attention", "io", "module", "public"},
    "cli": {"base", "module", "report", "public", "demo"},
    # Measures the library it shows against this CPU's peak.
    "demo": {"base", "simd", "kernels", "module", "report", "public", "cli"},
    "examples": {"public"},
    "python": {"public"},
}
# In kernels: pure functions on one thread.
KERNEL_HEADERS = {"thread", "mutex", "atomic", "future", "fstream", "iostream", "filesystem"}

FILE_LINES, LONG_FILE_LINES, PUBLIC_HEADER_LINES = 500, 700, 300
FUNCTION_LINES, INNERMOST_LINES = 60, 100
PARAMETERS, NESTING, COLUMNS = 6, 4, 100
TOPICS_PER_FOLDER = 30  # x.h, x.cc, x_test.cc and x_reference.cc are one topic

LIBRARY_WORDS = re.compile(
    r"\b(printf|fprintf|puts|abort|_?exit|quick_exit|terminate|system)\s*\(|std::(cout|cerr|clog)\b")
TOLERANCE_WORDS = re.compile(
    r"\b(EXPECT|ASSERT)_(NEAR|FLOAT_EQ|DOUBLE_EQ)\b|\ballclose\b|\bisApprox\b|\b\d+(\.\d*)?[eE]-\d")
# Compiled for the baseline, so that it takes vectors by another calling convention than its caller.
REGION_WORDS = re.compile(r"\bstd::(bit_cast|array|vector|function|pair|tuple)\b")
MACHINE_PATHS = re.compile(r"(?<![\w.])/(work|home|root|Users)/\w|/tmp/\w")
TEXT_SUFFIXES = {".h", ".cc", ".c", ".py", ".sh", ".md", ".txt", ".json", ".cmake", ".js", ".html",
                 ".in", ""}


def tracked_files():
    """Files of the repository, build trees excluded, as paths relative to its root."""
    if shutil.which("git") and (ROOT / ".git").exists():
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        names = listing.stdout.split("\n")
    else:  # an unpacked archive
        found = (path.relative_to(ROOT) for path in ROOT.rglob("*"))
        names = [path for path in found if not {"build", ".git", "__pycache__"} & set(path.parts)]
    return [Path(name) for name in sorted(set(map(str, names))) if (ROOT / name).is_file()]


def layer_of(path):
    parts = path.parts
    if parts[0] == "include":
        return "public"
    if parts[:2] == ("cli", "demo"):
        return "demo"
    return parts[1] if parts[0] == "src" and len(parts) > 2 else parts[0]


def is_test(path):
    return path.stem.endswith("_test") or path.parts[0] in ("tests", "testing", "bench")


def check_includes(path, text):
    """Include direction: the table above, not goodwill."""
    layer = layer_of(path)
    if layer not in ALLOWED or is_test(path):
        return
    for number, line in enumerate(text.split("\n"), 1):
        match = re.match(r'\s*#\s*include\s*[<"]([^>"]+)[>"]', line)
        if not match:
            continue
        target = match.group(1)
        folder = target.split("/")[0] if "/" in target else ""
        included = "public" if folder == "polyhead" else folder
        if included in ALLOWED and included not in ALLOWED[layer] | {layer}:
            yield number, f"{layer} must not include {target}"
        if layer == "kernels" and target in KERNEL_HEADERS:
            yield number, f"a kernel must not include <{target}>"


def file_budget(path):
    if path.parts[0] == "include":
        return PUBLIC_HEADER_LINES
    return LONG_FILE_LINES if "kernels" in path.parts or is_test(path) else FILE_LINES


def check_sizes(path, text):
    lines = text.rstrip("\n").split("\n")
    exempt = re.search(r"over-budget: \w", text)
    if len(lines) > file_budget(path) and not exempt:
        yield 1, f"{len(lines)} lines; at most {file_budget(path)}, or say `over-budget: why`"
    for number, line in enumerate(lines, 1):
        if len(line) > COLUMNS:
            yield number, f"{len(line)} columns; at most {COLUMNS}"
        if line != line.rstrip():
            yield number, "blanks at the end of the line"


def check_functions(path, text):
    lines = text.split("\n")
    for function in cpp_scan.functions(text):
        header = "\n".join(lines[max(0, function.line - 8):function.line + 1])
        if re.search(r"over-budget: \w", header):
            continue
        budget = INNERMOST_LINES if "innermost kernel" in header else FUNCTION_LINES
        name = function.name
        if function.lines > budget:
            yield function.line, f"{name}: {function.lines} lines; at most {budget}"
        if function.parameters > PARAMETERS:
            yield function.line, f"{name}: {function.parameters} parameters; at most {PARAMETERS}"
        if function.nesting > NESTING:
            yield function.line, f"{name}: nesting of {function.nesting}; at most {NESTING}"


def check_words(path, text):
    code = cpp_scan.without_comments_and_strings(text).split("\n")
    in_library = path.parts[0] in ("src", "include") and not is_test(path)
    in_kernel_test = path.stem.endswith("_test") and layer_of(path) in (
        "kernels", "attention", "module", "nn")
    in_region = path.name.endswith((".body.h", ".inc.h"))
    for number, line in enumerate(code, 1):
        if in_region and (match := REGION_WORDS.search(line)):
            yield number, f"a std template that would carry vectors: {match.group(0)}"
        if in_library and (match := LIBRARY_WORDS.search(line)):
            yield number, f"the library never prints, aborts or exits: {match.group(0)}"
        if in_kernel_test and (match := TOLERANCE_WORDS.search(line)):
            yield number, f"a literal tolerance ({match.group(0)}); use testing/tolerance.h"


def check_text(path, text):
    """What holds for every text file."""
    if path.name == Path(__file__).name:
        return
    for number, line in enumerate(text.split("\n"), 1):
        if match := MACHINE_PATHS.search(line):
            yield number, f"a path of one machine: {match.group(0)}"
        if re.search(r"\bTODO\b(?!\(\d+\))", line) and path.suffix in (".h", ".cc", ".py"):
            yield number, "TODO without the number of its issue"


def check_folders(paths):
    folders = {}
    for path in paths:
        if path.suffix in (".h", ".cc", ".py"):
            topic = re.sub(r"(_test|_reference)$", "", path.name.split(".")[0])
            folders.setdefault(path.parent, set()).add(topic)
    for folder, topics in folders.items():
        if len(topics) > TOPICS_PER_FOLDER:
            yield folder, f"{len(topics)} topics; at most {TOPICS_PER_FOLDER} in one folder"


def findings(paths):
    for path in paths:
        if path.suffix not in TEXT_SUFFIXES or "data" in path.parts:
            continue
        try:
            text = (ROOT / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        checks = [check_text]
        if path.suffix in (".h", ".cc", ".c"):
            checks += [check_includes, check_sizes, check_functions, check_words]
        for check in checks:
            for number, message in check(path, text):
                yield f"{path}:{number}: {message}"
    for folder, message in check_folders(paths):
        yield f"{folder}: {message}"


def print_sizes(paths):
    """Our own row of sizes: files and functions, median / p90 / longest."""
    sources = [p for p in paths if p.suffix in (".h", ".cc", ".c")]
    product = [p for p in sources if not is_test(p)]
    texts = {p: (ROOT / p).read_text(encoding="utf-8") for p in sources}
    file_lines = [texts[p].count("\n") for p in product]
    function_lines = [f.lines for p in product for f in cpp_scan.functions(texts[p])]
    test_lines = sum(text.count("\n") for p, text in texts.items() if is_test(p))
    for what, values in (("files", file_lines), ("functions", function_lines)):
        p90 = statistics.quantiles(values, n=10)[-1]
        print(f"{len(values)} {what}: lines median {statistics.median(values):.0f}, "
              f"p90 {p90:.0f}, longest {max(values)}")
    print(f"test lines per 100 product lines: {100 * test_lines / sum(file_lines):.0f}")


def main():
    paths = tracked_files()
    found = list(findings(paths))
    for finding in found:
        print(finding)
    if "--sizes" in sys.argv[1:]:
        print_sizes(paths)
    print(f"check_style: {len(paths)} files, {len(found)} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
