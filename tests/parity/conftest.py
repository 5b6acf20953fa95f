"""Finds the programs that ./dev parity has built."""

import os
from pathlib import Path

import pytest
import torch

from error_rule import RATIOS

torch.set_num_threads(1)


def pytest_report_header():
    return f"torch {torch.__version__}"


def pytest_terminal_summary(terminalreporter):
    for what, share in sorted(RATIOS.worst.items()):
        terminalreporter.write_line(f"{what}: at most {share:.2f} of what torch and naive allow")


@pytest.fixture(scope="session")
def build():
    return Path(os.environ["POLYHEAD_BUILD_DIR"])


@pytest.fixture(scope="session")
def polyhead(build):
    return build / "cli" / "polyhead"
