"""What a final run reads from the folder of its hold-out run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from nc_tools._support.damaged_file import DamagedFileError
from nc_tools.experiment.weight_files import load_tensors
from nc_tools.run_records import read_run

TRANSITION = "transition.safetensors"
"""The estimated transition matrices of the label noise, in the folder of a run."""


def holdout_value(folder: Path, key: str) -> float:
    """Return a final value of a hold-out run.

    Raises:
        DamagedFileError: If its record is damaged or lacks the value.
    """
    value = read_run(folder).final.get(key, math.nan)
    if not math.isfinite(value):
        raise _damaged(folder, f"{folder / 'final.json'} holds no number for {key!r}")
    return value


def holdout_transitions(folder: Path, names: Sequence[str], num_classes: int) -> dict[str, Tensor]:
    """Return the transition matrices (K, K) that a hold-out run estimated, by name.

    Raises:
        DamagedFileError: If the file is damaged or holds something else.
    """
    tensors = load_tensors(folder / TRANSITION)
    for name in names:
        if name not in tensors or tensors[name].shape != (num_classes, num_classes):
            raise _damaged(folder, f"{folder / TRANSITION} holds no {name!r} of shape ({num_classes}, {num_classes})")
    return {name: tensors[name] for name in names}


def copy_holdout_buffers(folder: Path, module: nn.Module, prefix: str, names: Sequence[str]) -> None:
    """Copy buffers from the weights of a hold-out run into a module of the same kind, such as the head of a final run.

    Raises:
        DamagedFileError: If the file is damaged or holds something else.
    """
    if not names:
        return
    path = folder / "weights.safetensors"
    tensors = load_tensors(path)
    for name in names:
        buffer, key = module.get_buffer(name), f"{prefix}.{name}"
        # Records of version 0.2 hold a single number as a tensor without dimensions.
        tensor = tensors.get(key)
        if tensor is None or (tensor.shape != buffer.shape and not tensor.numel() == buffer.numel() == 1):
            raise _damaged(folder, f"{path} holds no {key!r} of shape {tuple(buffer.shape)}")
        with torch.no_grad():
            buffer.copy_(tensor.view_as(buffer))


def _damaged(folder: Path, problem: str) -> DamagedFileError:
    return DamagedFileError(
        f"{problem}, which the final run needs. Delete the folder {folder} to make the hold-out run again"
    )
