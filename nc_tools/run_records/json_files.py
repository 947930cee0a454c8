"""Read and write the JSON files of a run: never half a file, never nan or inf, never more than memory holds."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nc_tools._support.atomic_write import atomic_write
from nc_tools._support.damaged_file import DamagedFileError
from nc_tools._support.regular_file import open_regular
from nc_tools._support.short_repr import short_repr

MAX_JSON_BYTES = 64 * 2**20
"""Largest JSON file that is read; the run.json of 100,000 classes has 3 MB."""
MAX_DEPTH = 100
"""Deepest nesting of a JSON file that is read; configurations nest about ten levels."""


def write_json(path: Path, value: object) -> None:
    """Write ``value`` to a JSON file in one step: a reader sees the old file or the new one, never a part.

    nan and inf, which JSON does not have, become null at any depth.
    """
    with atomic_write(path) as part, part.open("w", encoding="utf-8") as file:
        json.dump(finite_or_null(value), file, indent=1, allow_nan=False)
        file.write("\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object. The file may come from anybody, so its size and depth are bounded.

    Raises:
        DamagedFileError: If it is not a regular file, holds something else than a JSON object, has more than
            ``MAX_JSON_BYTES`` bytes, nests deeper than ``MAX_DEPTH``, or holds text that cannot be written as UTF-8.
        FileNotFoundError: If there is no such file.
    """
    with open_regular(path, max_bytes=MAX_JSON_BYTES) as file:
        content = file.read()
    try:
        text = content.decode("utf-8")
        value = json.loads(text)
        # Half of a surrogate pair can come only from an escape, and deep nesting needs many brackets. Most files have
        # neither, and need no further check.
        if "\\u" in text or text.count("{") + text.count("[") >= MAX_DEPTH:
            _check_contents(value)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise DamagedFileError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value


def _check_contents(value: object) -> None:
    """Raise a ValueError if parsed JSON nests too deep, or holds half of a surrogate pair."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"it nests deeper than {MAX_DEPTH} levels")
        following: list[object] = []
        for part in level:
            if isinstance(part, dict):
                following.extend(part)
                following.extend(part.values())
            elif isinstance(part, list):
                following.extend(part)
            elif isinstance(part, str) and not part.isascii():
                part.encode("utf-8")
        level = following


def read_json_or_problem(path: Path) -> tuple[dict[str, Any], str]:
    """Read a JSON object; return it and an empty text, or an empty object and the reason why it cannot be read."""
    try:
        return read_json(path), ""
    except FileNotFoundError:
        return {}, f"{path.name} is missing"
    except ValueError:
        return {}, f"{path.name} does not hold a JSON object"
    except OSError as error:
        return {}, f"{path.name} cannot be read ({type(error).__name__})"


def finite_or_null(value: object) -> object:
    """Return a value that JSON can hold: nan and inf become None, tuples and sets become lists.

    NumPy and torch values become numbers or lists of numbers; any other object becomes its text.

    Example:
        >>> finite_or_null({"loss": float("nan"), "lr": (0.1, float("inf"))})
        {'loss': None, 'lr': [0.1, None]}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite_or_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [finite_or_null(item) for item in value]
    if value is None or isinstance(value, str | int):
        return value
    return _scalar_or_text(value)


def _scalar_or_text(value: object) -> object:
    """Return a NumPy or torch value as Python numbers, and any other object as its text."""
    tolist = getattr(value, "tolist", None)
    if callable(tolist):
        return finite_or_null(tolist())
    return str(value)


def metric_value(key: str, value: object) -> float | None:
    """Return the value of a metric as a float; None if it is not finite.

    Raises:
        TypeError: If ``value`` is not one number.
    """
    detach = getattr(value, "detach", None)  # float() of a tensor that requires grad gives a warning
    try:
        number = float(detach() if callable(detach) else value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"the value of {key!r} must be one number, got {type(value).__name__}; log each number under its own key"
        ) from error
    return number if math.isfinite(number) else None


def as_float(value: object) -> float:
    """Return a number from a run's file as a float; null and a number that is not finite become nan.

    Raises:
        TypeError: If ``value`` is neither a number nor null.

    Example:
        >>> as_float(2), as_float(None)
        (2.0, nan)
    """
    if type(value) is float:  # first, because most values are floats and a comparison reads a thousand files
        return value if math.isfinite(value) else math.nan
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"a metric in a run's file must be a number or null, got {short_repr(value)}")
    try:
        number = float(value)
    except OverflowError:  # an integer of more than 308 digits
        return math.nan
    return number if math.isfinite(number) else math.nan
