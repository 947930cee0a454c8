"""A backbone from a function of the user's own module, which the user names on the command line or in Python."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Literal

from torch import nn

from nc_tools._support.suggestions import did_you_mean
from nc_tools.models.image_preprocessing import ImagePreprocessing
from nc_tools.models.named_backbone import NamedBackbone
from nc_tools.models.state_dict_files import load_into, read_state_dict

# For a user's network without the attribute ``preprocessing``: the usual preprocessing of ImageNet.
_DEFAULT = ImagePreprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), size=224, resize_size=256)


def function_backbone(module_name: str, function: str, weights: Path | Literal["pretrained"] | None) -> NamedBackbone:
    """Build a backbone by calling a function of a user's module.

    The module is imported because the user has named it; no file can name a module to import.

    Args:
        module_name: Name of the module.
        function: Name of the function.
        weights: As for :func:`~nc_tools.models.pretrained.load_backbone`, but not "pretrained".

    Raises:
        ValueError: If ``weights`` is "pretrained", the function cannot be imported, or the weights do not fit.
        TypeError: If the function returns no module, or the module's ``preprocessing`` has another type.
    """
    name = f"{module_name}:{function}"
    if weights == "pretrained":
        raise ValueError(
            f"{name} is a function of yours, for which there are no weights to download: load the weights in this "
            f"function, or give --weights FILE.safetensors"
        )
    module = call_function(module_name, function)
    if weights is not None:
        load_into(module, read_state_dict(weights), str(weights))
    preprocessing = getattr(module, "preprocessing", _DEFAULT)
    if not isinstance(preprocessing, ImagePreprocessing):
        raise TypeError(
            f"the attribute preprocessing of {name} must be an ImagePreprocessing, got {type(preprocessing).__name__}"
        )
    return NamedBackbone(module, name, preprocessing, name)


def call_function(module_name: str, function: str) -> nn.Module:
    """Return the module that a function of the user returns.

    Raises:
        ValueError: As :func:`find_function` does.
        TypeError: If it returns something else.
    """
    module = find_function(module_name, function)()
    if not isinstance(module, nn.Module):
        raise TypeError(f"{module_name}:{function} must return a torch.nn.Module, got {type(module).__name__}")
    return module


def factory_name(make: Callable[[], nn.Module]) -> str:
    """Return the name "package.module:function" of a function that makes a network, for ``ModelConfig(name=...)``.

    Raises:
        ValueError: If the function is defined inside a class or a function, or has no name, so that no other process
            can import it.

    Example:
        >>> factory_name(call_function)
        'nc_tools.models.function_backbone:call_function'
    """
    name, module = getattr(make, "__qualname__", "<none>"), getattr(make, "__module__", "")
    if "<" in name or "." in name:
        raise ValueError(
            f"a function that makes a network must stand at the top level of a module, got {name}: move it there, "
            f"because worker processes import it by its name"
        )
    if module in ("__main__", "__mp_main__"):
        main = sys.modules[module]
        origin, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        module = origin.name if origin is not None else Path(file).stem if file is not None else module
    return f"{module}:{name}"


def find_function(module_name: str, function: str) -> Callable[[], object]:
    """Import a function by its name, and check that it can be called without arguments.

    Raises:
        ValueError: If the module is not found, has no such function, or the function needs arguments.
    """
    module = import_module(module_name)
    make: Callable[[], object] | None = getattr(module, function, None)
    if not callable(make):
        functions = [name for name, thing in vars(module).items() if callable(thing) and not name.startswith("_")]
        raise ValueError(f"{module_name} has no function {function!r}; {did_you_mean(function, functions)}")
    try:
        inspect.signature(make).bind()
    except TypeError as error:
        raise ValueError(
            f"{module_name}:{function} must be a function without arguments that returns the model, but {error}. "
            "Write a function that calls it with its arguments"
        ) from None
    except ValueError:  # a builtin without a signature
        raise ValueError(
            f"{module_name}:{function} must be a function that returns a model, but it is a builtin. Write a function "
            "that calls it"
        ) from None
    return make


def import_module(name: str) -> ModuleType:
    """Import a module that the user has named, also from the current folder.

    Raises:
        ValueError: If it, or a module that it imports, cannot be found.
    """
    if "" not in sys.path:
        sys.path.insert(0, "")  # so that modules of the current folder are found, as with python -m
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"the module {name} needs the module {error.name!r}, which cannot be imported here. Run the command in the "
            "folder that holds it"
        ) from error
