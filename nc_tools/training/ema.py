"""Exponential moving average of the weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from nc_tools.heads import Head
from nc_tools.models.classifier import Classifier


class WeightEMA:
    """Exponential moving average of a model's weights and normalization statistics.

    Buffers of heads (frames, class means, counts) are copied instead of averaged: the average of two simplex ETFs is no
    simplex ETF, and frame, means and the bias computed from them belong together.

    The decay at step t is min(decay, (1 + t) / (10 + t)), so that the random initial weights are soon forgotten.
    ``torch.optim.swa_utils.AveragedModel`` is not used because it reads a counter from the device at every step.

    Args:
        model: The model that is trained.
        decay: d in average <- d average + (1 - d) weights, in (0, 1).

    Raises:
        ValueError: If the decay is outside (0, 1).

    Example:
        >>> from nc_tools.heads import LinearHead
        >>> model = Classifier(torch.nn.Flatten(), LinearHead(4, 2))
        >>> WeightEMA(model, 0.9).update(model, step=0)
    """

    def __init__(self, model: Classifier, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"decay must be in (0, 1), got {decay}. Usual values are 0.999 to 0.9999")
        self.model = copy.deepcopy(model).requires_grad_(requires_grad=False)
        self.decay = decay
        copied = {id(buffer) for buffer in _state_of_heads(self.model)}
        self._averaged = [a.is_floating_point() and id(a) not in copied for a in _tensors(self.model)]

    @torch.no_grad()
    def update(self, model: Classifier, step: int | Tensor) -> None:
        """Add the model's weights after a training step, counted from 0, to the average.

        Args:
            model: The model.
            step: The step's number. Give a tensor (), float32, if the update is recorded: each replay then reads the
                number from it, with the same result up to rounding.
        """
        pairs = list(zip(_tensors(self.model), _tensors(model), self._averaged, strict=True))
        average = [a for a, _, averaged in pairs if averaged]
        weights = [b for _, b, averaged in pairs if averaged]
        if isinstance(step, Tensor):
            moves = torch._foreach_sub(weights, average)
            torch._foreach_mul_(moves, (9 / (10 + step)).clamp(min=1 - self.decay))
            torch._foreach_add_(average, moves)
        else:
            torch._foreach_lerp_(average, weights, 1 - min(self.decay, (1 + step) / (10 + step)))
        for a, b, averaged in pairs:
            if not averaged:
                a.copy_(b)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _state_of_heads(model: nn.Module) -> list[Tensor]:
    """Return the buffers of heads and of their parts, without the statistics of normalization layers."""
    parts = [part for head in model.modules() if isinstance(head, Head) for part in head.modules()]
    return [
        b for part in parts if not isinstance(part, nn.modules.batchnorm._NormBase) for b in part.buffers(recurse=False)
    ]
