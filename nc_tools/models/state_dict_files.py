"""Read the tensors of a model from a file, without executing code that the file names; say which tensors do not fit."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from zipfile import BadZipFile

import torch
from torch import Tensor, nn

from nc_tools._support.existing_file import check_file
from nc_tools._support.free_memory import available_memory
from nc_tools._support.stored_archive import check_stored

# Names under which training scripts store the weights, beside optimizer and epoch.
_NESTED = ("state_dict", "model_state_dict", "model", "model_state")
_COUNTER = "num_batches_tracked"


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a model's tensors by name from a safetensors file or from a file that ``torch.save`` wrote.

    The latter are read with ``weights_only=True``, so that nothing in the file is executed. A state stored as
    "state_dict" or "model" beside other values is found, and the prefix "module." of distributed training is removed.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, holds no tensors by name, holds objects that could run code, or does not fit
            into the free memory.
    """
    check_file(path, "weights file")
    size, free = path.stat().st_size, available_memory()
    if size > free:
        raise ValueError(f"{path} has {size:,} bytes, more than the {free:,.0f} bytes of memory that are free")
    state = _safetensors(path) if path.suffix == ".safetensors" else _torch_file(path)
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise ValueError(
            f"{path} cannot be read as safetensors ({error}): save the weights again with safetensors.torch.save_file"
        ) from error


def _torch_file(path: Path) -> dict[str, Tensor]:
    try:
        check_stored(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors, which could run code when it is loaded, so it is not read. If you trust "
            f'the file, convert it once: python -c "import torch; from safetensors.torch import save_file; '
            f"m = torch.load('{path}', weights_only=False); s = m.state_dict() if hasattr(m, 'state_dict') else "
            f"m.get('state_dict', m); save_file({{k: v.clone().contiguous() for k, v in s.items()}}, "
            f"'{path.with_suffix('.safetensors')}')\""
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, BadZipFile) as error:
        raise ValueError(
            f"{path} cannot be read as a file of torch.save ({_first_line(error)}): give a .safetensors file, or the "
            f"file of torch.save(model.state_dict(), FILE)"
        ) from error
    state = loaded
    for name in _NESTED:
        if isinstance(state, Mapping) and isinstance(state.get(name), Mapping):
            state = state[name]
            break
    if not isinstance(state, Mapping):
        raise ValueError(
            f"{path} holds a {type(loaded).__name__} and not the weights of a model: save its state_dict()"
        )
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(f"{path} holds no tensors by name: save the weights with torch.save(model.state_dict(), FILE)")
    return tensors


def check_fit(model: nn.Module, state: Mapping[str, Tensor], source: str, *, optional: Iterable[str] = ()) -> None:
    """Raise a ValueError if tensors do not fit a model; the message names the first that are missing, extra or unequal.

    The counters of batch normalization may be missing, because they do not change the output.

    Args:
        model: The model.
        state: Tensors by name.
        source: What the tensors were read from.
        optional: Names in ``state`` that the model need not have.
    """
    own, left = model.state_dict(), set(optional)
    missing = [name for name in own if name not in state and not name.endswith(_COUNTER)]
    extra = [name for name in state if name not in own and name not in left]
    unequal = [name for name in own if name in state and own[name].shape != state[name].shape]
    if not (missing or extra or unequal):
        return
    parts = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for names, kind in ((missing, "missing"), (extra, "not in the model"))
        if names
    ]
    if unequal:
        first = unequal[0]
        parts.append(
            f"{len(unequal)} of another shape ({first}: {tuple(state[first].shape)} instead of "
            f"{tuple(own[first].shape)})"
        )
    raise ValueError(
        f"{source} does not hold the weights of {type(model).__name__}; tensors that do not fit: {', '.join(parts)}. "
        f"Give the weights of the same architecture, or name the architecture that they belong to"
    )


def load_into(model: nn.Module, state: Mapping[str, Tensor], source: str, *, optional: Iterable[str] = ()) -> None:
    """Load tensors into a model.

    Arguments and errors are those of :func:`check_fit`: every tensor must fit, and ``optional`` ones are not loaded.
    """
    optional = set(optional)
    check_fit(model, state, source, optional=optional)
    model.load_state_dict({name: value for name, value in state.items() if name not in optional}, strict=False)


def tensor_hash(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of named tensors: of their names, types, shapes and bytes, in the order of the names.

    Counters of batch normalization are left out.

    Example:
        >>> a, b = torch.zeros(2), torch.ones(1)
        >>> tensor_hash({"a": a, "b": b}) == tensor_hash({"b": b.clone(), "a": a.clone()})
        True
    """
    digest = hashlib.sha256()
    for name in sorted(name for name in tensors if not name.endswith(_COUNTER)):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
