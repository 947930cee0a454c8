"""Checkpoints: written atomically, read without executing code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from nc_tools._support.atomic_write import atomic_write
from nc_tools._support.damaged_file import DamagedFileError
from nc_tools._support.regular_file import check_regular
from nc_tools._support.stored_archive import check_stored


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
        DamagedFileError: If the file is damaged.
    """
    try:
        check_regular(path)
        check_stored(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(f"it holds a {type(state).__name__}")
    except Exception as error:  # torch raises many kinds for a damaged file
        raise damaged_checkpoint(path, error) from error
    return state


def damaged_checkpoint(path: Path, error: Exception) -> DamagedFileError:
    """Return the error for a checkpoint that cannot be used, with the first sentence of torch's long reason."""
    reason = " ".join(str(error).split()).partition(". ")[0][:200]
    return DamagedFileError(
        f"cannot resume from the checkpoint {path} ({type(error).__name__}: {reason}). Delete it to train from the "
        "start"
    )
