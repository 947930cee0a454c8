"""Read the arms and the protocol of a comparison from the file that ``--print-config`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nc_tools.experiment.deserialize import decode
from nc_tools.experiment.run_config import Protocol, RunConfig
from nc_tools.experiment.serialize import encode
from nc_tools.run_records.json_files import read_json


def config_text(arms: Mapping[str, RunConfig], protocol: Protocol) -> dict[str, Any]:
    """Return the whole configuration of a comparison as JSON values."""
    return {"arms": encode(dict(arms)), "protocol": encode(protocol)}


def read_config(path: Path) -> tuple[dict[str, RunConfig], Protocol]:
    """Return the arms and the protocol in a file; its classes must be those of nc_tools, torch.optim or the recipe.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not what ``--print-config`` prints; the message names the field.
    """
    values = read_json(path)
    if missing := sorted({"arms", "protocol"} - set(values)):
        raise ValueError(f"{path} has no {missing[0]!r}: give a file that --print-config has printed")
    if not isinstance(values["arms"], dict) or not values["arms"]:
        raise ValueError(f"{path} must hold arms by name under 'arms': give a file that --print-config has printed")
    arms = {name: decode(arm, RunConfig, name=f"arms.{name}") for name, arm in values["arms"].items()}
    return arms, decode(values["protocol"], Protocol, name="protocol")
