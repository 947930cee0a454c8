"""Weighted sums of losses."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import torch
from torch import Tensor, nn

from nc_tools.losses.loss_term import LossTerm
from nc_tools.records import Batch, Outputs
from nc_tools.schedules import ConstantSchedule, Schedule, check_progress
from nc_tools.spec import Spec


@dataclass(frozen=True)
class WeightedTerm:
    """A loss in a sum, or the spec of one. Made by :func:`term`.

    Attributes:
        weight: As a function of training's progress.
        loss: The loss, or its spec.
        name: What its curve is called.
    """

    weight: Schedule
    loss: LossTerm | Spec[LossTerm]
    name: str


def term(weight: float | Schedule, loss: LossTerm | Spec[LossTerm], name: str | None = None) -> WeightedTerm:
    """Weigh a loss in a :class:`WeightedSumLoss`.

    Args:
        weight: A number, or a function of training's progress in [0, 1]. In a spec one of those in
            ``nc_tools.schedules`` or a dataclass of your own, which a record can hold; a plain function serves in
            your own loop.
        loss: A loss, or ``spec(...)`` of one.
        name: What its curve is called, as ``train/loss_<name>``. None: the name of its class.

    Raises:
        ValueError: If the weight is negative or not finite, at the beginning or at the end of training.
        TypeError: If it is neither a number nor a function, or the loss is neither a loss nor a spec of one.

    Example:
        >>> from nc_tools.losses import ClassCompactnessLoss, LinearSchedule
        >>> from nc_tools.spec import spec
        >>> term(LinearSchedule(0.0, 0.1), spec(ClassCompactnessLoss)).name
        'ClassCompactness'
    """
    if isinstance(loss, Spec):
        kind: type = loss.cls
    else:
        kind = loss if isinstance(loss, type) else type(loss)
    if isinstance(loss, type) or not issubclass(kind, LossTerm):
        raise TypeError(f"a term holds a loss or its spec, got {loss!r}: write term(0.1, spec({kind.__name__}))")
    called = kind.__name__.removesuffix("Loss") if name is None else name
    if isinstance(weight, int | float):
        weight = ConstantSchedule(float(weight))
    if not callable(weight):
        raise TypeError(f"the weight of {called} must be a number or a function of progress, got {weight!r}")
    for progress in (0.0, 1.0):
        _weigh(weight, progress, called)
    return WeightedTerm(weight, loss, called)


def _weigh(weight: Schedule, progress: float, name: str) -> float:
    value = weight(progress)
    if not isinstance(value, int | float):
        raise TypeError(f"the weight of {name} must be a number, got {value!r} at progress {progress}")
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(
            f"the weight of {name} must be finite and not negative throughout, got {value} at progress {progress}: a "
            f"term that works against another one is a loss of its own"
        )
    return value


class WeightedSumLoss(LossTerm):
    """A sum of losses with weights that may change along training: sum_t weight_t(progress) loss_t.

    In a recipe, write
    ``spec(WeightedSumLoss, terms=(term(1.0, spec(CrossEntropyLoss)), term(schedule, spec(ClassSpreadLoss))))``;
    class counts and sizes are filled into the inner specs as into any other. Each term, with its weight in it, is a
    curve: ``train/loss_ClassSpread``. Terms at weight 0 are computed all the same, so that their state moves and
    nothing is compiled anew when the weight changes. Losses of one view look at the first of two.

    Args:
        terms: What is summed, made by :func:`term`; the inner losses already built.

    Raises:
        ValueError: If there is no term, or two go by the same name.
        TypeError: If something else than terms is given, or an inner loss is still a spec.

    Example:
        >>> from nc_tools.losses import CrossEntropyLoss, FeatureDecayLoss
        >>> total = WeightedSumLoss([term(1.0, CrossEntropyLoss()), term(lambda p: 0.1 * p, FeatureDecayLoss())])
        >>> total.set_progress(0.5)
        >>> total.weights.tolist()
        [1.0, 0.05000000074505806]
    """

    weights: Tensor

    def __init__(self, terms: Sequence[WeightedTerm]) -> None:
        super().__init__()
        if isinstance(terms, LossTerm | WeightedTerm):
            raise TypeError(f"WeightedSum takes a sequence of terms, got {terms!r}: write terms=(term(1.0, ...),)")
        if not terms:
            raise ValueError(
                "WeightedSum needs at least one term, got none: write terms=(term(1.0, CrossEntropyLoss()),)"
            )
        if wrong := [part for part in terms if not isinstance(part, WeightedTerm)]:
            raise TypeError(f"WeightedSum takes terms, got {wrong[0]!r}: write terms=(term(1.0, CrossEntropyLoss()),)")
        if loose := [part.loss for part in terms if not isinstance(part.loss, LossTerm)]:
            raise TypeError(
                f"WeightedSum takes losses that are built, got {loose[0]!r}: write spec(WeightedSum, terms=...) and "
                f"build that, or build the parts first"
            )
        self.names = tuple(part.name for part in terms)
        if twice := [name for name, count in Counter(self.names).items() if count > 1]:
            raise ValueError(f"terms need different names, but several are {twice[0]!r}: write term(..., name=...)")
        self.losses = nn.ModuleList(part.loss for part in terms if isinstance(part.loss, LossTerm))
        self.views = max(part.views for part in self._parts())
        self.needs_outliers = any(part.needs_outliers for part in self._parts())
        self._schedules = tuple(part.weight for part in terms)
        self._now = [_weigh(part.weight, 0.0, part.name) for part in terms]
        # Not in checkpoints: a function of progress, which the loop tells before each step.
        self.register_buffer("weights", torch.tensor(self._now), persistent=False)

    def _parts(self) -> list[LossTerm]:
        return [part for part in self.losses if isinstance(part, LossTerm)]

    def set_progress(self, progress: float) -> None:
        """Set the weights for this share of training, in place, so that a compiled step sees them.

        Raises:
            ValueError: If the progress lies outside [0, 1], or a weight is negative or not finite there.
        """
        check_progress(progress)
        for place, (schedule, name) in enumerate(zip(self._schedules, self.names, strict=True)):
            value = _weigh(schedule, progress, name)
            if value != self._now[place]:
                self.weights[place].fill_(value)  # a kernel's argument: copying a tensor would wait for the device
                self._now[place] = value
        for part in self._parts():
            part.set_progress(progress)

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted terms by name; those of a sum inside this one as ``name_inner``."""
        found: dict[str, Tensor] = {}
        for place, (name, part) in enumerate(zip(self.names, self._parts(), strict=True)):
            inner = part.terms(outputs, batch)
            for called, value in inner.items():
                found[name if len(inner) == 1 else f"{name}_{called}"] = self.weights[place] * value
        return found

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the weighted sum."""
        return reduce(add, self.terms(outputs, batch).values())

    def extra_repr(self) -> str:
        """Show names and schedules in the loss's printout."""
        return ", ".join(f"{name}: {weight}" for name, weight in zip(self.names, self._schedules, strict=True))
