"""What one process does for a comparison on fixed features: train some heads side by side, and record them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from nc_tools._support.signals import Killed, StopSignal
from nc_tools.data import DataConfig
from nc_tools.experiment.evaluate.holdout_run import HoldoutResult
from nc_tools.experiment.job import Job, JobResult, RunProgress
from nc_tools.experiment.on_features.feature_data import open_feature_data
from nc_tools.experiment.on_features.head_records import record_final, record_holdout
from nc_tools.experiment.on_features.head_run import HeadRun
from nc_tools.experiment.on_features.head_samples import HeadSamples, SeedSamples, data_seed
from nc_tools.experiment.on_features.train_heads import train_heads
from nc_tools.experiment.on_features.trial_scores import TrialScores
from nc_tools.experiment.run_identity import config_hash
from nc_tools.experiment.run_job import OnProgress


@dataclass(frozen=True, kw_only=True)
class HeadsJob:
    """Runs on fixed features that one process makes side by side.

    Attributes:
        stage: What they are, such as "tuning, round 1"; for progress lines.
        runs: The runs, all of one kind, of any arms and seeds.
        seeds: Seeds whose samples the process keeps for its next job.
        features: The file of the feature sets.
        scores: Folder of the scores of tuning trials.
        metric: Key of the metric on the hold-out by which tuning chooses.
        kind: What is made, in one word.
    """

    stage: str
    runs: tuple[Job, ...]
    seeds: frozenset[int]
    features: Path
    scores: Path
    metric: str
    kind: str = "heads"

    @property
    def label(self) -> str:
        """Name of the job in progress lines."""
        return f"{self.stage} ({len(self.runs)} heads)"


@dataclass(frozen=True)
class HeadsResult(JobResult):
    """How a job ended.

    Attributes:
        runs: How each of its runs ended, in order.
    """

    runs: tuple[JobResult, ...] = ()


def make_heads(job: HeadsJob, on_progress: OnProgress, stop: StopSignal) -> HeadsResult:
    """Make the runs of a job.

    Args:
        job: The runs.
        on_progress: Called after every epoch, and for every run that is evaluated.
        stop: When set, the runs in progress are not recorded, and the job ends as KILLED. The scores of tuning trials
            are kept after every pack.
    """
    try:
        make = _make_trials if job.runs[0].kind == "tuning" else _make_records
        return HeadsResult(None, "FINISHED", runs=tuple(make(job, on_progress, stop)))
    except Killed as error:
        return HeadsResult(None, "KILLED", error=error.reason)


def _make_trials(job: HeadsJob, on_progress: OnProgress, stop: StopSignal) -> list[JobResult]:
    """Make tuning trials, whose scores are all that is kept."""
    scores, untrained = TrialScores(job.scores, job.metric), []
    trial_of: dict[HeadRun, str] = {}

    def keep(pack: Sequence[HeadRun]) -> None:
        scores.keep({trial_of.pop(run): run.score(job.metric) for run in pack})

    for one in job.runs:
        run = _new_run(job, one)
        trial_of[run] = config_hash(one, run.samples.facts, run.samples.data.features.backbone)
        if one.config.is_closed_form:
            _train(job, [run], on_progress, stop, keep)  # ready now: it is kept before the next head is computed
        else:
            untrained.append(run)
        _check(stop)
    _train(job, untrained, on_progress, stop, keep)
    return [JobResult(None, "FINISHED") for _ in job.runs]


def _make_records(job: HeadsJob, on_progress: OnProgress, stop: StopSignal) -> list[JobResult]:
    """Make hold-out runs or final runs."""
    runs = []
    for one in job.runs:
        _check(stop)
        runs.append(_new_run(job, one))
    _train(job, runs, on_progress, stop)
    results = []
    for number, run in enumerate(runs, start=1):
        if stop.requested:
            raise Killed("stopped before all runs were evaluated")
        on_progress(RunProgress(f"evaluating {job.stage}", number, len(runs), unit="run"))
        results.append(record_final(run) if run.job.kind == "final" else record_holdout(run))
        if all(later.samples is not run.samples for later in runs[number:]):
            run.samples.data.kept_results.clear()  # or the features of all seeds would be in memory
    return results


def _train(
    job: HeadsJob,
    runs: Sequence[HeadRun],
    on_progress: OnProgress,
    stop: StopSignal,
    on_trained: Callable[[Sequence[HeadRun]], None] | None = None,
) -> None:
    label = f"{job.stage} ({len(runs)} heads)"
    train_heads(
        runs, stop=stop, on_trained=on_trained,
        on_epoch=lambda pack, done, total: on_progress(RunProgress(f"{label}, {pack}", done, total)),
    )  # fmt: skip


def _new_run(job: HeadsJob, one: Job) -> HeadRun:
    keep = None if one.kind != "final" else HoldoutResult.read(one.holdout_run).best_epoch
    return HeadRun.new(one, _samples(job, one), keep)


_opened: dict[tuple[Path, int, DataConfig], SeedSamples] = {}
"""The samples of the seeds that this process works on."""


def _samples(job: HeadsJob, one: Job) -> HeadSamples:
    """Return the samples of a run, which is opened once for all runs and jobs of its seed."""
    for key in [key for key in _opened if key[0] != job.features or key[1] not in job.seeds]:
        del _opened[key]
    key = job.features, data_seed(one), one.config.data
    if key not in _opened:
        device = torch.device(one.device)
        _opened[key] = SeedSamples(open_feature_data(one.config, job.features, seed=data_seed(one), device=device))
    return _opened[key].of(one.kind)


def _check(stop: StopSignal) -> None:
    if stop.requested:
        raise Killed("stopped while heads were computed")
