"""Select the runs of each arm, and pair the values of two arms by seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nc_tools.comparison.compared_run import SCORED_KINDS, ComparedRun

Cells = Mapping[str, Mapping[tuple[int, int], ComparedRun]]
"""One run for each cell of the design: arm -> (seed, draw) -> run."""


@dataclass(frozen=True)
class Lost:
    """A run that failed, or finished without a finite value of the primary metric, and that no other run replaces.

    Attributes:
        seed: Its seed.
        draw: Its draw.
        reason: Why it has no value, in a few words.
    """

    seed: int
    draw: int
    reason: str


def choose_runs(runs: Iterable[ComparedRun]) -> tuple[Cells, tuple[str, ...]]:
    """Select the newest finished run for each arm, seed and draw (number of the random class vectors).

    Returns:
        arm -> (seed, draw) -> run, and a sentence for each arm with older runs that were left out.
    """
    cells: dict[str, dict[tuple[int, int], ComparedRun]] = {}
    replaced: dict[str, int] = {}
    for run in sorted(runs, key=lambda run: run.created_ms):
        if run.kind not in SCORED_KINDS or not run.finished:
            continue
        of_arm = cells.setdefault(run.arm, {})
        if (run.seed, run.draw) in of_arm:
            replaced[run.arm] = replaced.get(run.arm, 0) + 1
        of_arm[run.seed, run.draw] = run
    notes = tuple(
        f"{arm}: {count} older finished run(s) of the same seed and draw are left out; the newest is used"
        for arm, count in replaced.items()
    )
    return cells, notes


def lost_runs(runs: Iterable[ComparedRun], cells: Cells, metric: str) -> dict[str, tuple[Lost, ...]]:
    """Return the runs of each arm that failed, or finished without a finite value of the metric.

    A run is not lost if the newest finished run of its seed and draw has a value. Runs that were stopped, are running
    or were never started are not lost either, since that says nothing about the method.
    """
    lost: dict[str, dict[tuple[int, int], Lost]] = {}
    for run in runs:
        if run.kind not in SCORED_KINDS or run.status not in ("FINISHED", "FAILED"):
            continue
        chosen = cells.get(run.arm, {}).get((run.seed, run.draw))
        value = math.nan if chosen is None else chosen.final.get(metric, math.nan)
        if not math.isfinite(value):
            finished = run.status == "FINISHED"
            value_text = f"finished, but its {metric} is {run.final.get(metric, 'missing')}"
            reason = value_text if finished else run.why_not
            lost.setdefault(run.arm, {})[run.seed, run.draw] = Lost(run.seed, run.draw, reason)
    return {arm: tuple(of_arm[key] for key in sorted(of_arm)) for arm, of_arm in lost.items()}


def comparable_cells(
    arm: Mapping[tuple[int, int], ComparedRun], reference: Mapping[tuple[int, int], ComparedRun]
) -> tuple[dict[tuple[int, int], ComparedRun], dict[tuple[int, int], ComparedRun]]:
    """Return the runs of two arms without the seeds at which their data differ, since those are no pairs."""
    excluded = other_data_seeds(arm, reference)
    return tuple({key: run for key, run in side.items() if key[0] not in excluded} for side in (arm, reference))  # type: ignore[return-value]


def other_data_seeds(
    arm: Mapping[tuple[int, int], ComparedRun], reference: Mapping[tuple[int, int], ComparedRun]
) -> tuple[int, ...]:
    """Return the seeds at which two arms have runs with different images, by the fingerprints in their records.

    Arms may be trained with other labels on the same images, for example to see what corrected labels gain.
    """
    runs = [(seed, run) for cells in (arm, reference) for (seed, _), run in cells.items()]
    key = "images_fingerprint" if all(run.data.get("images_fingerprint") for _, run in runs) else "fingerprint"
    fingerprints: dict[int, set[str]] = {}
    for seed, run in runs:
        if run.data.get(key):
            fingerprints.setdefault(seed, set()).add(str(run.data[key]))
    common = {seed for seed, _ in arm} & {seed for seed, _ in reference}
    return tuple(seed for seed in sorted(common) if len(fingerprints.get(seed, ())) > 1)


def draws_of(cells: Mapping[tuple[int, int], ComparedRun]) -> tuple[int, ...]:
    """Return the sorted draw numbers of an arm's runs, over all seeds."""
    return tuple(sorted({draw for _, draw in cells}))


def first_draws(cells: Mapping[tuple[int, int], ComparedRun]) -> dict[int, ComparedRun]:
    """Return one run per seed, that with the lowest draw, for comparisons of single models."""
    first: dict[int, ComparedRun] = {}
    for (seed, _), run in sorted(cells.items()):
        first.setdefault(seed, run)
    return first


def name_seeds(seeds: Sequence[int]) -> str:
    """Return seeds as text, such as "0-4" or "0, 2".

    Example:
        >>> name_seeds([0, 1, 2, 5])
        '0-2, 5'
    """
    groups: list[list[int]] = []
    for seed in seeds:
        if groups and seed == groups[-1][-1] + 1:
            groups[-1].append(seed)
        else:
            groups.append([seed])
    return ", ".join(f"{group[0]}-{group[-1]}" if len(group) > 2 else ", ".join(map(str, group)) for group in groups)
