"""Training state on disk: written whole or not at all, read without executing anything."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from nc_tools._support.atomic_write import atomic_write


def save_checkpoint(path: Path | None, state: dict[str, Any]) -> None:
    """Write tensors and plain values to ``path`` at once: a crash leaves the old file or the new one, never a half.

    Args:
        path: The file; None writes nothing.
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
    """Read a checkpoint with weights-only unpickling: no code in it is ever run.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise ValueError(f"the checkpoint {path} cannot be read ({error}): delete it to start this run anew") from error
    return state
