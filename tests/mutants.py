"""Break one sign, factor or bound at a time and see whether a test notices.

    python tests/mutants.py                    all of them, over an hour on one core
    python tests/mutants.py --only geometry    those whose file or text holds the word
    python tests/mutants.py --jobs 2           two at a time

Each mutant is applied to a copy of the tree. Ends with 1 if one survives, if its text is not found exactly once, or if
its tests fail (or do not run) without it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import runpy
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("nc_tools", "tests", "recipes", "pyproject.toml")
SECONDS = 300  # a mutant that makes a loop endless is noticed too
# Each run is a fork of one process that has imported what is large and is never broken here.
FORKS = multiprocessing.get_context("forkserver")
PRELOADED = ["torch", "torchvision", "hypothesis", "scipy.stats", "sklearn.metrics"]
FORKS.set_forkserver_preload(["__main__", *PRELOADED])


class Mutant(NamedTuple):
    """One change of one file under nc_tools, and the pytest arguments that must turn red."""

    file: str
    old: str
    new: str
    tests: str


# Each module of tests/broken says what is broken: {(file under nc_tools, tests that must notice): [(old, new), ...]}.
BROKEN: list[dict[tuple[str, str], list[tuple[str, str]]]] = [
    runpy.run_path(str(path))["BROKEN"] for path in sorted((ROOT / "tests" / "broken").glob("*.py"))
]
MUTANTS = [
    Mutant(file, old, new, tests) for part in BROKEN for (file, tests), pairs in part.items() for old, new in pairs
]


def run_pytest(tree: Path, tests: str) -> None:
    """Run pytest in a copy of the tree and end this process with its exit status."""
    os.setsid()  # so that what the tests start can be ended with them
    os.chdir(tree)
    os.environ |= {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.path[:] = [str(tree), *(path for path in sys.path if Path(path or ".").resolve() not in (ROOT, ROOT / "tests"))]
    sys.dont_write_bytecode = True  # this process was there before its environment said so
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    import pytest

    options = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # hypothesis is there already
    sys.exit(pytest.main([*options, *shlex.split(tests)]))


def run_tests(tree: Path, tests: str) -> int | None:
    """Return pytest's exit status in a copy of the tree, None where it did not come to an end."""
    process = FORKS.Process(target=run_pytest, args=(tree, tests))
    process.start()
    process.join(SECONDS)
    if (status := process.exitcode) is None:
        os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()
    return status


def verdict(tree: Path, mutant: Mutant) -> str:
    """Apply a mutant, run its tests and take it back."""
    file = tree / "nc_tools" / mutant.file
    before = file.read_text(encoding="utf-8")
    if (found := before.count(mutant.old)) != 1:
        return f"BROKEN: the text is there {found} times"
    file.write_text(before.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        status = run_tests(tree, mutant.tests)
    finally:
        file.write_text(before, encoding="utf-8")
    if status == 0:
        return "SURVIVED"
    if status is None:
        return "timed out"  # noticed, if the mutant is what made it endless
    return "killed" if status == 1 else f"BROKEN: pytest ended with {status}"


def copy_tree(to: Path) -> Path:
    """Copy what tests need to a folder of its own, where it can be broken."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT / name).exists():
            shutil.copy2(ROOT / name, to / name)
    return to


def main() -> int:
    """Run the chosen mutants; return 0 if all were killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORD", help="those whose file or text holds this")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="so many at the same time (1)")
    args = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if any(args.only in text for text in mutant[:3])]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(args.jobs) as pool:
        free: Queue[Path] = Queue()
        for job in range(args.jobs):
            free.put(copy_tree(Path(folder) / str(job)))

        def in_a_tree(work: Callable[[Path], str]) -> str:
            tree, start = free.get(), time.monotonic()
            try:
                return f"{work(tree):9} {time.monotonic() - start:5.1f} s"
            finally:
                free.put(tree)

        def without(tests: str) -> str:
            return in_a_tree(lambda tree: "passed" if (status := run_tests(tree, tests)) == 0 else f"BROKEN: {status}")

        def broken(mutant: Mutant) -> str:
            return in_a_tree(lambda tree: verdict(tree, mutant))

        sound = True
        unbroken = list(dict.fromkeys(mutant.tests for mutant in chosen))
        for tests, said in zip(unbroken, pool.map(without, unbroken), strict=True):
            sound = sound and said.startswith("passed")
            print(f"{said}  without a mutant: {tests}", flush=True)
        alive = 0
        for mutant, said in zip(chosen, pool.map(broken, chosen), strict=True):
            alive += not said.startswith(("killed", "timed out"))
            change = f"{' '.join(mutant.old.split())}  ->  {' '.join(mutant.new.split())}"
            print(f"{said}  {mutant.file}: {change}", flush=True)
    print(f"{len(chosen) - alive} of {len(chosen)} killed{'' if sound else ', but some tests fail without a mutant'}")
    return 0 if sound and chosen and not alive else 1


if __name__ == "__main__":
    sys.exit(main())
