"""What the tests of our pages share: a browser, the pages' folder, and what must hold after each
test."""

import subprocess
import tempfile
import unittest
from pathlib import Path

from browser import Browser, find_chromium

SKIPPED = 77


def value(expression):
    return PageCase.browser.evaluate(expression)


def text(selector):
    return value(f"document.querySelector({selector!r}).textContent")


class PageCase(unittest.TestCase):
    browser, pages, screenshots = None, None, None  # set by run_page_tests

    def open(self, page, fragment="", width=1600, dark=False):
        self.browser.size(width, 1000 if width > 700 else 800, dark)
        self.browser.open(self.pages / page, fragment)

    def picture(self, name, dark):
        if self.screenshots:
            theme = "dark" if dark else "light"
            self.browser.screenshot(self.screenshots / f"{name}-{theme}.png")

    def tearDown(self):
        self.assertEqual(self.browser.complaints, [])
        self.assertTrue(all(url.startswith(("file:", "about:")) for url in self.browser.requests),
                        self.browser.requests)
        self.assertLessEqual(len(self.browser.requests), 2)  # about:blank and the file


def run_page_tests(case, maker, screenshots):
    """`maker`: a command that writes the pages into the folder given as its last argument.
    `screenshots`: nothing, or a folder for them. Returns the exit code."""
    program = find_chromium()
    if program is None:
        print("skipped, there is no chromium here")
        return SKIPPED
    PageCase.screenshots = Path(screenshots[0]) if screenshots else None
    with tempfile.TemporaryDirectory() as folder:
        PageCase.pages = Path(folder)
        subprocess.run([*maker, folder], check=True, stdout=subprocess.DEVNULL)
        PageCase.browser = Browser(program)
        try:
            result = unittest.TextTestRunner(verbosity=2).run(
                unittest.defaultTestLoader.loadTestsFromTestCase(case))
        finally:
            PageCase.browser.close()
    return 0 if result.wasSuccessful() else 1
