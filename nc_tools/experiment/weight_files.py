"""Save and load model weights and predictions as safetensors files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nc_tools._support.atomic_write import atomic_write


def save_weights(model: nn.Module, path: Path) -> None:
    """Save a model's weights to a file; after a crash the file is the complete old one or the complete new one."""
    save_tensors(model.state_dict(), path)


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Save named tensors to a file; after a crash the file is the complete old one or the complete new one."""
    state = {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
    with atomic_write(path) as part:
        save_file(state, part)


def load_weights(model: nn.Module, path: Path) -> None:
    """Load weights that :func:`save_weights` saved into a model; names and shapes must match exactly."""
    model.load_state_dict(load_file(path))
