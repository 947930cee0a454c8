"""Select the runs of each arm, and pair the values of two arms by seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nc_tools.comparison.compared_run import SCORED_KINDS, ComparedRun

Cells = Mapping[str, Mapping[tuple[int, int], ComparedRun]]
"""One run for each cell of the design: arm -> (seed, draw) -> run."""


@dataclass(frozen=True)
class Pairs:
    """The values of two arms at their common seeds.

    Attributes:
        seeds: The common seeds, ascending.
        arm: One value per common seed, the mean over the arm's draws.
        reference: The same of the reference.
    """

    seeds: tuple[int, ...]
    arm: tuple[float, ...]
    reference: tuple[float, ...]


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


def seed_means(cells: Mapping[tuple[int, int], ComparedRun], metric: str) -> dict[int, float]:
    """Return one value per seed, the mean over the draws; values that are not finite are left out."""
    values: dict[int, list[float]] = {}
    for (seed, _), run in cells.items():
        value = run.final.get(metric, math.nan)
        if math.isfinite(value):
            values.setdefault(seed, []).append(value)
    return {seed: math.fsum(values[seed]) / len(values[seed]) for seed in sorted(values)}


def pair_by_seed(arm: Mapping[int, float], reference: Mapping[int, float]) -> Pairs:
    """Pair the values of two arms at their common seeds.

    Example:
        >>> pair_by_seed({0: 0.7, 1: 0.8}, {1: 0.6, 2: 0.5})
        Pairs(seeds=(1,), arm=(0.8,), reference=(0.6,))
    """
    common = tuple(sorted(arm.keys() & reference.keys()))
    return Pairs(common, tuple(arm[seed] for seed in common), tuple(reference[seed] for seed in common))


def draws_of(cells: Mapping[tuple[int, int], ComparedRun]) -> tuple[int, ...]:
    """Return the sorted draw numbers of an arm's runs, over all seeds."""
    return tuple(sorted({draw for _, draw in cells}))


def complete_table(
    cells: Mapping[tuple[int, int], ComparedRun], metric: str
) -> tuple[tuple[int, ...], list[list[float]]]:
    """Return the seeds at which an arm has all its draws, and the values as an array of shape (seeds, draws)."""
    draws = draws_of(cells)
    seeds, table = [], []
    for seed in sorted({seed for seed, _ in cells}):
        row = [cells[seed, draw].final.get(metric, math.nan) for draw in draws if (seed, draw) in cells]
        if len(row) == len(draws) and all(math.isfinite(value) for value in row):
            seeds.append(seed)
            table.append(row)
    return tuple(seeds), table


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
