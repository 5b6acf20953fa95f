#!/usr/bin/env python3
"""Opens the page behind `polyhead explain --report` in a real Chromium: shows the numbers that it
holds for whatever query and head are chosen, asks nothing of the network, hears the keys.

    explain_page_test.py MAKE_EXPLAIN_FILES POLYHEAD [SCREENSHOTS]   exit 77: no Chromium, skipped

With a folder SCREENSHOTS it leaves pictures there for a person to look at.
"""

import base64
import json
import math
import re
import struct
import subprocess
import sys
from pathlib import Path

from page_case import PageCase, run_page_tests, text, value

HOSTILE_QUERY, HOSTILE_MASK = "<img src=x onerror=1>.npy", "\u202emask.npy"
PAGES = {
    "small.html": ["--weights", "small.safetensors", "--query", HOSTILE_QUERY, "--key", "k.npy",
                   "--attn-mask", HOSTILE_MASK, "--add-zero-attn"],
    "plain.html": ["--weights", "plain.safetensors", "--query", HOSTILE_QUERY, "--key", "k.npy",
                   "--attn-mask", HOSTILE_MASK],
    "nan.html": ["--weights", "plain.safetensors", "--query", HOSTILE_QUERY, "--key", "k.npy",
                 "--attn-mask", HOSTILE_MASK, "--empty-rows", "nan"],
    "large.html": ["--weights", "large.safetensors", "--query", "long.npy", "--causal"],
    "end.html": ["--weights", "large.safetensors", "--query", "long.npy", "--causal",
                 "--causal-align", "bottom-right"],
    "scratch.html": ["--weights", "scratch.safetensors", "--query", HOSTILE_QUERY, "--key",
                     "k.npy", "--scratch-mask", "scratch_mask.npy"],
    "keyless.html": ["--weights", "plain.safetensors", "--query", HOSTILE_QUERY, "--key",
                     "none.npy"],
    "empty.html": ["--weights", "plain.safetensors", "--query", "none.npy"],
}


class Held:
    """The data of a page, read without a browser."""

    def __init__(self, path):
        blocks = re.findall(r'<script type="application/octet-stream" id="([^"]+)">([^<]*)<',
                            path.read_text(encoding="utf-8"))
        self.blocks = {name: base64.b64decode(data) for name, data in blocks}
        self.meta = json.loads(self.blocks["meta"])

    def row(self, name, *place):
        """The row at `place` of a matrix, all its numbers."""
        *outer, columns = self.meta["matrices"][name]
        at = 0
        for index, size in zip(place, outer):
            at = at * size + (0 if size == 1 else index)
        return list(struct.unpack_from(f"<{columns}d", self.blocks[f"m-{name}"], 8 * at * columns))


# The numbers of the figure of step `step` whose title starts with `title`, as their tooltips say.
FIGURE = """(() => {
    const figures = [...document.querySelectorAll('#%s .matrix')];
    const one = figures.find((f) => f.querySelector('h3').firstChild.data === %r);
    return [...one.querySelectorAll('%s')].map((cell) => cell.title);
})()"""


def figure(step, title, cells=".number"):
    section = f"step-{step}" if isinstance(step, int) else step
    return [float(title) for title in value(FIGURE % (section, title, cells))]


