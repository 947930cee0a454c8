"""Choosing rates and knobs: the same number of trials for every arm, scored on a hold-out of the training subset."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from nc_tools.experiment.overrides import put
from nc_tools.experiment.run_config import Protocol, RunConfig

Score = float | None
RunTrials = Callable[[Sequence[tuple[str, RunConfig]]], list[Score]]


@dataclass(frozen=True)
class Trial:
    """One setting of one arm, scored.

    Attributes:
        arm: The arm.
        lr: Learning rate.
        knob: Path of the arm's knob.
        value: Its value.
        score: Mean balanced accuracy on the hold-outs; None where training diverged or its run was lost.
    """

    arm: str
    lr: float
    knob: str
    value: Any
    score: Score

    def to_json(self) -> dict[str, Any]:
        """Return the trial as plain values."""
        status = "FINISHED" if self.score is not None else "FAILED"
        return {**dataclasses.asdict(self), "status": status}


@dataclass
class Tuned:
    """What tuning gave.

    Attributes:
        configs: Arms with the rate and knob that won; an arm without a trial that gave a score is not among them.
        trials: Every trial.
        grid: The rates that all arms tried.
        notes: What a reader must know, such as a winner at the grid's edge.
    """

    configs: dict[str, RunConfig] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)
    grid: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return it all as plain values, as tuning.json holds it."""
        chosen = {
            arm: {"lr": config.optim.lr, config.tuned.path: knob_value(config)} for arm, config in self.configs.items()
        }
        trials = [trial.to_json() for trial in self.trials]
        return {"trials": trials, "chosen": chosen, "notes": self.notes, "grid": self.grid}


def knob_value(config: RunConfig) -> Any:
    """Return the value that an arm's knob has in its configuration; None where the arm leaves it at its default."""
    section, _, name = config.tuned.path.partition(".")
    if section in ("head", "loss"):
        return getattr(config, section).arguments.get(name)
    value: Any = config
    for part in config.tuned.path.split("."):
        value = getattr(value, part)
    return value


def tune(arms: Mapping[str, RunConfig], protocol: Protocol, run_trials: RunTrials) -> Tuned:
    """Choose each arm's learning rate, then its knob at that rate.

    Every arm tries the same rates. When an arm's best lies at the edge of the grid, the grid grows by half a decade on
    that side *for all arms*, at most ``max_extensions`` times; what still lies at the edge then is noted. Then every
    arm tries as many values of its one knob as every other. Ties go to the rate nearest to the middle of the grid, and
    to the knob's configured value.

    Args:
        arms: Arms by name.
        protocol: Rates and how far they may grow.
        run_trials: Runs (arm, configuration) pairs and returns a score for each, None where there is none.

    Raises:
        ValueError: If arms differ in the number of their knob's values, which would make their budgets unequal.
    """
    budgets = {len(config.tuned.values) for config in arms.values()}
    if len(budgets) > 1:
        told = ", ".join(f"{arm} {len(config.tuned.values)}" for arm, config in arms.items())
        raise ValueError(f"every arm must have the same number of knob values, so that budgets are equal, got {told}")
    tuned = Tuned()
    _rates(arms, protocol.rates, tuned, run_trials)
    for _ in range(protocol.max_extensions):
        sides = {side for arm in arms if (side := _edge(tuned, arm)) is not None}
        if not sides:
            break
        _rates(arms, [_beyond(tuned.grid, side) for side in sorted(sides)], tuned, run_trials)
    for arm in arms:
        if (side := _edge(tuned, arm)) is not None:
            tuned.notes.append(f"{arm}: its best rate {_best_rate(tuned, arm)} is still the {side} of the grid")
    at_best = {a: put(c, "optim.lr", lr) for a, c in arms.items() if (lr := _best_rate(tuned, a)) is not None}
    tuned.notes += [f"{arm}: no trial gave a score" for arm in arms if arm not in at_best]
    settings = [(a, put(c, c.tuned.path, v)) for a, c in at_best.items() for v in c.tuned.values]
    _note(tuned, settings, run_trials(settings))
    for arm, config in at_best.items():
        # The first among equals is the trial of the rate round, with the configured value.
        own = [t for t in tuned.trials if t.arm == arm and t.lr == config.optim.lr and t.score is not None]
        best = max(own, key=lambda t: t.score or 0.0)
        tuned.configs[arm] = config if best is own[0] else put(config, config.tuned.path, best.value)
    return tuned


def _rates(arms: Mapping[str, RunConfig], rates: Sequence[float], tuned: Tuned, run_trials: RunTrials) -> None:
    settings = [(arm, put(config, "optim.lr", lr)) for arm, config in arms.items() for lr in rates]
    _note(tuned, settings, run_trials(settings))
    tuned.grid = sorted({*tuned.grid, *rates})


def _note(tuned: Tuned, settings: Sequence[tuple[str, RunConfig]], scores: Sequence[Score]) -> None:
    for (arm, config), score in zip(settings, scores, strict=True):
        tuned.trials.append(Trial(arm, config.optim.lr, config.tuned.path, knob_value(config), score))


def _best_rate(tuned: Tuned, arm: str) -> float | None:
    scored = [(t.score, t.lr) for t in tuned.trials if t.arm == arm and t.score is not None]
    if not scored:
        return None
    middle = fmean(math.log(lr) for lr in tuned.grid)
    return max(scored, key=lambda pair: (pair[0], -abs(math.log(pair[1]) - middle)))[1]


def _edge(tuned: Tuned, arm: str) -> str | None:
    best = _best_rate(tuned, arm)
    if best is None or len(tuned.grid) < 2:
        return None
    return {tuned.grid[0]: "lower edge", tuned.grid[-1]: "upper edge"}.get(best)


def _beyond(grid: Sequence[float], side: str) -> float:
    rate = grid[0] / math.sqrt(10) if side == "lower edge" else grid[-1] * math.sqrt(10)
    return float(f"{rate:.3g}")


def mean_over_seeds(scores: Sequence[Score], seeds: int) -> list[Score]:
    """Average consecutive groups of ``seeds`` scores; a group with a diverged run has none.

    Example:
        >>> mean_over_seeds([0.25, 0.75, 0.9, None], 2)
        [0.5, None]
    """
    groups = [scores[i : i + seeds] for i in range(0, len(scores), seeds)]
    return [None if None in group else fmean(s for s in group if s is not None) for group in groups]
