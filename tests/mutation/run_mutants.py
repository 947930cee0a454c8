"""Break one operator, number or condition at a time and report the mutants that no test notices.

    python tests/mutation/run_mutants.py                                    every mutant, in a night
    python tests/mutation/run_mutants.py --sample 300 --modules geometry    300 mutants of one package

The tests of a package run once, with coverage. Then each mutant runs in a fork of this process, which has imported
torch already, against the tests that run the mutated line, fastest first. The exit status is 1 if less than 90 % of a
package's mutants are killed, if a survivor is not listed in survivors.toml, or if a test fails without a mutant.
A survivor is listed by module, operator and text of the line before and after, so it stays listed when lines move.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import math
import multiprocessing
import os
import pickle
import random
import signal
import sys
import tempfile
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import coverage
import pytest
from hypothesis import Phase, settings
from mutants import Mutant, MutatedLoader, mutants_of

HERE = Path(__file__).resolve().parent
CONFIG = tomllib.loads((HERE / "config.toml").read_text(encoding="utf-8"))
LISTED = tomllib.loads((HERE / "survivors.toml").read_text(encoding="utf-8")).get("survivor", [])
OPTIONS = ["-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning", "-m", "not gpu"]
GOAL = 0.9
COSTLY_SETUP = 1.0  # seconds
FILES = ("modules", "tests")
COLUMNS = ("mutants", "killed", "timeout", "survived", "not listed", "broken tests")


class Recorder:
    """Pytest plugin: which lines each test runs, how many seconds it takes and whether it fails.

    The tests of a file share what takes seconds to set up, so the tests of such a file run one after the other.
    """

    def __init__(self, modules: Collection[Path]) -> None:
        self.coverage = coverage.Coverage(data_file=None, config_file=False, include=[str(path) for path in modules])
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.failed: set[str] = set()
        self.together: set[str] = set()

    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        """Attribute the lines that run from now on to this test."""
        self.coverage.switch_context(item.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add one phase of a test."""
        self.seconds[report.nodeid] += report.duration
        if report.when == "setup" and report.duration > COSTLY_SETUP:
            self.together.add(report.nodeid.partition("::")[0])
        if report.failed:
            self.failed.add(report.nodeid)


def record(tests: list[str], modules: Collection[Path], out: Path) -> int:
    """Run the tests of a package without a mutant, and write what the recorder notes and which tests run each line."""
    recorder = Recorder(modules)
    recorder.coverage.start()
    status = pytest.main([*OPTIONS, *tests], plugins=[recorder])
    recorder.coverage.stop()
    data = recorder.coverage.get_data()
    lines = {module: data.contexts_by_lineno(str(module.resolve())) for module in modules}
    out.write_bytes(pickle.dumps((lines, dict(recorder.seconds), recorder.failed, recorder.together)))
    return int(status)


