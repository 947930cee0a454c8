"""Reading and writing the small files of a run so that no reader and no crash ever meets half of one."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nc_tools._support.atomic_write import atomic_write


def write_json(path: Path, value: object) -> None:
    """Write ``value`` as JSON in one step: a reader sees the old file or the new one, never a part.

    Numbers that JSON has no word for (nan, inf) become null, at any depth.
    """
    with atomic_write(path) as part, part.open("w", encoding="utf-8") as file:
        json.dump(finite_or_null(value), file, indent=1, allow_nan=False)
        file.write("\n")


def check_writable(folder: Path) -> None:
    """Make a folder and see that a file can be written there.

    Raises:
        OSError: If not; the message says which flag names another.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"the output folder {folder} cannot be written ({error.strerror}): choose another with --out"
        ) from error


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


def read_json_or_problem(path: Path) -> tuple[dict[str, Any], str]:
    """Read one JSON object; where that cannot be done, return an empty one and why, by the file's bare name."""
    try:
        return read_json(path), ""
    except FileNotFoundError:
        return {}, f"{path.name} is missing"
    except ValueError:
        return {}, f"{path.name} holds no JSON object"
    except OSError as error:
        return {}, f"{path.name} cannot be read ({type(error).__name__})"


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


def as_float(value: object) -> float:
    """Return a number as it was before it was written: null stands for one that is not finite.

    Raises:
        TypeError: If ``value`` is neither a number nor null.

    Example:
        >>> as_float(2), as_float(None)
        (2.0, nan)
    """
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"a value of a record must be a number or null, got {value!r}")
    return float(value)


@dataclass(frozen=True)
class MetricLines:
    """What metrics.jsonl holds from some byte on.

    Attributes:
        lines: Each line that can be read: ``step`` and ``values``, and ``time_ms`` where it was written.
        damaged: The reason, by the line's number, for each complete line that cannot be read.
        end: Offset after the last complete line, readable or not.
    """

    lines: list[dict[str, Any]]
    damaged: dict[int, str]
    end: int


def read_metrics(path: Path, start: int = 0) -> MetricLines:
    """Read the complete metric lines from byte ``start`` on; none if there is no such file.

    A process that is killed while it writes leaves a line without its end. That line is neither read nor
    damaged; its bytes stay beyond ``end``, so that a reader that follows a living run gets it once it is complete.

    Raises:
        OSError: If the file is there and cannot be read.
    """
    try:
        with path.open("rb") as file:
            file.seek(start)
            data = file.read()
    except FileNotFoundError:
        return MetricLines([], {}, start)
    complete = data[: data.rfind(b"\n") + 1]
    lines: list[dict[str, Any]] = []
    damaged: dict[int, str] = {}
    for number, text in enumerate(complete.splitlines(), start=1):
        try:
            lines.append(_metric_line(text))
        except ValueError as error:
            damaged[number] = str(error)
    return MetricLines(lines, damaged, start + len(complete))


def read_lines(path: Path, start: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Read the metric lines as ``read_metrics`` does, and refuse a file with a damaged one.

    Returns:
        The lines, and the offset after the last complete one.

    Raises:
        ValueError: If a complete line cannot be read.
    """
    found = read_metrics(path, start)
    for number, reason in found.damaged.items():
        raise ValueError(f"line {number} after byte {start} of {path} is no line of metrics: {reason}")
    return found.lines, found.end


def _metric_line(text: bytes) -> dict[str, Any]:
    """Parse one line; ValueError where it does not hold a step and its numbers."""
    line: dict[str, Any] = json.loads(text)
    try:
        int(line["step"])
        for value in line["values"].values():
            as_float(value)
    except (AttributeError, KeyError, OverflowError, TypeError) as error:
        raise ValueError(f"it must hold a step and values, and does not ({type(error).__name__}: {error})") from error
    return line


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
