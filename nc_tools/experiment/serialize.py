"""Configurations to plain JSON and back, and their hash."""

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
from nc_tools.spec import Spec


def encode(value: Any) -> Any:
    """Turn a configuration into JSON values: dataclasses and specs carry the dotted path of their class.

    A field marked ``metadata={"later": True}``, which a release has added, is left out while it has its default: what
    was recorded without it keeps its hash.

    Example:
        >>> from nc_tools.training import OptimConfig
        >>> encode(OptimConfig())["lr"]
        0.1

    Raises:
        TypeError: If it holds something that cannot be written down, such as a function or a tensor.
    """
    if isinstance(value, Spec):
        return {"class": path_of(value.cls), "arguments": encode(value.arguments)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        told = [f for f in dataclasses.fields(value) if not (f.metadata.get("later") and _at_default(value, f))]
        fields = {f.name: encode(getattr(value, f.name)) for f in told}
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
        f"a configuration holds numbers, strings, tuples, specs and dataclasses, so that it can be written down and "
        f"compared, got {value!r}"
    )


def _at_default(value: Any, field: dataclasses.Field[Any]) -> bool:
    return bool(getattr(value, field.name) == field.default)


def decode(value: Any) -> Any:
    """Turn what :func:`encode` wrote back into objects; lists become tuples.

    Raises:
        ValueError: If a class that it names cannot be imported.
    """
    if isinstance(value, list):
        return tuple(decode(item) for item in value)
    if not isinstance(value, dict):
        return value
    if "class" in value:
        return Spec(_imported(value["class"]), decode(value["arguments"]))
    if "dataclass" in value:
        return _imported(value["dataclass"])(**{k: decode(v) for k, v in value.items() if k != "dataclass"})
    return {key: decode(item) for key, item in value.items()}


def path_of(cls: type[Any]) -> str:
    """Return the dotted path of a class, the same in every process.

    A class of the script itself lives in ``__main__``, and in a worker in ``__mp_main__``: it goes under the name by
    which the script can be imported.

    Raises:
        ValueError: If the class stands inside a function or another class, where no later process finds it.
    """
    module = cls.__module__
    if "." in cls.__qualname__:
        raise ValueError(
            f"a run's record names a class by its module, so that it can be found again, but {cls.__qualname__} stands "
            f"inside a function or a class: move it to the top level of {module}"
        )
    if module in ("__main__", "__mp_main__"):
        main = sys.modules[module]
        origin = getattr(main, "__spec__", None)
        file = getattr(main, "__file__", None)
        module = origin.name if origin is not None else Path(file).stem if file is not None else module
    return f"{module}.{cls.__qualname__}"


def _imported(path: str) -> type[Any]:
    module, _, name = path.rpartition(".")
    main = sys.modules["__main__"]
    if isinstance(own := getattr(main, name, None), type) and path_of(own) == path:
        return own
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"the run was made with {path}, which cannot be imported here ({error}): put its module on the Python path"
        ) from error
    if not isinstance(found, type):
        raise ValueError(f"the run was made with {path}, which is not a class here")
    return found


def settings(config: RunConfig) -> dict[str, Any]:
    """Return what decides a run's result, as JSON values.

    What an arm may tune is left out: it decides which values are tried, not what a value gives.
    """
    return {key: value for key, value in encode(config).items() if key != "tuned"}


def run_hash(config: RunConfig, *facts: object) -> str:
    """Return 16 hex digits that tell one configuration from another, with the version of this package in them.

    Args:
        config: The run's configuration.
        facts: What else decides the result: seed, draw, kind, the data's fingerprint.
    """
    text = json.dumps([settings(config), __version__, *facts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
