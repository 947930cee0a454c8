"""Get inputs and labels from the batches of any data loader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nc_tools.records import Batch
from nc_tools.surgery.example_inputs import Example


class LoaderBatch(NamedTuple):
    """One batch of any data loader: inputs, labels and, if known, positions.

    Attributes:
        inputs: Arguments for the model.
        labels: (N,), (N, T) for tokens, or (N, H, W) for pixels.
        positions: Position of each sample in the set (N,), or None if the batch does not hold it.
    """

    inputs: Example
    labels: Tensor
    positions: Tensor | None


def unpack(batch: Any) -> LoaderBatch:
    """Split a batch of any data loader into inputs, labels and, if it holds them, positions.

    Args:
        batch: A :class:`~nc_tools.records.Batch`, (inputs, labels, ...), or a mapping with ``labels`` or ``label``.

    Raises:
        TypeError: If it is none of these.
    """
    if isinstance(batch, Batch):
        return LoaderBatch(batch.inputs, batch.labels, batch.index)
    if isinstance(batch, Mapping):
        for name in ("labels", "label"):
            if isinstance(batch.get(name), Tensor):
                rest = {key: value for key, value in batch.items() if key != name}
                return LoaderBatch(rest, batch[name], None)
    if isinstance(batch, tuple | list) and len(batch) >= 2 and isinstance(batch[1], Tensor):
        inputs = tuple(batch[0]) if isinstance(batch[0], list) else batch[0]
        return LoaderBatch(inputs, batch[1], None)
    raise TypeError(
        f"a loader must yield (inputs, labels), a mapping with 'labels' or a Batch, got {type(batch).__name__}. "
        "Wrap the loader in a class whose __iter__ yields (inputs, labels)"
    )


def to_device(inputs: Example, device: torch.device) -> Example:
    """Return a model's inputs (a tensor, or a mapping or tuple of values) with the tensors moved to a device."""
    if isinstance(inputs, Tensor):
        return inputs.to(device, non_blocking=True)
    if isinstance(inputs, Mapping):
        return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in inputs.items()}
    return tuple(value.to(device) if isinstance(value, Tensor) else value for value in inputs)


def first_two(inputs: Example) -> Example:
    """Return the first two samples of a batch's inputs, for a trial call of the model."""
    if isinstance(inputs, Tensor):
        return inputs[:2]
    parts = list(inputs.values() if isinstance(inputs, Mapping) else inputs)
    if len({len(part) for part in parts if isinstance(part, Tensor)}) > 1:
        return inputs  # packed sequences: a tensor of another length says where each begins
    if isinstance(inputs, Mapping):
        return {key: value[:2] if isinstance(value, Tensor) else value for key, value in inputs.items()}
    return tuple(value[:2] if isinstance(value, Tensor) else value for value in inputs)
