"""Read experiment.json and tuning.json of an output folder, and check every value that a comparison uses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nc_tools._support.damaged_file import DamagedFileError
from nc_tools._support.short_repr import short_repr
from nc_tools.run_records.json_files import read_json
from nc_tools.run_records.renames import current_tuning
from nc_tools.type_check import hint_text, matches

_PLAN: dict[str, Any] = {
    "name": str,
    "question": str,
    "baseline": str,
    "arms": list[str],
    "primary": str,
    "suite": str,
    "protocol": Mapping[str, Any] | str,
    "references": Mapping[str, str],
    "runs": list[Mapping[str, Any]],
}
_PROTOCOL: dict[str, Any] = {"references": Mapping[str, str], "seeds": list[int] | str, "tuned": list[str] | str}
_RUN: dict[str, Any] = {"arm": str, "seed": int, "draw": int, "run_id": str, "status": str, "error": str}
_TUNING: dict[str, Any] = {
    "trials": list[Mapping[str, Any]],
    "chosen": Mapping[str, Mapping[str, Any]],
    "notes": list[str],
    "grid": list[float],
}
_TRIAL: dict[str, Any] = {"arm": str, "lr": float, "parameter": str, "score": float, "status": str}
_CHOSEN: dict[str, Any] = {"lr": float}


def read_plan(root: Path) -> dict[str, Any]:
    """Return the contents of experiment.json; an empty dictionary if there is no such file.

    Raises:
        DamagedFileError: If the file is damaged. It is not ignored, since it names the baseline and the primary metric:
            with other ones a comparison could give another verdict.
    """
    file = root / "experiment.json"
    try:
        plan = read_json(file)
        _check(plan, _PLAN, "")
        if isinstance(plan.get("protocol"), Mapping):
            _check(plan["protocol"], _PROTOCOL, "protocol.")
        for number, run in enumerate(plan.get("runs") or ()):
            _check(run, _RUN, f"runs[{number}].")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError as error:
        raise DamagedFileError(
            f"{file} is damaged: {error}. Give the recipe's command again with --resume, which writes the file anew, "
            "or delete it to compare all arms with the first one"
        ) from error
    return plan


def read_tuning(root: Path) -> dict[str, Any]:
    """Return the contents of tuning.json: {} if there is no such file, only a note if it is damaged.

    Tuning changes no number of a comparison. Its trials and choices are listed in the report.
    """
    file = root / "tuning.json"
    try:
        tuning = current_tuning(read_json(file))
        _check(tuning, _TUNING, "")
        for number, trial in enumerate(tuning.get("trials") or ()):
            _check(trial, _TRIAL, f"trials[{number}].")
        for arm, values in (tuning.get("chosen") or {}).items():
            _check(values, _CHOSEN, f"chosen.{arm}.")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, OSError) as error:
        return {"notes": [f"the tuning trials are not known, because {file} is damaged: {error}"]}
    return tuning


def _check(values: Mapping[str, Any], hints: Mapping[str, Any], prefix: str) -> None:
    """Raise a ValueError if a value does not have the type of its hint; null is allowed, for an unknown value."""
    for key, hint in hints.items():
        if not matches(values.get(key), hint | None):
            raise ValueError(f"{prefix}{key} must be {hint_text(hint)}, got {short_repr(values[key])}")
