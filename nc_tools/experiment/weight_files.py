"""Model weights and predictions as safetensors files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nc_tools._support.atomic_write import atomic_write


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a model's state atomically: after a crash there is the old file or the new one."""
    save_tensors(model.state_dict(), path)


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write named tensors atomically: after a crash there is the old file or the new one."""
    state = {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
    with atomic_write(path) as part:
        save_file(state, part)


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a model's state from a file of :func:`save_weights`; names and shapes must match exactly."""
    model.load_state_dict(load_file(path))
