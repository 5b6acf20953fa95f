"""Finds what the tests share with tests/parity: the formula in numpy, and the rule for errors."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/parity"))

from error_rule import RATIOS  # noqa: E402


@pytest.fixture(scope="session")
def root():
    return ROOT


def pytest_terminal_summary(terminalreporter):
    for what, share in sorted(RATIOS.worst.items()):
        terminalreporter.write_line(f"{what}: at most {share:.2f} of what the naive formula allows")
