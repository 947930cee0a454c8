"""Convert configurations to JSON and back, and compute the hash in a run's name."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nc_tools import __version__
from nc_tools.experiment.run_config import RunConfig
from nc_tools.run_records.renames import current_names
from nc_tools.specs import Spec
from nc_tools.training import TrainConfig


def encode(value: Any) -> Any:
    """Return a configuration as JSON values; a dataclass or spec becomes a dictionary with the path of its class.

    Example:
        >>> from nc_tools.training import OptimConfig
        >>> encode(OptimConfig())["lr"]
        0.1

    Raises:
        TypeError: If it holds something that JSON cannot hold, such as a function or a tensor.
    """
    if isinstance(value, Spec):
        return {"class": path_of(value.cls), "arguments": encode(value.arguments)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"dataclass": path_of(type(value)), **fields}
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(
        f"cannot write {value!r} into a run's record: a configuration may hold numbers, strings, tuples, specs and "
        f"dataclasses"
    )


def decode(value: Any) -> Any:
    """Rebuild a configuration from the JSON values that :func:`encode` returned; lists become tuples.

    Names of earlier versions are replaced by today's first, see :mod:`nc_tools.run_records.renames`.

    Raises:
        ValueError: If a class in it cannot be imported.
    """
    return _decode(current_names(value))


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_decode(item) for item in value)
    if not isinstance(value, dict):
        return value
    if "class" in value:
        return Spec(_import_class(value["class"]), _decode(value["arguments"]))
    if "dataclass" in value:
        return _import_class(value["dataclass"])(**{k: _decode(v) for k, v in value.items() if k != "dataclass"})
    return {key: _decode(item) for key, item in value.items()}


def path_of(cls: type[Any]) -> str:
    """Return the dotted import path of a class, which is the same in every process.

    A class of the script itself is in ``__main__``, and in a worker in ``__mp_main__``: its path is the one under which
    the script can be imported.

    Raises:
        ValueError: If the class is defined inside a function or another class, where it cannot be imported from.
    """
    module = cls.__module__
    if "." in cls.__qualname__:
        raise ValueError(
            f"cannot write {cls.__qualname__} into a run's record, because it is defined inside a function or a class "
            f"and cannot be imported: move it to the top level of {module}"
        )
    if module in ("__main__", "__mp_main__"):
        main = sys.modules[module]
        origin = getattr(main, "__spec__", None)
        file = getattr(main, "__file__", None)
        module = origin.name if origin is not None else Path(file).stem if file is not None else module
    return f"{module}.{cls.__qualname__}"


def _import_class(path: str) -> type[Any]:
    module, _, name = path.rpartition(".")
    main = sys.modules["__main__"]
    if isinstance(own := getattr(main, name, None), type) and path_of(own) == path:
        return own
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"cannot import {path}, with which the run was made ({error}): install its package, or add the folder of "
            f"its module to PYTHONPATH"
        ) from error
    if not isinstance(cls, type):
        raise ValueError(
            f"the run was made with {path}, which is not a class in the installed version: install the version that "
            f"made the run"
        )
    return cls


def settings(config: RunConfig) -> dict[str, Any]:
    """Return the part of a configuration that decides a run's result, as JSON values.

    The field ``tuned`` is left out: it says which values an arm tries, not what a run gives.
    """
    return {key: value for key, value in encode(config).items() if key != "tuned"}


def run_hash(config: RunConfig, *facts: object) -> str:
    """Return a hash of 16 hex digits, which differs between configurations and between versions of nc_tools.

    Args:
        config: The run's configuration.
        facts: What else decides the result: seed, draw, kind, the data's fingerprint.
    """
    # How often checkpoints are written decides nothing; the default stands for every value, so that hashes stay.
    training = dataclasses.replace(config.training, checkpoint_seconds=TrainConfig.checkpoint_seconds)
    text = json.dumps([settings(dataclasses.replace(config, training=training)), __version__, *facts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
