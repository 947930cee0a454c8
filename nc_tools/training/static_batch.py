"""A batch whose tensors stay where they are, and are filled with the contents of other batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nc_tools.records import Batch

BatchLayout = tuple[tuple[str, torch.Size, torch.dtype, tuple[int, ...]], ...]

_TENSORS = ("inputs", "labels", "index", "second_view", "tags", "outliers", "kept")


class StaticBatch:
    """A batch with memory of its own. The share of a mixed batch is a tensor (), so that it can be filled too.

    Args:
        batch: The first contents.

    Attributes:
        batch: The batch to compute with.

    Example:
        >>> static = StaticBatch(Batch(torch.zeros(2, 1), torch.tensor([0, 1]), torch.arange(2)))
        >>> static.fill(Batch(torch.ones(2, 1), torch.tensor([1, 1]), torch.arange(2)))
        >>> static.batch.labels.tolist()
        [1, 1]
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = changed(batch, torch.clone)
        if batch.partner is not None:
            self.batch = replace(self.batch, share=torch.tensor(float(batch.share), device=batch.inputs.device))

    def fill(self, batch: Batch) -> None:
        """Copy the contents of a batch of the same layout."""
        for (_, to), (_, values) in zip(_tensors(self.batch), _tensors(batch), strict=True):
            to.copy_(values)
        if isinstance(self.batch.share, Tensor):
            self.batch.share.fill_(batch.share)


def layout(batch: Batch) -> BatchLayout:
    """Return what two batches have in common if one can be filled with the other."""
    return tuple((name, values.shape, values.dtype, values.stride()) for name, values in _tensors(batch))


def changed(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """Return a batch with each tensor changed; the partner of a mixed batch keeps the same inputs."""
    given: dict[str, Any] = {name: change(values) for name in _TENSORS if (values := getattr(batch, name)) is not None}
    if batch.partner is not None:
        partner = changed(replace(batch.partner, inputs=batch.partner.labels), change)
        given["partner"] = replace(partner, inputs=given["inputs"])
    return replace(batch, **given)


def _tensors(batch: Batch) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a batch, and those of its partner but the inputs, which are the same."""
    for name in _TENSORS:
        if (values := getattr(batch, name)) is not None:
            yield name, values
    if batch.partner is not None:
        yield from ((f"partner.{name}", values) for name, values in _tensors(batch.partner) if name != "inputs")
