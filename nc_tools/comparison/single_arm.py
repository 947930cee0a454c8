"""The end of an experiment with a single arm: its results over the seeds, without any comparison."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from nc_tools._support.printable import printable
from nc_tools.comparison.compared_run import SCORED_KINDS, read_compared_runs
from nc_tools.comparison.metric_info import metric_info
from nc_tools.comparison.read_experiment import Experiment, runs_of_experiment
from nc_tools.comparison.statistics import mean_and_sd

_METRICS = (
    "test/gen/accuracy", "test/gen/balanced_accuracy", "test/gen/many", "test/gen/medium", "test/gen/few",
    "test/cal/nll", "test/cal/ece", "test/cal_ts/ece", "perf/seconds", "perf/side_by_side",
)  # fmt: skip


def print_single_arm(out: Path, experiment: Experiment, console: Console) -> None:
    """Print the mean and the standard deviation over the runs of the only arm, and that nothing is compared.

    Raises:
        ValueError: If no run has finished.
    """
    (arm,) = experiment.arms
    runs = [run for run in runs_of_experiment(read_compared_runs(out), experiment) if run.kind in SCORED_KINDS]
    finished = [run for run in runs if run.status == "FINISHED"]
    if not finished:
        errors = sorted({run.error for run in runs if run.error})
        raise ValueError(f"no run of {arm} in {out} has finished: {errors[0] if errors else 'give the command again'}")
    text = (
        f"{arm} is the only arm: nothing is compared. Add a baseline with --arms BASELINE,{arm} to learn whether it "
        "helps."
    )
    console.print(printable(text), markup=False, highlight=False)
    table = Table("metric", "mean ± standard deviation", box=box.SIMPLE, caption=_count(len(finished), len(runs)))
    for key in dict.fromkeys((experiment.primary, *_METRICS)):
        if values := [run.final[key] for run in finished if key in run.final]:
            info = metric_info(key)
            table.add_row(f"{info.label} {info.arrow}".strip(), info.mean_and_sd(*mean_and_sd(values)))
    console.print(table)


def _count(finished: int, runs: int) -> str:
    return f"{finished} runs" if finished == runs else f"{finished} of {runs} runs; the others did not finish"
