"""Reading and writing the small files of a run so that no reader and no crash ever meets half of one."""

import json
import math
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_json(path: Path, value: object) -> None:
    """Write ``value`` as JSON in one step: a reader sees the old file or the new one, never a part.

    Numbers that JSON has no word for (nan, inf) become null, at any depth.
    """
    # Not from tempfile, whose files are for their owner only: a record is for whoever may read the folder.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            json.dump(finite_or_null(value), file, indent=1, allow_nan=False)
            file.write("\n")
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object.

    Raises:
        ValueError: If the file holds anything else.
        FileNotFoundError: If there is no such file.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must hold JSON, but it does not parse: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value


def finite_or_null(value: object) -> object:
    """Replace what is not a finite number by None, at any depth; tuples become lists, paths strings.

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
    """NumPy and torch scalars and arrays know ``tolist``; everything else is told by its text."""
    tolist = getattr(value, "tolist", None)
    if callable(tolist):
        return finite_or_null(tolist())
    return str(value)


def as_number(key: str, value: object) -> float | None:
    """Return a metric's value as a float, None where it is not finite.

    Raises:
        TypeError: If ``value`` is not one number.
    """
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"the value of {key!r} must be one number, got {type(value).__name__}; "
            "log each number under a key of its own"
        ) from error
    return number if math.isfinite(number) else None


def read_lines(path: Path, start: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Read the JSON lines from byte ``start`` on; return them and the offset after the last complete one.

    A process that is killed while it writes leaves a line without its end. That line is not read; its bytes
    stay beyond the returned offset, so that a reader that follows a living run gets it once it is complete.

    Raises:
        ValueError: If a complete line is not JSON.
    """
    try:
        with path.open("rb") as file:
            file.seek(start)
            data = file.read()
    except FileNotFoundError:
        return [], start
    complete = data[: data.rfind(b"\n") + 1]
    lines = []
    for number, line in enumerate(complete.splitlines(), start=1):
        try:
            lines.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"line {number} after byte {start} of {path} is not JSON: {error}") from error
    return lines, start + len(complete)


def truncate_after_step(path: Path, step: int) -> int:
    """Cut a metrics file at its first line beyond ``step`` (and a half-written end); return its size."""
    if not path.exists():
        return 0
    keep = 0
    with path.open("r+b") as file:
        for line in file:
            if not line.endswith(b"\n") or _step_of(line) > step:
                break
            keep += len(line)
        file.truncate(keep)
    return keep


def _step_of(line: bytes) -> float:
    """Return the step of one line; one that does not parse counts as beyond every step, so it is cut."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
