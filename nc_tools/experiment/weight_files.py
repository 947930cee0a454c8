"""Save and load model weights and predictions as safetensors files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from nc_tools._support.atomic_write import atomic_write
from nc_tools._support.damaged_file import DamagedFileError
from nc_tools._support.regular_file import check_regular

# Numbers that a file may hold beyond those of the model, such as the notes that heads of earlier versions saved.
_SLACK = 2**16


def save_weights(model: nn.Module, path: Path) -> None:
    """Save a model's weights to a file; after a crash the file is the complete old one or the complete new one."""
    save_tensors(model.state_dict(), path)


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Save named tensors to a file; after a crash the file is the complete old one or the complete new one."""
    state = {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
    with atomic_write(path) as part:
        save_file(state, part)


def load_tensors(path: Path, *, most: int | None = None) -> dict[str, Tensor]:
    """Read the tensors that :func:`save_tensors` saved.

    Args:
        path: The file.
        most: How many numbers it may hold. None: any number.

    Raises:
        FileNotFoundError: If there is no such file.
        DamagedFileError: If it is damaged or holds more numbers.
    """
    check_regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            declared = sum(math.prod(file.get_slice(name).get_shape()) for name in names)
            if most is not None and declared > most:
                raise DamagedFileError(f"{path} holds {declared:,} numbers, but at most {most:,} are expected")
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise DamagedFileError(f"{path} cannot be read as safetensors ({error}), because it is damaged") from error


def load_weights(model: nn.Module, path: Path) -> None:
    """Load weights that :func:`save_weights` saved into a model; names and shapes must match.

    Raises:
        FileNotFoundError: If there is no such file.
        DamagedFileError: If it is damaged, or holds the weights of another model.
    """
    own = sum(value.numel() for value in model.state_dict().values() if isinstance(value, Tensor))
    state = load_tensors(path, most=own + _SLACK)
    try:
        model.load_state_dict(state)
    except Exception as error:  # a head may refuse a damaged value with an error of its own
        reason = " ".join(str(error).split())
        raise DamagedFileError(f"{path} does not hold the weights of the model in run.json: {reason[:500]}") from error
