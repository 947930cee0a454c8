"""Read metrics.jsonl, the file to which a run appends one line of metrics per step."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nc_tools._support.damaged_file import DamagedFileError
from nc_tools._support.regular_file import open_regular
from nc_tools._support.short_repr import short_repr
from nc_tools.run_records.json_files import as_float

MAX_METRICS_BYTES = 2**30
"""Largest metrics file that is read: a million lines of a thousand bytes."""
MAX_LINE_BYTES = 2**24
"""Longest line that is read, in bytes: some 300,000 metrics."""


@dataclass(frozen=True)
class MetricLines:
    """Lines of metrics.jsonl, read from a given byte on.

    Attributes:
        lines: Each valid line as a dictionary: ``step``; ``values``, key to number; ``time_ms``, 0 if it was not
            written; ``system``, memory and processor use of the process, empty in most lines.
        damaged: Line number to reason, for each complete line that is not valid; 1 is the first line that was read.
        end: Offset in bytes after the last complete line, valid or not.
    """

    lines: list[dict[str, Any]]
    damaged: dict[int, str]
    end: int


def read_metrics(path: Path, start: int = 0) -> MetricLines:
    """Read the complete lines of a metrics file from byte ``start`` on; no lines if the file does not exist.

    A process that is killed while it writes leaves a line without its end. That line is neither returned nor reported
    as damaged. Its bytes lie beyond ``end``, so a reader that follows a running process gets it when it is complete.

    Raises:
        OSError: If the file exists and cannot be read.
        DamagedFileError: If it is not a regular file, larger than ``MAX_METRICS_BYTES``, or has a line longer than
            ``MAX_LINE_BYTES``.
    """
    lines: list[dict[str, Any]] = []
    damaged: dict[int, str] = {}
    end = start
    try:
        file = open_regular(path, max_bytes=MAX_METRICS_BYTES)
    except FileNotFoundError:
        return MetricLines(lines, damaged, start)
    with file:
        file.seek(start)
        for number, text in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES), b""), start=1):
            if len(text) == MAX_LINE_BYTES:
                raise DamagedFileError(
                    f"{path} is damaged: a line has more than {MAX_LINE_BYTES:,} bytes. Make that run again"
                )
            if not text.endswith(b"\n"):
                break
            end += len(text)
            try:
                lines.append(_metric_line(text))
            except (ValueError, RecursionError) as error:
                damaged[number] = str(error)
    return MetricLines(lines, damaged, end)


def read_valid_metrics(path: Path, start: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Read the complete lines of a metrics file from byte ``start`` on; raise an error if one is damaged.

    Returns:
        The lines, as in :class:`MetricLines`, and the offset in bytes after the last complete one.

    Raises:
        DamagedFileError: If a complete line is not valid.
    """
    metrics = read_metrics(path, start)
    for number, reason in metrics.damaged.items():
        raise DamagedFileError(f"{path} is damaged in line {number} after byte {start}: {reason}. Make that run again")
    return metrics.lines, metrics.end


def _metric_line(text: bytes) -> dict[str, Any]:
    """Parse one line of a metrics file; raise a ValueError if it does not hold a step and numbers."""
    line = json.loads(text.decode("utf-8"))
    try:
        step, time_ms = line["step"], line.get("time_ms")
        # Exact types, which a bool is not: a thousand runs have tens of thousands of lines.
        if type(step) is not int or abs(step) >= 2**63 or not (time_ms is None or type(time_ms) is int):
            raise TypeError(f"step and time_ms must be whole numbers, got {short_repr(step)} and {short_repr(time_ms)}")
        values = {str(key): as_float(value) for key, value in line["values"].items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"it must hold a step and its values ({type(error).__name__}: {error})") from error
    usage = line.get("system")
    system = usage if isinstance(usage, dict) else {}
    return {"step": step, "values": values, "time_ms": time_ms or 0, "system": system}


def curves_of(lines: Iterable[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Return the curve of each metric key, [(step, value), ...] sorted by step; the last value of a step counts."""
    curves: dict[str, dict[int, float]] = {}
    for line in lines:
        for key, value in line["values"].items():
            curves.setdefault(key, {})[line["step"]] = value
    return {key: sorted(points.items()) for key, points in curves.items()}


def append_line(path: Path, line: bytes) -> None:
    """Append a line to a metrics file, as a whole or not at all.

    Raises:
        OSError: If it cannot be written. On a full disk the part that was written is removed again.
    """
    # Opening it each time costs 20 microseconds and leaves no file open when a run is abandoned.
    with path.open("ab", buffering=0) as file:
        start = file.tell()
        try:
            # The system may write only the part that fits on the disk or below a size limit. The next call then raises
            # the error.
            done = 0
            while done < len(line):
                done += file.write(line[done:])
        except BaseException:  # also Ctrl-C
            file.truncate(start)
            raise


def truncate_after_step(path: Path, step: int) -> int:
    """Cut off a metrics file at its first line that is beyond ``step`` or half-written; return the new size."""
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
    """Return the step of one line of a metrics file; inf for an invalid line, so that it is cut off."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return math.inf
