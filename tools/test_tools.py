#!/usr/bin/env python3
"""The checkers must be able to say no: each gets something to find. Run by ctest."""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import check_binary  # noqa: E402
import check_docs  # noqa: E402
import check_readme  # noqa: E402
import check_style  # noqa: E402
import check_symbols  # noqa: E402
import cpp_scan  # noqa: E402
import fetch_minilm  # noqa: E402

LONG = "void long_one(int a, std::map<int, int> b) {\n" + "  ++a;\n" * 70 + "}\n"
DEEP = """
Thing::Thing(int a) : a_{a}, b_(a) {
  // if (comment) { { {
  for (;;) { if (a) { while (a) { do { if (a) { a = '}'; } } while (a); } } }
}
"""


def style(check, path, text):
    return [message for _, message in check(Path(path), text)]


class Scan(unittest.TestCase):
    def test_measures(self):
        function, = cpp_scan.functions("namespace a {\n" + LONG + "}\n")
        self.assertEqual((function.lines, function.parameters, function.line), (72, 2, 2))
        function, = cpp_scan.functions(DEEP)
        self.assertEqual((function.nesting, function.name), (5, "Thing::Thing"))


class Style(unittest.TestCase):
    def test_budgets(self):
        self.assertTrue(style(check_style.check_functions, "src/io/a.cc", LONG))
        self.assertTrue(style(check_style.check_functions, "src/io/a.cc", DEEP))
        self.assertFalse(style(check_style.check_functions, "src/io/a.cc",
                               "// over-budget: a table\n" + LONG))
        self.assertTrue(style(check_style.check_sizes, "src/io/a.cc", "x\n" * 501))

    def test_include_direction(self):
        for path, line in (("src/simd/a.h", '#include "kernels/b.h"'),
                           ("src/kernels/a.cc", "#include <polyhead/tensor_view.h>"),
                           ("src/io/a.cc", '#include "module/b.h"'),
                           ("src/kernels/a.cc", "#include <thread>"),
                           ("examples/a.cc", '#include "base/message.h"')):
            self.assertTrue(style(check_style.check_includes, path, line), line)
        self.assertFalse(style(check_style.check_includes, "src/module/a.cc",
                               '#include "kernels/gemm.h"'))

    def test_words(self):
        words = check_style.check_words
        for line in ("EXPECT_NEAR(a, b, c);", "if (e < 1e-5) {}", "EXPECT_FLOAT_EQ(a, b);"):
            self.assertTrue(style(words, "src/kernels/gemm_test.cc", line), line)
        for line in ("std::abort();", 'printf("x");', "std::cerr << 1;", "exit(1);"):
            self.assertTrue(style(words, "src/io/npy.cc", line), line)
        self.assertTrue(style(words, "src/simd/a.inc.h", "std::bit_cast<V>(x)"))
        self.assertFalse(style(words, "src/io/npy.cc", "// never calls abort(), exit(1)"))
        machine_path = "see /" + "work/main"
        self.assertTrue(style(check_style.check_text, "README.md", machine_path))


class Binary(unittest.TestCase):
    def survey(self, source):
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "a.o"
            subprocess.run(["g++", "-O2", "-mavx2", "-mbmi2", "-x", "c++", "-c", "-", "-o", target],
                           input=source, text=True, check=True)
            return check_binary.survey(str(target))

    def test_escapes_are_found(self):
        body = "void f(double* x) { for (int i = 0; i < 99; ++i) x[i] *= 3; }"
        escapes, _, _ = self.survey(body)
        self.assertEqual(list(escapes), ["_Z1fPd"])
        escapes, vector, _ = self.survey("namespace polyhead::avx2 { " + body + " }")
        self.assertEqual((len(escapes), len(vector)), (0, 1))
        escapes, _, _ = self.survey("unsigned g(unsigned x, int n) { return x << n; }")
        self.assertEqual(len(escapes), 1)  # shlx: VEX, though it does not begin with v


class Symbols(unittest.TestCase):
    def problems(self, names, c_functions=None):
        declared = [name for name in self.declared if name not in names]
        return list(check_symbols.symbol_problems(declared + names, c_functions))

    def setUp(self):
        header = check_symbols.without_comments((check_symbols.INCLUDE / "c_api.h").read_text())
        self.declared = sorted(set(check_symbols.re.findall(r"\b(polyhead_\w+)\(", header)))

    def test_strays_are_found(self):
        self.assertEqual(self.problems(["polyhead::Tensor::operator=(polyhead::Tensor)"]), [])
        for stray in ("std::vector<int>::reserve(unsigned long)", "nlohmann::json::dump() const",
                      "polyhead::avx2::run(float*)", "polyhead::parse_header(char const*)",
                      "vtable for polyhead::Hidden", "malloc", "polyhead_not_in_the_header"):
            self.assertEqual(len(self.problems([stray])), 1, stray)

    def test_the_list_only_grows(self):
        listed = " ".join(self.declared)
        self.assertEqual(self.problems([], listed), [])
        self.assertIn("gone", self.problems([], listed + " polyhead_of_last_year")[0])
        self.assertIn("new", self.problems([], " ".join(self.declared[1:]))[0])


class Readme(unittest.TestCase):
    def test_strays_are_found(self):
        self.assertTrue(check_readme.contains("  a;\n\n    b;\n", "a;\nb;\n"))
        self.assertFalse(check_readme.contains("a;\nc;\nb;\n", "a;\nb;\n"))


class FetchMinilm(unittest.TestCase):
    def test_damage_is_found(self):
        abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            self.assertFalse(fetch_minilm.is_complete(folder, {"a": abc}))
            (folder / "a").write_text("abc")
            self.assertTrue(fetch_minilm.is_complete(folder, {"a": abc}))
            (folder / "a").write_text("abd")
            self.assertFalse(fetch_minilm.is_complete(folder, {"a": abc}))


class Docs(unittest.TestCase):
    def test_links(self):
        page = check_docs.ROOT / "docs" / "README.md"
        text = "[a](nowhere.md) [b](README.md#part) [c](https://a.org/b)"
        self.assertEqual(check_docs.broken_links(page, text), ["nowhere.md"])

    def test_blocks_become_one_function(self):
        text = "x\n```cpp\n#include <a>\nint a;\n```\n<!-- cpp\ncheck(a);\n-->\n```c\nb;\n```\n"
        program = check_docs.program([("docs/a.md", text), ("docs/b.md", "nothing")])
        self.assertTrue(program.startswith("#include <a>\n"))
        self.assertIn('#line 3 "docs/a.md"\n\nint a;\n#line 7 "docs/a.md"\ncheck(a);\n}', program)
        self.assertNotIn("b;\n", program)
        self.assertNotIn("page_b", program)


if __name__ == "__main__":
    unittest.main()