class ExplainPageTest(PageCase):
    def held(self, page):
        return Held(self.pages / page)

    def expect_numbers(self, page, query, head):
        """All that the page shows of one small query and head; head counts from 0 here."""
        held = self.held(page)
        dim = held.meta["headDim"]
        part = slice(head * dim, head * dim + dim)
        of_query = f"of query {query}"
        self.assertEqual(figure(1, f"query {query}"), held.row("query", query))
        self.assertEqual(figure(1, "q"), held.row("q", query))
        self.assertEqual(figure(2, f"q of head {head + 1}"), held.row("q", query)[part])
        keys = [x for j in range(6) for x in held.row("k", j)[part]]
        if "extra_k" in held.meta["matrices"]:
            keys += held.row("extra_k", head, 0) + held.row("extra_k", head, 1)
        self.assertEqual(figure(2, f"k of head {head + 1}", "td"), keys)
        self.assertEqual(figure(3, f"scores {of_query}"), held.row("scores", head, query))
        self.assertEqual(figure(4, f"scaled {of_query}"), held.row("scaled", head, query))
        self.assertEqual(figure(5, f"mask {of_query}"), held.row("mask", head, query))
        self.assertEqual(figure(5, f"masked {of_query}"), held.row("masked", head, query))
        self.assertEqual(figure(6, f"weights {of_query}"), held.row("weights", head, query))
        self.assertEqual(figure(7, f"out of head {head + 1}"), held.row("heads", query)[part])
        self.assertEqual(figure(8, "concatenated"), held.row("heads", query))
        self.assertEqual(figure(9, "out"), held.row("out", query))
        self.assertEqual(figure("fast", "out"), held.row("fast", query))

    def test_every_query_and_head_shows_its_own_numbers(self):
        for page in ("small.html", "plain.html", "scratch.html"):
            self.open(page)
            for query in range(5):
                for head in range(2):
                    value(f"location.hash = '#query={query}&head={head + 1}'")
                    self.browser.wait(f"document.getElementById('query').value === '{query}' && "
                                      f"document.getElementById('head').value === '{head}'")
                    self.expect_numbers(page, query, head)

    def test_keys_choose_query_and_head(self):
        self.open("small.html")
        value("document.getElementById('query').focus()")
        for _ in range(3):
            self.browser.key("ArrowDown")
        self.browser.key("ArrowUp")
        for _ in range(3):
            self.browser.key("Tab")
        self.assertEqual(value("document.activeElement.id"), "head-next")
        self.browser.key("Enter")
        self.assertEqual(value("location.hash"), "#query=2&head=2")
        self.expect_numbers("small.html", 2, 1)
        self.assertEqual(text("#status"), "Query 2, head 2")

    def test_tab_reaches_every_control(self):
        self.open("large.html")
        seen = set()
        for _ in range(40):
            self.browser.key("Tab")
            seen.add(value("document.activeElement.id || document.activeElement.tagName"))
        for wanted in ("theme", "query", "query-next", "head", "head-next", "A", "SUMMARY"):
            self.assertIn(wanted, seen)

    def test_nothing_sticks_out_and_all_can_be_read(self):
        smallest = """Math.min(...[...document.querySelectorAll('body *')]
            .filter((e) => e.checkVisibility() && [...e.childNodes].some((n) => n.nodeType === 3
                && n.data.trim()) && !e.closest('math'))
            .map((e) => parseFloat(getComputedStyle(e).fontSize)))"""
        cut = """[...document.querySelectorAll('.cells li, pre, h2, .shapes, .legend')]
            .filter((e) => e.scrollWidth > e.clientWidth).length"""
        for page in ("small.html", "nan.html", "large.html", "scratch.html", "empty.html"):
            for width in (400, 1600):
                for dark in (False, True):
                    self.open(page, "", width, dark)
                    self.assertLessEqual(value("document.documentElement.scrollWidth"), width)
                    self.assertGreaterEqual(value(smallest), 11)
                    self.assertEqual(value(cut), 0)
                    self.assertEqual(value("document.documentElement.dataset.theme"),
                                     "dark" if dark else "light")
                    self.picture(f"{page[:-5]}-{width}", dark)

    def test_hostile_names_are_text(self):
        self.open("small.html")
        self.assertIn(HOSTILE_QUERY, text("#facts"))
        self.assertIn("\u27e8U+202E\u27e9mask.npy", text(".masks"))
        self.assertEqual(value("document.querySelectorAll('img').length"), 0)

    def test_masks_say_what_they_hide(self):
        self.open("small.html", "#query=2")
        words = text("#step-5 .note")
        self.assertIn("sees 5 of 8 keys", words)
        self.assertIn("1, 3, 5", words)
        self.assertIn("Never masked: bias_k, zero", words)
        self.assertIn("bias_v", text("#step-2 .shows"))
        self.open("plain.html", "#query=1")
        self.assertIn("This query sees no key: its weights are 0", text("#step-6 .note"))
        self.open("nan.html", "#query=1")
        self.assertIn("are NaN", text("#step-6 .note"))
        self.assertTrue(all(math.isnan(x) for x in figure(9, "out")))
        self.open("scratch.html", "#query=1")
        self.assertIn("sees 6 of 6 keys", text("#step-5 .note"))
        self.assertIn("Added: from", text("#step-5 .note"))
        self.assertIn("1e5", text("#step-5 .shapes"))

    def test_a_long_sequence_is_pictures_and_tables(self):
        held = self.held("large.html")
        count = held.meta["keys"]["count"]
        self.assertLess(count, 160)
        self.open("large.html", "#query=7&head=3")
        self.assertIn(f"keys 0 to {count - 1} of 160", text("#part"))
        colours = """(canvas => new Set(new Uint32Array(canvas.getContext('2d')
            .getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size)"""
        self.assertGreater(value(f"{colours}(document.querySelector('#step-6 canvas'))"), 3)
        value("document.querySelector('#step-6 summary').click()")
        self.browser.wait("document.querySelectorAll('#step-6 td').length > 0")
        self.assertEqual(figure(6, "weights of query 7", "td"), held.row("weights", 2, 7))
        value("document.getElementById('query-next').click()")  # the table stays open
        self.browser.wait("document.querySelectorAll('#step-6 td').length > 0")
        self.assertEqual(figure(6, "weights of query 8", "td"), held.row("weights", 2, 8))

    def test_pictures_of_weights_go_up_to_the_largest_in_them(self):
        held = self.held("large.html")
        last = held.meta["queries"]["count"] - 1  # sees many keys: small weights
        largest = max(held.row("weights", 0, last))
        self.assertLess(largest, 0.5)
        self.open("large.html", f"#query={last}")
        said = text("#step-6 .legend")
        self.assertTrue(said.startswith("0") and "the largest" in said, said)
        self.assertAlmostEqual(float(said[1:].split(",")[0]), largest, places=3)
        darkest = """[...document.querySelectorAll('#step-6 canvas')].every((canvas) => {
            const context = canvas.getContext('2d');
            const bytes = context.getImageData(0, 0, canvas.width, canvas.height).data;
            for (let i = 0; i < bytes.length; i += 4)
              if (bytes[i] === 42 && bytes[i + 1] === 13 && bytes[i + 2] === 69) return true;
            return false;
        })"""
        self.assertTrue(value(darkest))

    def test_a_large_table_is_turned_by_rows(self):
        self.open("large.html")
        value("document.querySelectorAll('#step-3 summary')[1].click()")
        self.browser.wait("document.querySelectorAll('#step-3 tbody tr').length > 0")
        last = "document.querySelector('#step-3 tbody tr:last-child th').textContent"
        before = int(value(last))
        value("document.querySelectorAll('#step-3 .pager button')[1].click()")
        self.assertGreater(int(value(last)), before)
        for _ in range(99):
            value("document.querySelectorAll('#step-3 .pager button')[1].click()")
        self.assertEqual(int(value(last)), self.held("large.html").meta["queries"]["count"] - 1)

    def test_the_end_of_a_triangle_is_numbered_as_in_the_input(self):
        queries = self.held("end.html").meta["queries"]
        self.assertEqual(queries["first"] + queries["count"], 160)
        self.open("end.html", "#query=159&head=1&step=6")
        self.assertEqual(value("document.activeElement.id"), "heading-6")
        self.assertIn("weights of query 159", text("#step-6 .shows"))
        self.assertEqual(value("document.getElementById('query').selectedOptions[0].text"), "159")

    def test_a_click_on_a_picture_chooses_its_row(self):
        self.open("large.html", "#query=0&head=1")
        value("""document.querySelector('#step-6 .choosable canvas').dispatchEvent(
            (p => new MouseEvent('click', {clientX: p.left + 3, clientY: p.bottom - 1}))(
                document.querySelector('#step-6 .choosable canvas').getBoundingClientRect()))""")
        last = self.held("large.html").meta["queries"]["count"] - 1
        self.assertEqual(value("location.hash"), f"#query={last}&head=1")

    def test_the_address_keeps_step_and_theme(self):
        self.open("small.html", "#query=1&head=1&step=6&theme=dark")
        value("document.getElementById('query-next').click()")
        self.assertEqual(value("location.hash"), "#query=2&head=1&step=6&theme=dark")
        value("document.querySelectorAll('#contents a')[5].click()")  # where the address is already
        self.assertEqual(value("document.activeElement.id"), "heading-6")
        value("document.querySelectorAll('#contents a')[2].click()")
        self.browser.wait("document.activeElement.id === 'heading-3'")
        value("document.getElementById('theme').click()")
        self.assertEqual(value("location.hash"), "#query=2&head=1&step=3&theme=light")
        self.assertEqual(value("document.documentElement.dataset.theme"), "light")

    def test_addresses_beyond_the_page_show_the_nearest(self):
        for fragment, wanted in (("#query=999&head=999", ("4", "1")),
                                 ("#query=-3&head=x", ("0", "0")),
                                 ("#step=99", ("0", "0"))):
            self.open("small.html", fragment)
            self.assertEqual((value("document.getElementById('query').value"),
                              value("document.getElementById('head').value")), wanted)

    def test_every_step_has_formula_shapes_and_code(self):
        self.open("scratch.html")
        for step in range(1, 10):
            says = f"#step-{step} .says"
            self.assertTrue(value(f"!!document.querySelector('{says} math, {says} "
                                  f".plain-formula').textContent.trim()"))
            self.assertRegex(text(f"{says} .shapes"), r"\[\d+, \d+\]")
            self.assertIn("src/", text(f"{says} .code"))
            self.assertIn("in PyTorch", text(f"{says} .code"))

    def test_nothing_to_compute_is_said(self):
        self.open("empty.html")
        self.assertTrue(value("document.getElementById('nothing').checkVisibility()"))
        self.assertFalse(value("document.getElementById('steps').checkVisibility()"))
        self.open("keyless.html", "#query=3")
        self.assertIn("sees no key", text("#step-6 .note"))

    def test_paper_is_white_and_has_no_buttons(self):
        self.open("small.html", "", 1600, True)
        value("dispatchEvent(new Event('beforeprint'))")
        self.browser.call("Emulation.setEmulatedMedia", media="print")
        self.assertEqual(value("document.documentElement.dataset.theme"), "light")
        self.assertFalse(value("document.getElementById('query-next').checkVisibility()"))
        self.assertTrue(value("document.getElementById('query').checkVisibility()"))
        self.picture("print", False)
        self.browser.call("Emulation.setEmulatedMedia", media="")
        value("dispatchEvent(new Event('afterprint'))")
        self.assertEqual(value("document.documentElement.dataset.theme"), "dark")


def make_pages(make_files, polyhead, folder):
    subprocess.run([make_files, folder], check=True)
    for page, arguments in PAGES.items():
        command = [Path(polyhead).resolve(), "explain", *arguments, "--report", page]
        subprocess.run(command, cwd=folder, check=True,
                       stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    if sys.argv[1] == "--make":
        make_pages(*sys.argv[2:])
        sys.exit(0)
    maker = [sys.executable, __file__, "--make", *sys.argv[1:3]]
    sys.exit(run_page_tests(ExplainPageTest, maker, sys.argv[3:]))
