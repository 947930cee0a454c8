"""Load the weights of a model from a safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

_PICKLE_STARTS = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04")
_PICKLE_SUFFIXES = (".pt", ".pth", ".pkl", ".bin")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the weights of a model from a safetensors file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is a pickle, which is never loaded, or is damaged.
    """
    from nc_tools.experiment.weight_files import load_tensors

    if not path.is_file():
        raise FileNotFoundError(f"the weights file {path} does not exist. Check the path of the safetensors file")
    with path.open("rb") as file:
        start = file.read(2)
    # torch.save writes a zip archive or, before 1.6, a bare pickle.
    if start in _PICKLE_STARTS or path.suffix in _PICKLE_SUFFIXES:
        raise ValueError(
            f"weights must be in safetensors format, but {path} looks like a pickle, which can run code when it is "
            "loaded. If you trust the file, convert it once with safetensors.torch.save_file(torch.load(FILE, "
            "weights_only=True), 'model.safetensors')"
        )
    try:
        return load_tensors(path)
    except ValueError as error:
        raise ValueError(f"{error} or has another format. Save the weights with safetensors.torch.save_file") from error


def load_weights_into(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load weights into a model; the name and shape of every tensor must match.

    Args:
        model: The model.
        state: Tensors by name.
        source: The file, for error messages.

    Raises:
        ValueError: If a name or shape differs; the message names the first.
    """
    own = model.state_dict()
    missing = [key for key in own if key not in state]
    extra = [key for key in state if key not in own]
    if missing or extra:
        parts = [
            f"{len(keys)} {kind} (such as {keys[0]!r})"
            for kind, keys in (("missing", missing), ("extra", extra))
            if keys
        ]
        raise ValueError(
            f"{source} does not hold the weights of {type(model).__name__}: {', '.join(parts)}. "
            "Use a file that was saved from the same model"
        )
    for key, part in state.items():
        if part.shape != own[key].shape:
            raise ValueError(
                f"{source} does not hold the weights of {type(model).__name__}: {key!r} has the shape "
                f"{tuple(part.shape)} instead of {tuple(own[key].shape)}. Use a file that was saved from the same model"
            )
    model.load_state_dict(state)
