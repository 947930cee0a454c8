"""Checkpoints: written atomically, read without executing code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from nc_tools._support.atomic_write import atomic_write


def save_checkpoint(path: Path | None, state: dict[str, Any]) -> None:
    """Write a checkpoint to a file atomically: a crash leaves either the old file or the new one.

    Args:
        path: The file. None: nothing is written.
        state: Nested dictionaries and lists of tensors, numbers and strings.
    """
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part, part.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint with ``weights_only=True``, so that no code in the file is executed.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise ValueError(f"cannot read the checkpoint {path}: {error}. Delete it to train from the start") from error
    return state
