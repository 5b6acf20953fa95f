"""Another commit's library under today's worker, built once under build/against."""

import os
import shutil
import subprocess
import sys
from pathlib import Path


def run(command, log, **options):
    """Shows what the command said only if it fails."""
    with log.open("a", encoding="utf-8") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False, **options)
    if done.returncode != 0:
        sys.exit(f"{log.read_text(encoding='utf-8')}\nbench: failed: {' '.join(map(str, command))}")


def commit_of(root, ref):
    found = subprocess.run(["git", "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}"],
                           cwd=root, capture_output=True, text=True, check=False)
    if found.returncode != 0:
        sys.exit(f"bench: --against {ref}: git knows no such commit")
    return found.stdout.strip()


def sources_of(root, commit, folder, log):
    """The commit's files without a work tree of git's: nothing is left behind in .git."""
    if folder.exists():
        return
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    archive = partial / "all.tar"
    run(["git", "archive", "--output", archive, commit], log, cwd=root)
    run(["tar", "-xf", archive, "-C", partial], log)
    archive.unlink()
    partial.rename(folder)


def build(root, ref):
    """(name, command) of the other build's worker."""
    commit = commit_of(root, ref)
    name = f"polyhead@{commit[:8]}"
    folder = root / "build" / "against" / commit[:12]
    log = root / "build" / f"against-{commit[:8]}.log"
    print(f"building {name}", file=sys.stderr, flush=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("", encoding="utf-8")
    sources_of(root, commit, folder, log)
    # Today's worker, so that both sides are asked and timed by the same code.
    shutil.rmtree(folder / "bench", ignore_errors=True)
    shutil.copytree(root / "bench", folder / "bench",
                    ignore=shutil.ignore_patterns("__pycache__"))
    # ./dev sets ccache up, if there is one: files that two commits share are compiled once.
    here = {"cwd": folder, "env": os.environ | {"CCACHE_BASEDIR": str(folder),
                                                "CCACHE_NOHASHDIR": "true"}}
    run(["cmake", "--preset", "release"], log, **here)
    run(["cmake", "--build", "build/release", "--target", "bench_worker"], log, **here)
    return name, [str(Path(folder, "build", "release", "bench", "bench_worker"))]
