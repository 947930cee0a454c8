"""The settings of runs as flat dictionaries, and which of them tuning chose."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nc_tools.comparison.read_experiment import Experiment

_LEARNING_RATES = {"lr", "learning_rate"}


def flatten_settings(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten a nested configuration to a dictionary from dotted names to values as JSON text.

    Example:
        >>> flatten_settings({"head": {"scale": 8.0}, "epochs": 3})
        {'head.scale': '8.0', 'epochs': '3'}
    """
    flat: dict[str, str] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat.update(flatten_settings(value, f"{name}."))
        else:
            flat[name] = json.dumps(value, sort_keys=True, default=str)
    return flat


def tuned_fields(experiment: Experiment) -> set[str]:
    """Return the names of the settings that tuning chose.

    These are the parameters of the recorded trials, those that the protocol lists under ``tuned`` and, if there are
    trials, the learning rate.
    """
    fields = {str(trial["parameter"]) for trial in experiment.trials if trial.get("parameter")}
    listed = experiment.protocol.get("tuned")
    if isinstance(listed, Sequence) and not isinstance(listed, str):
        fields |= {str(name) for name in listed}
    return fields | (_LEARNING_RATES if experiment.trials else set())


def is_tuned(name: str, tuned: Iterable[str]) -> bool:
    """Return True if a dotted name is one of the settings that tuning chose."""
    # The arguments of a spec are one level deeper in a record than in the path of a setting.
    name = name.replace(".arguments.", ".")
    return any(name == field or name.endswith(f".{field}") or field.endswith(f".{name}") for field in tuned)
