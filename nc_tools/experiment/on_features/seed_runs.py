"""All runs of some seeds on fixed features: each is tuned on its own hold-out, then all arms make their final runs.

The seeds of one process go through the same rounds side by side, so that their heads train in the same packs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from nc_tools._support.signals import Killed, StopSignal
from nc_tools.experiment.job import JobResult, RunProgress
from nc_tools.experiment.on_features.head_records import record_final, record_holdout
from nc_tools.experiment.on_features.head_run import HeadRun
from nc_tools.experiment.on_features.one_seed import OneSeed, seed_results
from nc_tools.experiment.on_features.train_heads import OnTrained, train_heads
from nc_tools.experiment.on_features.trial_scores import TrialScores
from nc_tools.experiment.plan import Plan

_Run = TypeVar("_Run")


@dataclass(frozen=True, kw_only=True)
class SeedsJob:
    """The runs of some seeds, made by one process.

    Attributes:
        plan: The arms and their common rules.
        seeds: Seeds of hold-out, initial weights, order and frames.
        features: The file of the feature sets.
        root: The output folder.
        device: Where heads train.
        kind: What is made, in one word.
    """

    plan: Plan
    seeds: tuple[int, ...]
    features: Path
    root: Path
    device: str
    kind: str = "seeds"

    @property
    def label(self) -> str:
        """Name of the job in progress lines."""
        return f"seed{'s' * (len(self.seeds) > 1)} {', '.join(map(str, self.seeds))}"


def run_seeds_job(job: SeedsJob, on_progress: Callable[[RunProgress], None], stop: StopSignal) -> JobResult:
    """Tune all arms on the hold-out of each seed, and make their final runs; finished ones are not repeated.

    Args:
        job: The seeds.
        on_progress: Called after every epoch.
        stop: When set, the runs in progress are not recorded, and the job ends as KILLED. The scores of tuning trials
            are kept after every pack.
    """
    decides = job.plan.protocol.primary.replace("test/", "holdout/", 1)
    ended = TrialScores(job.root / "seeds" / "trials", decides)
    seeds = [OneSeed(job.plan, seed, job.features, job.root, job.device, ended) for seed in job.seeds]

    def train(runs: Sequence[HeadRun], stage: str, on_trained: OnTrained | None = None) -> None:
        label = f"{job.label}, {stage} ({len(runs)} heads)"
        train_heads(
            runs, stop=stop, on_trained=on_trained,
            on_epoch=lambda pack, done, total: on_progress(RunProgress(f"{label}, {pack}", done, total)),
        )  # fmt: skip

    def evaluated(stage: str, done: int, runs: int) -> None:
        on_progress(RunProgress(f"{job.label}, evaluating {stage}", done, runs, unit="run"))

    try:
        untuned = [seed for seed in seeds if not seed.read_tuning()]
        _tune(untuned, ended, train, stop)
        _make_holdouts(untuned, train, evaluated, stop)
        for seed in seeds:
            seed.write([])
        finals = [(seed, run, row) for seed in seeds for run, row in _until_stopped(seed.new_finals(), stop)]
        train([run for _, run, _ in finals], "final runs")
        for number, (_, run, row) in enumerate(finals, start=1):
            if stop.requested:
                raise Killed("stopped before all final runs were evaluated")
            evaluated("final runs", number, len(finals))
            result = record_final(run)
            row |= {"status": result.status, "error": result.error}
        for seed in seeds:
            seed.write(seed.rows)
    except Killed as error:
        return JobResult(None, "KILLED", error=error.reason)
    return JobResult(seed_results(job.root, job.seeds[0]), "FINISHED")


class _Train(Protocol):
    """Trains the heads of new runs; ``on_trained`` is called after every pack."""

    def __call__(self, runs: Sequence[HeadRun], stage: str, on_trained: OnTrained | None = None) -> None: ...


def _tune(seeds: Sequence[OneSeed], ended: TrialScores, train: _Train, stop: StopSignal) -> None:
    """Tune seeds side by side, round by round; trials that have ended are not made again."""
    trial_of: dict[HeadRun, str] = {}

    def keep(pack: Sequence[HeadRun]) -> None:
        ended.keep({trial_of.pop(run): run.score(ended.metric) for run in pack})

    number = 0
    while waiting := [(seed, settings) for seed in seeds if (settings := seed.next_settings()) is not None]:
        number += 1
        stage, untrained = f"tuning, round {number}", []
        for seed, settings in waiting:
            for trial, run in seed.new_trials(settings):
                trial_of[run] = trial
                if run.job.config.is_closed_form:
                    train([run], stage, keep)  # ready now: its score is kept before the next head is computed
                else:
                    untrained.append(run)
                _check(stop)
        train(untrained, stage, keep)


def _make_holdouts(
    seeds: Sequence[OneSeed], train: _Train, evaluated: Callable[[str, int, int], None], stop: StopSignal
) -> None:
    """Make the hold-out runs of the settings that won."""
    holdouts = _until_stopped(_new_holdouts(seeds), stop)
    train([run for _, _, run in holdouts], "hold-out runs")
    for number, (seed, arm, run) in enumerate(holdouts, start=1):
        evaluated("hold-out runs", number, len(holdouts))
        if run.error is None:
            seed.holdouts[arm] = record_holdout(run)


def _new_holdouts(seeds: Sequence[OneSeed]) -> Iterator[tuple[OneSeed, str, HeadRun]]:
    for seed in seeds:
        for arm, run in seed.new_holdouts():
            yield seed, arm, run


def _until_stopped(runs: Iterable[_Run], stop: StopSignal) -> list[_Run]:
    """Return new runs as a list. Heads in closed form are computed meanwhile, which may take minutes."""
    made = []
    for run in runs:
        _check(stop)
        made.append(run)
    return made


def _check(stop: StopSignal) -> None:
    if stop.requested:
        raise Killed("stopped while heads were computed")
