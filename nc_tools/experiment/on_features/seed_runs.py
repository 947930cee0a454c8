"""The order of all runs on fixed features: each seed is tuned on its own hold-out, then all arms make final runs.

The seeds go through the same stages side by side, so that their heads can train in the same packs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from nc_tools.experiment.job import Job, JobResult
from nc_tools.experiment.on_features.head_samples import data_seed
from nc_tools.experiment.on_features.one_seed import OneSeed
from nc_tools.experiment.on_features.trial_scores import TrialScores
from nc_tools.experiment.plan import Plan

MakeRuns = Callable[[str, Sequence[Job]], Sequence[JobResult]]
"""Makes the runs of a stage, given its name, and returns how each of them ended."""


def trial_scores(root: Path, plan: Plan) -> TrialScores:
    """Return the scores of finished tuning trials, read from an output folder."""
    return TrialScores(root / "seeds" / "trials", plan.protocol.primary.replace("test/", "holdout/", 1))


def make_seeds(seeds: Sequence[OneSeed], ended: TrialScores, make: MakeRuns) -> dict[int, JobResult]:
    """Tune all arms on the hold-out of each seed, and make their final runs; finished ones are not repeated.

    Args:
        seeds: The seeds.
        ended: The scores of the tuning trials that have ended; the same for all seeds.
        make: Makes the runs of a stage. It keeps the scores of tuning trials in the folder of ``ended``.

    Returns:
        Seed -> what was lost, for every seed that could not be tuned, because a process died or met an error.
    """
    lost: dict[int, JobResult] = {}

    def made(stage: str, runs: Iterable[Job]) -> None:
        jobs = list(runs)
        for job, result in zip(jobs, make(stage, jobs), strict=True):
            if result.unexpected:
                lost.setdefault(data_seed(job), result)

    def left(some: Sequence[OneSeed]) -> list[OneSeed]:
        return [seed for seed in some if seed.seed not in lost]

    untuned = [seed for seed in seeds if not seed.read_tuning()]
    number = 0
    while waiting := [(seed, settings) for seed in left(untuned) if (settings := seed.next_settings()) is not None]:
        number += 1
        made(f"tuning, round {number}", (job for seed, settings in waiting for job in seed.new_trials(settings)))
        ended.read()
    made("hold-out runs", (job for seed in left(untuned) for job in seed.new_holdouts()))
    for seed in left(untuned):
        seed.take_holdouts()
    for seed in left(seeds):
        seed.write([])
    finals = [final for seed in left(seeds) for final in seed.new_finals()]
    results = make("final runs", [job for job, _ in finals])
    for (_, row), result in zip(finals, results, strict=True):
        row |= {"status": result.status, "error": result.error}
    for seed in left(seeds):
        seed.write(seed.rows)
    return lost
