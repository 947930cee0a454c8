"""A random part of a model's outputs, for fits that do not need all samples."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools.records import Collected
from nc_tools.seeds import stream


def draw_outputs(outputs: Collected, most: int) -> tuple[Tensor, Tensor]:
    """Return logits (M, K) and labels (M,) of at most ``most`` samples, always the same ones, in their order.

    They are drawn at random: data sets often list one class after the other, and the first samples would lack classes.
    """
    if len(outputs.labels) <= most:
        return outputs.logits, outputs.labels
    chosen = torch.randperm(len(outputs.labels), generator=stream(0, "subsample"))[:most].sort().values
    chosen = chosen.to(outputs.labels.device)
    return outputs.logits[chosen], outputs.labels[chosen]
