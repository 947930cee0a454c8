"""Tuning: every arm tries the same number of settings, scored on training images that are held out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from nc_tools.experiment.overrides import put
from nc_tools.experiment.run_config import Protocol, RunConfig

Score = float | None
RunTrials = Callable[[Sequence[tuple[str, RunConfig]]], list[Score]]


@dataclass(frozen=True)
class Trial:
    """A tuning trial: one setting of one arm (a compared method), with its score.

    Attributes:
        arm: The arm.
        lr: Learning rate; None for a head in closed form.
        parameter: Path of the arm's tuned parameter.
        value: Its value.
        score: Mean over seeds of the score on the hold-out: balanced accuracy, or, on fixed features, the metric that
            decides. None if training diverged or a run was lost.
    """

    arm: str
    lr: float | None
    parameter: str
    value: Any
    score: Score

    def to_json(self) -> dict[str, Any]:
        """Return the trial as JSON-serializable values."""
        status = "FINISHED" if self.score is not None else "FAILED"
        return {**dataclasses.asdict(self), "status": status}


@dataclass
class TuningResult:
    """The settings that tuning chose for each arm, and all trials.

    Attributes:
        configs: Arms with the rate and parameter value that won; an arm without any score is left out.
        trials: All trials.
        grid: The rates that all arms tried.
        notes: What a reader of the report must know, such as a best rate at the edge of the grid.
    """

    configs: dict[str, RunConfig] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)
    grid: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the contents of tuning.json as JSON-serializable values."""
        chosen = {
            arm: ({} if config.is_closed_form else {"lr": config.optim.lr}) | {config.tuned.path: tuned_value(config)}
            for arm, config in self.configs.items()
        }
        trials = [trial.to_json() for trial in self.trials]
        return {"trials": trials, "chosen": chosen, "notes": self.notes, "grid": self.grid}


def tuned_value(config: RunConfig) -> Any:
    """Return the configured value of an arm's tuned parameter; None if it is left at its default."""
    section, _, name = config.tuned.path.partition(".")
    if section in ("head", "loss"):
        return getattr(config, section).arguments.get(name)
    value: Any = config
    for part in config.tuned.path.split("."):
        value = getattr(value, part)
    return value


def tune(arms: Mapping[str, RunConfig], protocol: Protocol, run_trials: RunTrials) -> TuningResult:
    """Choose each arm's learning rate, then the value of its tuned parameter at that rate.

    Every arm tries the same rates. If an arm's best rate is at the edge of the grid, the grid grows by half a decade on
    that side *for all arms*, at most ``max_extensions`` times; a best rate that is still at the edge is noted. Then
    every arm tries the same number of values of its tuned parameter. Ties go to the rate nearest to the middle of the
    grid, and to the configured value.

    A head in closed form has no learning rate. It tries as many values of its tuned parameter as the other arms try
    settings in all (rates, extensions of the grid, values of the tuned parameter), or fewer if it lists fewer; the
    first of its values come first. One without a parameter is computed once.

    Args:
        arms: Arms by name.
        protocol: Rates, and how often the grid may grow.
        run_trials: Runs (arm, configuration) pairs and returns a score for each, or None.

    Raises:
        ValueError: If arms have different numbers of values to try, so that budgets would differ.
    """
    rounds, scores = tuning_rounds(arms, protocol), None
    while True:
        try:
            scores = run_trials(next(rounds) if scores is None else rounds.send(scores))
        except StopIteration as end:
            result: TuningResult = end.value
            return result


