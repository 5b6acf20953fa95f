"""Finds the programs that ./dev parity has built."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # the products are small: numpy's threads only wait

import torch  # noqa: E402

from error_rule import RATIOS  # noqa: E402

torch.set_num_threads(1)


def pytest_report_header():
    return f"torch {torch.__version__}"


def pytest_terminal_summary(terminalreporter):
    for what, share in sorted(RATIOS.worst.items()):
        terminalreporter.write_line(f"{what}: at most {share:.2f} of what is allowed")


@pytest.fixture(scope="session")
def build():
    return Path(os.environ["POLYHEAD_BUILD_DIR"])


@pytest.fixture(scope="session")
def polyhead(build):
    return build / "cli" / "polyhead"


@pytest.fixture(scope="session")
def model():
    """MiniLM's folder; fetched once."""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, root / "tools/fetch_minilm.py", "--into", root / "build/models"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return Path(result.stdout.strip())
