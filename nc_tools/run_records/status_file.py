"""Read and write status.json, which says whether a run is running or how it ended."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nc_tools._support.damaged_file import DamagedFileError
from nc_tools._support.disk_full import is_disk_full
from nc_tools._support.short_repr import short_repr
from nc_tools.run_records.json_files import finite_or_null, read_json, write_json
from nc_tools.run_records.liveness import ProcessStart
from nc_tools.type_check import hint_text, matches

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

_HINTS: dict[str, Any] = {
    "status": Status,
    "started_ms": int,
    "pid": int,
    "host": str,
    "ended_ms": int | None,
    "error": str | None,
    "pid_started": float | None,
    "pid_since_boot": float | None,
    "boot_id": str | None,
    "resumed_bytes": list[int] | None,
}


@dataclass(frozen=True)
class RunStatus:
    """The contents of status.json.

    Attributes:
        status: RUNNING, FINISHED, FAILED or KILLED.
        started_ms: Start, in milliseconds since the epoch.
        pid: Number of the process that writes or wrote the run.
        host: Machine of that process.
        process: Start of that process; None if unknown.
        ended_ms: End, in milliseconds since the epoch; None while it runs.
        error: One line that says why it failed or was killed.
        resumed_bytes: Size to which metrics.jsonl was truncated at each resumption, in order.
    """

    status: Status
    started_ms: int
    pid: int
    host: str
    process: ProcessStart | None = None
    ended_ms: int | None = None
    error: str | None = None
    resumed_bytes: tuple[int, ...] = ()

    @classmethod
    def read(cls, run: Path) -> RunStatus:
        """Read the status.json of a run's folder.

        Raises:
            FileNotFoundError: If there is no such file.
            DamagedFileError: If it is damaged; the message names it.
        """
        file = run / "status.json"
        values = read_json(file)
        for key, hint in _HINTS.items():
            if not matches(values.get(key), hint):
                given = short_repr(values[key]) if key in values else "nothing"
                raise DamagedFileError(f"{key} in {file} must be {hint_text(hint)}, got {given}")
        started = values.get("pid_started")
        return cls(
            status=values["status"],
            started_ms=values["started_ms"],
            pid=values["pid"],
            host=values["host"],
            process=None
            if started is None
            else ProcessStart(started, values.get("pid_since_boot"), values.get("boot_id")),
            ended_ms=values.get("ended_ms"),
            error=values.get("error"),
            resumed_bytes=tuple(values.get("resumed_bytes") or ()),
        )

    def write(self, run: Path) -> None:
        """Write status.json into a run's folder.

        On a full disk, where there is no room for a new file, the old one is overwritten in its place: a run that ends
        because the disk is full must not stay RUNNING.
        """
        values = {
            "status": self.status,
            "started_ms": self.started_ms,
            "ended_ms": self.ended_ms,
            "pid": self.pid,
            "pid_started": None if self.process is None else self.process.time,
            "pid_since_boot": None if self.process is None else self.process.since_boot,
            "boot_id": None if self.process is None else self.process.boot_id,
            "host": self.host,
            "error": self.error,
            "resumed_bytes": list(self.resumed_bytes),
        }
        file = run / "status.json"
        try:
            write_json(file, values)
        except OSError as error:
            if not is_disk_full(error) or not file.exists():
                raise
            with file.open("r+b") as old:
                old.write(json.dumps(finite_or_null(values), allow_nan=False).encode())
                old.truncate()
