"""The command nc-tools compare: compare one or more sources once, or again whenever a run has ended."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from nc_tools._support.printable import printable
from nc_tools.comparison.closing_report import (
    print_and_write,
    print_links,
    print_next,
    print_places,
    report_comparison,
)
from nc_tools.comparison.compare import DOWNLOADS, compare_runs
from nc_tools.comparison.compared_run import ComparedRun
from nc_tools.comparison.join_folders import join_folders
from nc_tools.comparison.read_experiment import Experiment
from nc_tools.comparison.record_sources import MLFLOW, is_output_folder, read_sources
from nc_tools.comparison.report_files import report_folder
from nc_tools.comparison.result import Comparison
from nc_tools.comparison.watch_runs import watch_runs
from nc_tools.tracking import MlflowSync
from nc_tools.tracking.no_mlflow import NO_MLFLOW

REPORT_OF_SEVERAL = Path("outputs/compare")
"""Where the report of several sources is written, if no folder is given."""


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """What `nc-tools compare` compares, and how.

    Attributes:
        sources: Output folders, folders of runs, and runs or experiments in MLflow.
        baseline: The arm to pair against; None for the experiment's own.
        details: Print tests, power and variances too.
        out: Folder for ``report``; None for the output folder, or ``outputs/compare`` for several sources.
        tracking_uri: Address of the MLflow store; None for MLFLOW_TRACKING_URI, or else mlflow.db in the folder; "none"
            for no MLflow.
        filter_string: Which runs of MLflow's experiments are compared, in MLflow's search syntax; None for all.
        watch: Compare again whenever a run has ended.
    """

    sources: Sequence[str]
    baseline: str | None = None
    details: bool = False
    out: Path | None = None
    tracking_uri: str | None = None
    filter_string: str | None = None
    watch: bool = False

    @property
    def folder(self) -> Path | None:
        """The output folder, if it is the only source."""
        return Path(self.sources[0]) if len(self.sources) == 1 and is_output_folder(self.sources[0]) else None

    @property
    def home(self) -> Path:
        """The folder that holds the report."""
        return self.out or self.folder or REPORT_OF_SEVERAL

    @property
    def command(self) -> str:
        """The command that compares the same runs."""
        given = {"--out": self.out, "--filter": self.filter_string, "--tracking-uri": self._address}
        options = [part for name, value in given.items() if value is not None for part in (name, str(value))]
        return shlex.join(["nc-tools", "compare", *self.sources, *options])

    @property
    def _address(self) -> str | None:
        # Folders need no address, and an address that may hold a password is not printed.
        needed = any(source.startswith(MLFLOW) for source in self.sources)
        return self.tracking_uri if needed and "@" not in (self.tracking_uri or "") else None


def run_compare(options: CompareOptions, console: Console) -> None:
    """Compare, print the table, and write the report; with ``watch`` until Ctrl-C.

    Raises:
        ValueError: If there is nothing to compare, or the sources cannot be compared.
        FileNotFoundError: If a folder holds no runs.
    """
    if options.watch:
        watch_runs(
            lambda: _read_soon(options),
            lambda runs, plan: _show(options, runs, plan, console),
            lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True),
        )
        print_places(options.home / "report", console)
    elif options.folder is not None and options.out is None and options.filter_string is None:
        _one_folder(options, options.folder, console)
    else:
        runs, experiment = _read(options)
        comparison = _show(options, runs, experiment, console)
        print_next(comparison, options.command, console, details=options.details)
        print_places(report_folder(options.home, comparison), console)


def _one_folder(options: CompareOptions, folder: Path, console: Console) -> None:
    comparison = report_comparison(folder, console, baseline=options.baseline, details=options.details)
    sync = None if options.tracking_uri == NO_MLFLOW else MlflowSync(folder, options.tracking_uri)
    if sync is not None:
        sync.push()
        if (advice := sync.advice()) is not None:
            print(f"nc_tools: {printable(advice)}", file=sys.stderr)
    print_links(folder, console, sync, comparison=comparison, details=options.details)


def _read(options: CompareOptions) -> tuple[list[ComparedRun], Experiment]:
    folders = read_sources(
        options.sources,
        downloads=options.home / DOWNLOADS,
        tracking_uri=options.tracking_uri,
        filter_string=options.filter_string,
    )
    return join_folders(folders)


def _read_soon(options: CompareOptions) -> tuple[list[ComparedRun], Experiment]:
    """Read the sources; return no runs if the only source is an output folder in which no run has started yet."""
    if options.folder is not None and options.folder.is_dir() and not (options.folder / "runs").exists():
        return [], Experiment()
    return _read(options)


def _show(options: CompareOptions, runs: Sequence[ComparedRun], experiment: Experiment, console: Console) -> Comparison:
    comparison = compare_runs(runs, options.baseline, experiment=experiment)
    print_and_write(comparison, report_folder(options.home, comparison), console, details=options.details)
    return comparison
