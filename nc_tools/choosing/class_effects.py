"""The classes for which one arm is better or worse than another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nc_tools.comparison import Comparison
from nc_tools.comparison.compared_run import ComparedRun, RecallByClass
from nc_tools.comparison.statistics import holm, paired_difference


@dataclass(frozen=True)
class ClassEffect:
    """The difference in recall between two arms for one class.

    Attributes:
        name: The class.
        train_count: Its training samples.
        difference: Mean over seeds of the arm's recall minus the reference's, on the test samples of the class.
        sure: Whether it differs from zero at level 0.05 over seeds, with p values adjusted over all classes (Holm).
    """

    name: str
    train_count: int
    difference: float
    sure: bool


def class_effects(comparison: Comparison, arm: str, reference: str) -> list[ClassEffect]:
    """Return the effect of an arm on each class that has test samples, the largest gain first.

    ``sure`` holds for other seeds, not for other test samples. The list is empty if the arms have fewer than two
    seeds in common.
    """
    mine, theirs = (_first_draws(comparison.cells.get(name, {})) for name in (arm, reference))
    seeds = sorted(mine.keys() & theirs.keys())
    if len(seeds) < 2:
        return []
    recalls = [[_recalls(tables[seed]) for seed in seeds] for tables in (mine, theirs)]
    names = [name for name in recalls[0][0] if all(name in recall for side in recalls for recall in side)]
    tests = [paired_difference(*([recall[name] for recall in side] for side in recalls)) for name in names]
    adjusted = iter(holm([test.p for test in tests if test.p is not None]))
    counts = dict(zip(mine[seeds[0]].classes, mine[seeds[0]].train_counts, strict=True))
    effects = []
    for name, test in zip(names, tests, strict=True):
        # Without any spread over seeds there is no p: a difference that is the same at every seed is sure.
        p = next(adjusted) if test.p is not None else (1.0 if test.mean == 0 else 0.0)
        effects.append(ClassEffect(name, counts[name], test.mean, p < 0.05))
    return sorted(effects, key=lambda effect: -effect.difference)


def _first_draws(cells: Mapping[tuple[int, int], ComparedRun]) -> dict[int, RecallByClass]:
    """Return the recall by class of the first draw of each seed that has one."""
    return {seed: run.per_class for (seed, draw), run in cells.items() if draw == 0 and run.per_class is not None}


def _recalls(table: RecallByClass) -> dict[str, float]:
    return {name: r for name, r, n in zip(table.classes, table.recall, table.test_counts, strict=True) if n}
