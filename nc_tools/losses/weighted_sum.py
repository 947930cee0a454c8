"""Weighted sums of losses."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, cast

import torch
from torch import Tensor, nn

from nc_tools.losses._rows import LabeledRows, Reduction
from nc_tools.losses._weightable import WeightableLoss
from nc_tools.losses.loss_term import LossTerm
from nc_tools.records import Batch, Outputs
from nc_tools.schedules import ConstantSchedule, Schedule, check_progress
from nc_tools.specs import Spec


@dataclass(frozen=True)
class WeightedTerm:
    """A loss with its weight in a sum. Made by :func:`term`.

    Attributes:
        weight: A function of training's progress.
        loss: The loss, or its spec.
        name: The name of its curve.
    """

    weight: Schedule
    loss: LossTerm | Spec[LossTerm]
    name: str


def term(weight: float | Schedule, loss: LossTerm | Spec[LossTerm], name: str | None = None) -> WeightedTerm:
    """Return a loss with its weight, for a :class:`WeightedSumLoss`.

    Args:
        weight: A number, or a function of training's progress in [0, 1]. In a spec use one of ``nc_tools.schedules`` or
            a dataclass of your own, which run records can store; in your own loop a plain function is enough.
        loss: A loss, or ``spec(...)`` of one.
        name: The name of its curve, ``train/loss_<name>``. None: the name of its class without ``Loss``.

    Raises:
        ValueError: If the weight is negative or not finite, at the beginning or at the end of training.
        TypeError: If the weight is not a number or a function, or the loss is not a loss or a spec of one.

    Example:
        >>> from nc_tools.losses import ClassCompactnessLoss
        >>> from nc_tools.schedules import LinearSchedule
        >>> from nc_tools.specs import spec
        >>> term(LinearSchedule(0.0, 0.1), spec(ClassCompactnessLoss)).name
        'ClassCompactness'
    """
    if isinstance(loss, Spec):
        cls: type = loss.cls
    else:
        cls = loss if isinstance(loss, type) else type(loss)
    if isinstance(loss, type) or not issubclass(cls, LossTerm):
        raise TypeError(f"a term takes a loss or its spec, got {loss!r}. Write term(0.1, spec({cls.__name__})).")
    name = cls.__name__.removesuffix("Loss") if name is None else name
    if isinstance(weight, int | float):
        weight = ConstantSchedule(float(weight))
    if not callable(weight):
        raise TypeError(f"the weight of {name} must be a number or a function of progress, got {weight!r}")
    for progress in (0.0, 1.0):
        _weight_at(weight, progress, name)
    return WeightedTerm(weight, loss, name)


def _weight_at(weight: Schedule, progress: float, name: str) -> float:
    value = weight(progress)
    if not isinstance(value, int | float):
        raise TypeError(f"the weight of {name} must be a number, got {value!r} at progress {progress}")
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(
            f"the weight of {name} must be finite and not negative, got {value} at progress {progress}. For the "
            f"opposite sign, write a loss class of your own."
        )
    return value


class WeightedSumLoss(WeightableLoss):
    """A sum of losses with weights that may change during training: sum_t weight_t(progress) * loss_t.

    In a recipe, write
    ``spec(WeightedSumLoss, terms=(term(1.0, spec(CrossEntropyLoss)), term(schedule, spec(ClassSpreadLoss))))``. A run
    fills class counts and sizes into the inner specs as into any other. Each term, multiplied by its weight, is logged
    as a curve, such as ``train/loss_ClassSpread``. Terms of weight 0 are computed all the same, so that their state
    changes and nothing is compiled again when the weight changes. Losses of one view read the first of two views. If a
    weight is a schedule, call ``loss.set_progress(step / steps)`` before each step in a loop of your own; otherwise the
    sum raises an error in training.

    Takes ``(logits, labels)`` if all terms do, and always ``(outputs, batch)``, from ``nc_tools.watch(model)``.

    Args:
        terms: The terms, made by :func:`term`, with losses that are already built.

    Raises:
        ValueError: If there is no term, or two have the same name.
        TypeError: If something else than terms is passed, or a loss is still a spec.

    Example:
        >>> from nc_tools.losses import CrossEntropyLoss, MeanSquaredLoss
        >>> total = WeightedSumLoss([term(1.0, CrossEntropyLoss()), term(lambda p: 0.1 * p, MeanSquaredLoss())])
        >>> total.set_progress(0.5)
        >>> total.weights.tolist()
        [1.0, 0.05000000074505806]
        >>> total(torch.zeros(1, 2), torch.tensor([0]))
        tensor(0.7181)
    """

    weights: Tensor
    losses: Sequence[LossTerm]  # a ModuleList

    def __init__(self, terms: Sequence[WeightedTerm]) -> None:
        super().__init__()
        _check_terms(terms)
        self.names = tuple(part.name for part in terms)
        self.losses = cast(Any, nn.ModuleList(part.loss for part in terms if isinstance(part.loss, LossTerm)))
        self.views = max(loss.views for loss in self.losses)
        self.needs_outliers = any(loss.needs_outliers for loss in self.losses)
        self._schedules = tuple(part.weight for part in terms)
        self.needs_progress = any(loss.needs_progress for loss in self.losses) or any(
            not isinstance(schedule, ConstantSchedule) for schedule in self._schedules
        )
        self._current = [_weight_at(part.weight, 0.0, part.name) for part in terms]
        # Not in checkpoints: the weights follow from progress, which the loop sets before each step.
        self.register_buffer("weights", torch.tensor(self._current), persistent=False)

    def initial_buffers(self) -> dict[str, Tensor]:
        """Return the weights at the progress that was set last, or at the start."""
        return {"weights": torch.tensor(self._current, device="cpu")}

    def set_progress(self, progress: float) -> None:
        """Set the weights of the losses for this share of training, in place, so that a compiled step reads them.

        Raises:
            ValueError: If the progress lies outside [0, 1], or a weight is negative or not finite there.
        """
        check_progress(progress)
        self._knows_progress = True
        for place, (schedule, name) in enumerate(zip(self._schedules, self.names, strict=True)):
            value = _weight_at(schedule, progress, name)
            if value != self._current[place]:
                self.weights[place].fill_(value)  # to copy a tensor from the CPU would wait for the device
                self._current[place] = value
        for loss in self.losses:
            loss.set_progress(progress)

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted terms by name; those of a sum inside this one as ``name_inner``."""
        if self.needs_progress:
            self._check_progress()
        weighted: dict[str, Tensor] = {}
        for name, loss, weight in zip(self.names, self.losses, self.weights.unbind(), strict=True):
            inner = loss.terms(outputs, batch)
            for inner_name, value in inner.items():
                weighted[name if len(inner) == 1 else f"{name}_{inner_name}"] = weight * value
        return weighted

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the weighted sum of the losses."""
        return reduce(add, self.terms(outputs, batch).values())

    def from_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the weighted sum of the losses, if all of them need only logits."""
        return self.of_rows(LabeledRows(logits, labels, None, labels.shape))

    def of_rows(self, rows: LabeledRows) -> Tensor:
        """Return the weighted sum of the losses of logits and labels that are checked."""
        pairs = zip(self.losses, self.weights.unbind(), strict=True)
        return reduce(add, [weight * loss.of_rows(rows) for loss, weight in pairs])

    def weighted(
        self,
        outputs: Any,
        batch: Any,
        ignore_index: int,
        sample_weight: Tensor | None,
        class_weight: Tensor | None,
        reduction: Reduction,
    ) -> Tensor:
        """Return the weighted sum of the losses with these weights and reduction, if all of them take them."""
        values = []
        for loss, weight in zip(self.losses, self.weights.unbind(), strict=True):
            if not isinstance(loss, WeightableLoss):
                raise TypeError(
                    f"all terms of a sum with sample_weight, class_weight or a reduction need a value for each sample, "
                    f"got {type(loss).__name__}. Call the sum without them, or leave out this term."
                )
            values.append(weight * loss.weighted(outputs, batch, ignore_index, sample_weight, class_weight, reduction))
        return reduce(add, values)

    def extra_repr(self) -> str:
        """Return names and weights of the losses for ``print(loss)``."""
        return ", ".join(f"{name}: {weight}" for name, weight in zip(self.names, self._schedules, strict=True))


def _check_terms(terms: Sequence[WeightedTerm]) -> None:
    example = "Write terms=(term(1.0, CrossEntropyLoss()),)."
    if isinstance(terms, LossTerm | WeightedTerm):
        raise TypeError(f"WeightedSumLoss takes a sequence of terms, got {terms!r}. {example}")
    if not terms:
        raise ValueError(f"WeightedSumLoss needs at least one term, got none. {example}")
    if wrong := [part for part in terms if not isinstance(part, WeightedTerm)]:
        raise TypeError(f"WeightedSumLoss takes terms, got {wrong[0]!r}. {example}")
    if specs := [part.loss for part in terms if not isinstance(part.loss, LossTerm)]:
        raise TypeError(
            f"WeightedSumLoss takes losses such as CrossEntropyLoss(), got {specs[0]!r}. Call build({{}}) on each "
            f"spec, or describe the whole sum as spec(WeightedSumLoss, terms=...)."
        )
    if repeated := [name for name, count in Counter(part.name for part in terms).items() if count > 1]:
        raise ValueError(f"terms need different names, got {repeated[0]!r} twice. Write term(weight, loss, name=...).")
