"""Convert configurations to JSON, and compute the hash in a run's name."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nc_tools import __version__
from nc_tools.experiment.class_path import path_of
from nc_tools.experiment.run_config import RunConfig
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
        fields = {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value) if _is_written(f, value)}
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


def _is_written(field: dataclasses.Field[Any], value: Any) -> bool:
    """Return False for a new field that has its default: so hashes stay those of versions without it."""
    return not (field.metadata.get("omit_default") and getattr(value, field.name) == field.default)


def settings(config: RunConfig) -> dict[str, Any]:
    """Return the part of a configuration that decides a run's result, as JSON values.

    The field ``tuned`` is left out: it says which values an arm tries, not what a run gives. ``start`` is left out for
    arms without one, so that their hashes stay those of versions without starts.
    """
    values = encode(config)
    return {k: v for k, v in values.items() if k != "tuned" and not (k == "start" and v is None)}


def run_hash(config: RunConfig, *facts: object) -> str:
    """Return a hash of 16 hex digits, which differs between configurations and between versions of nc_tools.

    Args:
        config: The run's configuration.
        facts: What else decides the result: seed, draw, kind, the data's fingerprint.
    """
    values = settings(config)
    # How often checkpoints are written does not change results: the default stands for every value, so that hashes
    # stay. Replaying the steps does not change them either, up to a GPU's rounding.
    values["training"] |= {"checkpoint_seconds": TrainConfig.checkpoint_seconds}
    del values["training"]["capture"]
    text = json.dumps([values, __version__, *facts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
