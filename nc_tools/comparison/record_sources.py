"""Find and read the runs that a comparison is about: output folders, single runs, and runs that MLflow shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nc_tools.comparison.compared_run import SCORED_KINDS, ComparedRun, read_compared_runs
from nc_tools.comparison.join_folders import ComparedFolder
from nc_tools.comparison.read_experiment import Experiment, read_experiment, runs_of_experiment

MLFLOW = "mlflow:"
"""Beginning of a source in MLflow: the name of an experiment or the ID of a run follows."""


def is_output_folder(source: str | Path) -> bool:
    """Return True if a source is an output folder, and neither one run nor in MLflow."""
    return not str(source).startswith(MLFLOW) and not (Path(source) / "run.json").exists()


def read_sources(
    sources: Sequence[str | Path],
    *,
    downloads: Path,
    tracking_uri: str | None = None,
    filter_string: str | None = None,
) -> list[ComparedFolder]:
    """Read the runs of all sources, folder by folder.

    Args:
        sources: Output folders, folders of single runs, ``mlflow:EXPERIMENT`` or ``mlflow:RUN_ID``.
        downloads: Folder to which records that are not on this machine are downloaded.
        tracking_uri: Address of MLflow, for sources there.
        filter_string: Which runs of MLflow's experiments are read, in MLflow's search syntax; None for all.

    Raises:
        FileNotFoundError: If a folder holds no runs.
        ValueError: If a source in MLflow cannot be read, or there is a filter but no source in MLflow.
    """
    shown = [str(source).removeprefix(MLFLOW) for source in sources if str(source).startswith(MLFLOW)]
    if filter_string is not None and not shown:
        raise ValueError(
            f"a filter chooses runs of an experiment in MLflow, got the filter {filter_string!r} and no such experiment"
            ": give mlflow:EXPERIMENT, or leave the filter out"
        )
    selected: dict[Path, _Selected] = {}
    for source in (Path(source) for source in sources if not str(source).startswith(MLFLOW)):
        if (source / "run.json").exists():  # one run
            _select(selected, source.resolve().parent.parent, {source.resolve().name}, whole=False)
        else:
            _select(selected, source, None, whole=True)
    if shown:
        from nc_tools.tracking.fetch_records import fetch_records  # loads MLflow

        for records in fetch_records(shown, downloads, tracking_uri, filter_string):
            _select(selected, records.root, set(records.names), whole=records.whole, title=records.name)
    return [_read(part) for part in selected.values()]


class _Selected:
    """The names of an output folder's selected runs, None for all; ``whole``: with its planned and tuning runs."""

    def __init__(self, root: Path, names: set[str] | None, title: str, *, whole: bool) -> None:
        self.root, self.names, self.title, self.whole = root, names, title, whole


def _select(
    selected: dict[Path, _Selected], root: Path, names: set[str] | None, *, whole: bool, title: str = ""
) -> None:
    """Add runs of a folder to the selection; a folder that is given twice is listed once."""
    before = selected.get(root.resolve())
    if before is None:
        selected[root.resolve()] = _Selected(root, names, title, whole=whole)
        return
    before.names = None if before.names is None or names is None else before.names | names
    before.whole |= whole


def _read(part: _Selected) -> ComparedFolder:
    experiment = read_experiment(part.root)
    everything = read_compared_runs(part.root)
    if part.names is None:
        return ComparedFolder(part.root, runs_of_folder(everything, experiment), experiment)
    chosen = [run for run in everything if run.run_id in part.names]
    if part.whole:  # with the runs that are planned, and those for tuning, which MLflow does not get
        named = [run for run in everything if run.run_id in part.names or run.kind not in SCORED_KINDS]
        return ComparedFolder(part.root, runs_of_folder(named, experiment), experiment, part.title)
    arms = tuple(arm for arm in experiment.arms if any(run.arm == arm for run in chosen))
    return ComparedFolder(part.root, chosen, replace(experiment, arms=arms, runs=()), part.title)


def runs_of_folder(everything: Sequence[ComparedRun], experiment: Experiment) -> list[ComparedRun]:
    """Return the runs of an output folder that belong to its comparison.

    Tuning trials and hold-out runs have no result of their own: they are listed, so that a reader sees every run.
    """
    runs = runs_of_experiment(everything, experiment)
    listed = {run.run_id for run in runs}
    arms = {*experiment.arms, *(run.arm for run in runs)}
    runs += [r for r in everything if r.kind not in SCORED_KINDS and r.run_id not in listed and r.arm in arms]
    return runs