class Trial:
    """Pytest plugin: load the mutant and run the chosen tests, fastest first; some files as a whole."""

    def __init__(
        self, mutant: Mutant, chosen: Collection[str], seconds: Mapping[str, float], together: Collection[str]
    ) -> None:
        self.mutant, self.chosen, self.seconds = mutant, chosen, seconds
        self.of_file = {
            file: sum(seconds[test] for test in chosen if test.partition("::")[0] == file) for file in together
        }

    def pytest_sessionstart(self) -> None:
        """Put the mutant before pytest's own import hook, which is installed by now."""
        MutatedLoader(self.mutant)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out the other tests, except those that exist only with this mutant."""
        items[:] = [item for item in items if item.nodeid in self.chosen or item.nodeid not in self.seconds]
        items.sort(key=self._rank)

    def _rank(self, item: pytest.Item) -> float:
        return self.of_file.get(item.nodeid.partition("::")[0], self.seconds.get(item.nodeid, 0.0))


def in_fork(limit: float, work: Callable[..., int], *args: object) -> int | None:
    """Return the exit status of ``work`` in a silent fork of this process; None if it takes longer than ``limit``."""

    def silently() -> None:
        os.setsid()  # so that processes which the tests start can be ended too
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        sys.exit(work(*args))

    process = multiprocessing.get_context("fork").Process(target=silently)
    process.start()
    process.join(limit)
    status = process.exitcode
    if status is None:
        os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()
    return status


def verdict(
    mutant: Mutant, lines: Mapping[int, Collection[str]], seconds: Mapping[str, float], together: Collection[str]
) -> str:
    """Return "killed", "timeout" or "survived". A test that fails without a mutant has infinite ``seconds``."""
    passing = {test for test in seconds if seconds[test] < math.inf}
    of_line = passing.intersection(lines.get(mutant.line, ()))
    of_module = {test for tests in lines.values() for test in tests} & passing
    files = {test.partition("::")[0] for test in of_module}
    of_files = {test for test in passing if test.partition("::")[0] in files}
    # A fixture or a cache is computed in one test and used in others, so after the tests of the line come all tests of
    # their files. Lines that run at import belong to no test: there all tests follow those of the module.
    for chosen in (of_line, of_files) if of_line else (of_module, passing):
        args = [*OPTIONS, "-x", *sorted({test.partition("::")[0] for test in chosen})]
        limit = 30 + 5 * sum(seconds[test] for test in chosen)
        status = in_fork(limit, pytest.main, args, [Trial(mutant, chosen, seconds, together)]) if chosen else 0
        if status not in (0, pytest.ExitCode.NO_TESTS_COLLECTED):
            return "timeout" if status is None else "killed"
    return "survived"


def matches(pattern: str) -> list[Path]:
    """Return the paths of a pattern of config.toml; raise ValueError if there is none, as after a renaming."""
    paths = sorted(Path().glob(pattern))
    if not paths:
        raise ValueError(f"config.toml names {pattern}, and no such file exists: correct the pattern")
    return paths


def run_package(name: str, sample: int, seed: int) -> Counter[str]:
    """Try the mutants of a package; return the number of each result."""
    modules, tests = ([path for pattern in CONFIG["packages"][name][key] for path in matches(pattern)] for key in FILES)
    with tempfile.NamedTemporaryFile() as file:
        in_fork(7200, record, [str(path) for path in tests], modules, Path(file.name))
        lines, seconds, failed, together = pickle.loads(Path(file.name).read_bytes())
    for test in failed:
        print(f"fails without a mutant: {test}")
        seconds[test] = math.inf
    mutants = [mutant for module in modules for mutant in mutants_of(module, CONFIG["operators"])]
    for item in LISTED:
        if Path(item["module"]) in modules and not any(mutant.is_listed(item) for mutant in mutants):
            print(f"survivors.toml lists a mutant that no longer exists: {item}")
    mutants = random.Random(seed).sample(mutants, min(sample or len(mutants), len(mutants)))
    counts = Counter({"mutants": len(mutants), "broken tests": len(failed)})
    for mutant in mutants:
        began = time.monotonic()
        result = verdict(mutant, lines[mutant.module], seconds, together)
        counts[result] += 1
        if result == "survived" and not any(mutant.is_listed(item) for item in LISTED):
            result = "not listed"
            counts[result] += 1
        print(f"{result:10} {time.monotonic() - began:6.1f} s  {mutant.module}:{mutant.line}  {mutant.operator}")
        print(f"    {mutant.code}\n    {mutant.becomes}", flush=True)
    return counts


def warm_up() -> None:
    """Import what every fork needs, and nothing of nc_tools."""
    for module in CONFIG["preload"]:
        importlib.import_module(module)
    phases = [Phase.explicit, Phase.generate]  # one failing example is enough: it need not be the smallest
    settings.register_profile("mutants", database=None, derandomize=True, deadline=None, phases=phases)
    settings.load_profile("mutants")
    with redirect_stdout(StringIO()):
        pytest.main([*OPTIONS, "--markers"])  # imports pytest's plugins
    gc.collect()
    gc.freeze()  # pytest collects garbage ten times at its end, which takes 0.7 s with torch imported


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", default=",".join(CONFIG["packages"]), help="packages of config.toml (all)")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="N mutants of each package (all)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample (0)")
    args = parser.parse_args()
    os.chdir(HERE.parents[1])
    warm_up()
    results = {name: run_package(name, args.sample, args.seed) for name in args.modules.split(",")}
    good = True
    print("".join(f"{word:>13}" for word in ("package", *COLUMNS, "rate")))
    for name, counts in results.items():
        rate = 1 - counts["survived"] / max(1, counts["mutants"])
        good &= rate >= GOAL and counts["not listed"] + counts["broken tests"] == 0
        print(f"{name:>13}" + "".join(f"{counts[word]:13}" for word in COLUMNS) + f"{rate:13.1%}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
