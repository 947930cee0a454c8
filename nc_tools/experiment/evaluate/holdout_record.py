"""What a final run reads from the folder of its hold-out run."""

from __future__ import annotations

import math
from pathlib import Path

from torch import Tensor

from nc_tools._support.damaged_file import DamagedFileError
from nc_tools.experiment.weight_files import load_tensors
from nc_tools.run_records import read_run

TRANSITION = "transition.safetensors"
"""The estimated transition matrix of the label noise, in the folder of a hold-out run."""


def holdout_value(folder: Path, key: str) -> float:
    """Return a final value of a hold-out run.

    Raises:
        DamagedFileError: If its record is damaged or lacks the value.
    """
    value = read_run(folder).final.get(key, math.nan)
    if not math.isfinite(value):
        raise _damaged(folder, f"{folder / 'final.json'} holds no number for {key!r}")
    return value


def holdout_confusion(folder: Path, num_classes: int) -> Tensor:
    """Return the transition matrix (K, K) that a hold-out run estimated from its confusions.

    Raises:
        DamagedFileError: If the file is damaged or holds something else.
    """
    matrix = load_tensors(folder / TRANSITION).get("confusion")
    if matrix is None or matrix.shape != (num_classes, num_classes):
        raise _damaged(folder, f"{folder / TRANSITION} holds no 'confusion' of shape ({num_classes}, {num_classes})")
    return matrix


def _damaged(folder: Path, problem: str) -> DamagedFileError:
    return DamagedFileError(
        f"{problem}, which the final run needs. Delete the folder {folder} to make the hold-out run again"
    )
