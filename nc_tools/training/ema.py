"""Exponential moving average of the weights."""

from __future__ import annotations

import copy

import torch

from nc_tools.models.classifier import Classifier


class WeightEMA:
    """An average of a model's weights and normalisation statistics along training.

    The decay starts small, min(decay, (1 + t) / (10 + t)), so that the random start is soon forgotten. Kept in our own
    hands because ``torch.optim.swa_utils.AveragedModel`` reads a counter from the device at every step.

    Args:
        model: The model that is trained.
        decay: d in average <- d average + (1 - d) weights.

    Example:
        >>> from nc_tools.heads import LinearHead
        >>> model = Classifier(torch.nn.Flatten(), LinearHead(4, 2))
        >>> WeightEMA(model, 0.9).update(model, step=0)
    """

    def __init__(self, model: Classifier, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(requires_grad=False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: Classifier, step: int) -> None:
        """Take in the weights after this step (from 0)."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        ours = [*self.model.parameters(), *self.model.buffers()]
        theirs = [*model.parameters(), *model.buffers()]
        average = [(a, b) for a, b in zip(ours, theirs, strict=True) if a.is_floating_point()]
        torch._foreach_lerp_([a for a, _ in average], [b for _, b in average], share)
        for a, b in zip(ours, theirs, strict=True):
            if not a.is_floating_point():
                a.copy_(b)