def tuning_rounds(
    arms: Mapping[str, RunConfig], protocol: Protocol
) -> Generator[list[tuple[str, RunConfig]], Sequence[Score], TuningResult]:
    """Yield the settings to try, round by round, and receive their scores; return what :func:`tune` does.

    So several tunings, such as those of several seeds, can run side by side.

    Args:
        arms: As for :func:`tune`.
        protocol: As there.

    Raises:
        ValueError: As there.
    """
    order = list(arms)
    computed = {arm: config for arm, config in arms.items() if config.is_closed_form}
    arms = {arm: config for arm, config in arms.items() if not config.is_closed_form}
    budgets = {arm: len(config.tuned.values) for arm, config in arms.items()}
    if len(set(budgets.values())) > 1:
        counts = ", ".join(f"{arm} {number}" for arm, number in budgets.items())
        raise ValueError(
            f"all arms must have the same number of values in tuned=TunedParameter(values=...), so that each gets the "
            f"same number of trials, got {counts}"
        )
    result = TuningResult()
    if arms:
        yield from _try_rates(arms, protocol.rates, result)
    for _ in range(protocol.max_extensions):
        sides = {side for arm in arms if (side := _edge(result, arm)) is not None}
        if not sides:
            break
        yield from _try_rates(arms, [_beyond(result.grid, side) for side in sorted(sides)], result)
    for arm in arms:
        if (side := _edge(result, arm)) is not None:
            rate = _best_rate(result, arm)
            result.notes.append(f"{arm}: its best learning rate {rate} is still the {side} of the grid")
    at_best = {a: put(c, "optim.lr", lr) for a, c in arms.items() if (lr := _best_rate(result, a)) is not None}
    result.notes += [f"{arm}: no tuning trial gave a score" for arm in arms if arm not in at_best]
    variants = [(a, put(c, c.tuned.path, v)) for a, c in at_best.items() for v in c.tuned.values]
    number = len(result.grid or protocol.rates) + max(budgets.values(), default=0)
    variants += [(a, variant) for a, c in computed.items() for variant in _values_of(c)[:number]]
    if variants:
        _add_trials(result, variants, (yield variants))
    _note_closed_forms(computed, result)
    for arm, config in (at_best | computed).items():
        # The first of them, which wins ties, has the configured value: it was a trial of the rates.
        lr = None if config.is_closed_form else config.optim.lr
        scored = [t for t in result.trials if t.arm == arm and t.lr == lr and t.score is not None]
        if not scored:
            continue
        best = max(scored, key=lambda t: t.score or 0.0)
        result.configs[arm] = config if best is scored[0] else put(config, config.tuned.path, best.value)
    result.configs = {arm: result.configs[arm] for arm in order if arm in result.configs}
    return result


def _values_of(config: RunConfig) -> list[RunConfig]:
    """Return an arm with every value of its tuned parameter, the configured one first."""
    return [config, *(put(config, config.tuned.path, value) for value in config.tuned.values)]


def _note_closed_forms(arms: Mapping[str, RunConfig], result: TuningResult) -> None:
    """Note the heads in closed form that have no score, or whose best value is the smallest or largest tried."""
    for arm, config in arms.items():
        own = [t for t in result.trials if t.arm == arm and t.score is not None]
        tried = sorted(t.value for t in own if isinstance(t.value, int | float))
        if not own:
            result.notes.append(f"{arm}: no tuning trial gave a score")
        elif len(tried) > 2 and (best := max(own, key=lambda t: t.score or 0.0).value) in (tried[0], tried[-1]):
            side = "smallest" if best == tried[0] else "largest"
            result.notes.append(f"{arm}: its best {config.tuned.path} {best} is the {side} that was tried")


def _try_rates(
    arms: Mapping[str, RunConfig], rates: Sequence[float], result: TuningResult
) -> Generator[list[tuple[str, RunConfig]], Sequence[Score], None]:
    settings = [(arm, put(config, "optim.lr", lr)) for arm, config in arms.items() for lr in rates]
    _add_trials(result, settings, (yield settings))
    result.grid = sorted({*result.grid, *rates})


def _add_trials(result: TuningResult, settings: Sequence[tuple[str, RunConfig]], scores: Sequence[Score]) -> None:
    for (arm, config), score in zip(settings, scores, strict=True):
        lr = None if config.is_closed_form else config.optim.lr
        result.trials.append(Trial(arm, lr, config.tuned.path, tuned_value(config), score))


def _best_rate(result: TuningResult, arm: str) -> float | None:
    scored = [(t.score, t.lr) for t in result.trials if t.arm == arm and t.score is not None and t.lr is not None]
    if not scored:
        return None
    middle = fmean(math.log(lr) for lr in result.grid)
    return max(scored, key=lambda pair: (pair[0], -abs(math.log(pair[1]) - middle)))[1]


def _edge(result: TuningResult, arm: str) -> str | None:
    best = _best_rate(result, arm)
    if best is None or len(result.grid) < 2:
        return None
    return {result.grid[0]: "lower edge", result.grid[-1]: "upper edge"}.get(best)


def _beyond(grid: Sequence[float], side: str) -> float:
    halves = 2 * math.log10(grid[0]) - 1 if side == "lower edge" else 2 * math.log10(grid[-1]) + 1
    if abs(halves - round(halves)) < 0.01:  # half decades are rounded to three digits: 10 comes after 3.16, not 9.99
        halves = round(halves)
    return float(f"{10 ** (halves / 2):.3g}")


def mean_over_seeds(scores: Sequence[Score], seeds: int) -> list[Score]:
    """Return the mean of each group of ``seeds`` consecutive scores; None for a group with a missing score.

    Example:
        >>> mean_over_seeds([0.25, 0.75, 0.9, None], 2)
        [0.5, None]
    """
    groups = [scores[i : i + seeds] for i in range(0, len(scores), seeds)]
    return [None if None in group else fmean(s for s in group if s is not None) for group in groups]
