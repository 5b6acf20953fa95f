#!/usr/bin/env python3
"""Opens the page of heads in a real Chromium: draws, asks nothing of the network, hears the keys.

    report_page_test.py MAKE_REPORT_PAGES [SCREENSHOTS]     exit 77: no Chromium here, skipped

With a folder SCREENSHOTS it leaves pictures there for a person to look at.
"""

import sys
from pathlib import Path

from page_case import PageCase, run_page_tests, text, value


class PageTest(PageCase):
    def test_every_head_is_drawn_and_nothing_sticks_out(self):
        for page, heads in (("small.html", 18), ("matrix.html", 4), ("twice.html", 3)):
            for width in (400, 1600):
                for dark in (False, True):
                    self.open(page, "", width, dark)
                    self.assertEqual(value("document.querySelectorAll('#grid canvas').length"),
                                     heads)
                    self.assertLessEqual(value("document.documentElement.scrollWidth"), width)
                    self.assertEqual(value("document.documentElement.dataset.theme"),
                                     "dark" if dark else "light")
                    self.picture(f"{Path(page).stem}-{width}", dark)

    def test_pictures_are_not_blank(self):
        self.open("small.html")
        colours = """(canvas => new Set(new Uint32Array(canvas.getContext('2d')
            .getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size)"""
        self.assertGreater(value(f"{colours}(document.querySelector('#grid canvas'))"), 5)
        self.assertGreater(value(f"{colours}(document.querySelector('#picture canvas'))"), 5)

    def test_a_head_of_nan_has_no_measures(self):
        self.open("nan.html", "#head=1&order=first")
        self.assertIn("81 weights are NaN and shown as 0.", text("#facts"))
        self.assertIn("Entropy\u2013", text("#chips"))
        self.assertNotIn("NaN", text("#chips"))
        self.assertEqual(text("#grid .cell:last-child .caption"), "1\u00b71")  # ordered last
        self.open("nan.html")
        self.assertNotIn("\u2013", text("#chips"))  # another head opens by itself

    def test_without_queries_there_are_no_measures_either(self):
        self.open("none.html", "#head=2")
        self.assertEqual(text("#head-heading"), "Head 2")  # its layer has no name
        self.assertIn("Entropy\u2013", text("#chips"))
        self.assertIn("Spread\u2013", text("#chips"))

    def test_an_induction_head_is_found_and_opens_by_itself(self):
        self.open("twice.html", "#order=induction")
        self.assertEqual(text("#head-heading"), "Head 1")
        self.assertIn("Induction100 %", text("#chips"))
        self.assertEqual(text("#grid .caption"), "1\u00b71")
        self.assertEqual(text("#grid .score"), "100 %")
        self.assertEqual(value("[...document.querySelectorAll('#guide p')]"
                               ".map(e => e.textContent).join('|')"),
                         "Look at head 1.|<b>Then</b> at the others.")
        self.open("small.html", "#order=induction")  # no token comes twice
        self.assertNotIn("Induction", text("#chips"))
        self.assertNotIn("induction", text("#measure"))

    def test_heads_that_are_alike(self):
        self.open("twice.html", "#head=2")
        self.assertEqual(text("#alike-list"), "Head 3100 %Head 150 %")
        value("document.querySelector('#alike-list button').click()")
        self.assertEqual(text("#head-heading"), "Head 3")
        self.open("none.html", "#head=2")
        self.assertEqual(text("#alike-list"), "Head 10 %")

    def test_hostile_labels_are_text(self):
        self.open("small.html", "#item=0")
        labels = value("[...document.querySelectorAll('#picture .query .token')]"
                       ".map(e => e.textContent).join('|')")
        self.assertIn("</script>", labels)
        self.assertIn("<img src=x onerror=1>", labels)
        self.assertIn("\u27e8U+202E\u27e9abc", labels)
        self.assertIn("a\u27e8U+000A\u27e9b", labels)
        self.assertIn("\u27e8empty\u27e9", labels)
        self.assertEqual(value("document.querySelectorAll('img').length"), 0)
        self.assertEqual(value("document.title"), "Made-up heads </title><script>")

    def test_weights_arrive_as_they_were(self):
        self.open("small.html", "#item=1&layer=1&head=6&query=1")  # looks at key 0, score 1.5
        self.assertIn("looks at", text("#top-heading"))
        # The row was cut from nine keys to three: exp(1.5) against eight times exp(0).
        self.assertEqual(text("#top-list li .value"), "36 %")

    def test_keys_open_a_head_and_choose_a_token(self):
        self.open("small.html", "#item=0&layer=1&head=1")
        value("document.querySelector('#grid .open').focus()")
        self.browser.key("ArrowRight")
        self.browser.key("ArrowDown")
        self.browser.key("Enter")
        self.assertEqual(text("#head-heading"), "Layer 2, head 2")
        self.assertIn("layer=2&head=2", value("location.hash"))
        value("document.querySelector('#picture .query').focus()")
        self.browser.key("ArrowDown")
        self.browser.key("ArrowDown")
        self.assertIn("query=1", value("location.hash"))
        self.assertEqual(text("#picture .query [aria-selected=true] .token"), "</script>")
        self.browser.key("Escape")
        self.assertNotIn("query=", value("location.hash"))

    def test_tab_reaches_every_control(self):
        self.open("small.html")
        seen = set()
        for _ in range(30):
            self.browser.key("Tab")
            seen.add(value("document.activeElement.id || document.activeElement.className"))
        for wanted in ("theme", "item", "item-next", "measure", "cell open", "view-lines",
                       "view-matrix", "mass", "query", "key", "save-svg", "save-png", "save-csv"):
            self.assertIn(wanted, seen)

    def test_order_and_filter(self):
        self.open("small.html", "#item=0&order=first")
        self.assertEqual(text("#grid .caption"), "3\u00b76")  # head 6 of layer 3 rests on token 0
        value("(f => { f.value = 100; f.dispatchEvent(new Event('input')) })"
              "(document.getElementById('filter'))")
        self.assertEqual(value("document.querySelectorAll('#grid .cell:not(.faded)').length"), 1)

    def test_matrix_zooms_and_moves_by_key(self):
        self.open("matrix.html", "#head=2")
        self.assertTrue(value("document.getElementById('view-lines').disabled"))
        value("document.querySelector('#picture canvas').focus()")
        before = text("#cross-says")
        for key in ("+", "+", "+", "ArrowDown", "ArrowRight"):
            self.browser.key(key)
        self.assertNotEqual(text("#cross-says"), before)
        self.browser.key("0")

    def test_links_lines_matrix_table_and_exports(self):
        self.open("small.html", "#item=0&layer=1&head=1&view=matrix&theme=dark")
        self.assertEqual(value("document.documentElement.dataset.theme"), "dark")
        self.assertEqual(value("document.querySelectorAll('.matrix canvas').length"), 1)
        value("document.getElementById('view-lines').click()")
        self.assertEqual(value("document.querySelectorAll('.lines canvas').length"), 1)
        self.assertEqual(value("location.hash"), "#item=0&layer=1&head=1&theme=dark")
        value("document.querySelector('#numbers summary').click()")
        self.browser.wait("document.querySelectorAll('#table tbody tr').length === 9")
        saved = """new Promise(done => {
            URL.createObjectURL = blob => { blob.text().then(done); return 'data:,'; };
            document.getElementById('%s').click();
        })"""
        svg = value(saved % "save-svg")
        self.assertIn("&#60;/script&#62;", svg)
        self.assertNotIn("<img", svg)
        self.assertEqual(len(value(saved % "save-csv").strip().split("\n")), 10)

    def test_item_switch(self):
        self.open("small.html")
        value("document.getElementById('item-next').click()")
        self.assertEqual(value("document.querySelectorAll('#picture .query li').length"), 3)
        self.assertIn("item=1", value("location.hash"))


if __name__ == "__main__":
    sys.exit(run_page_tests(PageTest, [sys.argv[1]], sys.argv[2:]))
