"""Threads that decode image files, each with a process of its own for large sets.

Much of the work on a file is Python code, for small files most of it, and only one thread at a time runs Python code.
Processes do not wait for each other. Each belongs to one thread, which sends it the names of files and reads the pixels
into their place. A process is started when there is work for one more, and stays until this process ends.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import os
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np

from nc_tools._support.available_cores import available_cores
from nc_tools.decoding.request import DecodingReport, DecodingRequest
from nc_tools.decoding.serve import decode_here

MANY = 2000
"""Sets of at least this many files are decoded by processes; for fewer they do not pay back their start."""

_SOURCE = "import sys; sys.path.append(sys.argv[1]); from nc_tools.decoding.serve import serve; serve()"
_PACKAGE = Path(__file__).parents[2]


def by_processes(count: int) -> bool:
    """Return whether a set of so many files is decoded by processes."""
    return count >= MANY


@cache
def decoding_pool() -> ThreadPoolExecutor:
    """Return the threads in which this process decodes: as many as there is work for, at most one for each core."""
    return ThreadPoolExecutor(available_cores(), "decoding")


def decode_rows(request: DecodingRequest, rows: np.ndarray, *, in_process: bool) -> DecodingReport:
    """Decode files into the rows (B, C, side, side), uint8; called in a thread of the pool.

    Args:
        request: The files. Those that cannot be decoded leave a black row and are in the report.
        rows: Where the pixels go; contiguous.
        in_process: Decode in the process of this thread. The pixels are the same. If it has died, for lack of memory
            for example, this thread decodes, and a warning says so.
    """
    if in_process and (process := _own_process()) is not None:
        try:
            return process.decode(request, rows)
        except (OSError, ValueError) as error:
            _own.failed = True
            process.close()
            warnings.warn(
                f"a process that decodes images has ended ({error}): its images are decoded in the main process, which "
                "is slower",
                stacklevel=2,
            )
    return decode_here(request, rows)


class DecodingProcess:
    """A process that decodes files for the one thread that calls it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _SOURCE, os.fspath(_PACKAGE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the process that asked
        )
        self._streams = cast("tuple[io.BufferedWriter, io.BufferedReader]", (self._process.stdin, self._process.stdout))
        self.pid = self._process.pid

    def decode(self, request: DecodingRequest, rows: np.ndarray) -> DecodingReport:
        """Decode files into the rows (B, C, side, side), uint8.

        Raises:
            OSError: If the process has ended.
        """
        requests, answers = self._streams
        requests.write(json.dumps(asdict(request)).encode() + b"\n")
        requests.flush()
        line = answers.readline()
        if not line.endswith(b"\n"):
            raise OSError(f"exit status {self._process.wait()}")
        report = DecodingReport(**json.loads(line))
        missing = rows.data.cast("B")
        while missing:
            read = answers.readinto(missing)
            if not read:
                raise OSError(f"exit status {self._process.wait()}")
            missing = missing[read:]
        return report

    def close(self) -> None:
        """End the process."""
        for stream in self._streams:
            with contextlib.suppress(OSError):  # closing sends what is buffered, which fails if the process has ended
                stream.close()
        self._process.kill()
        self._process.wait()


class _Own(threading.local):
    process: DecodingProcess | None = None
    failed = False


_own = _Own()
_started: list[DecodingProcess] = []
_owner = [os.getpid()]


def _own_process() -> DecodingProcess | None:
    """Return the process of this thread; None if it cannot be started, or has failed before."""
    if _own.process is None and not _own.failed:
        try:
            _own.process = DecodingProcess()
        except OSError as error:
            _own.failed = True
            warnings.warn(f"a process that decodes images cannot be started ({error}): a thread decodes", stacklevel=3)
            return None
        _started.append(_own.process)
    return None if _own.failed else _own.process


@atexit.register
def _end_processes() -> None:
    if os.getpid() == _owner[0]:
        while _started:
            _started.pop().close()


def _leave_to_the_parent() -> None:
    """After a fork, let the child make a decoding pool of its own: the threads and processes belong to the parent."""
    decoding_pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_the_parent)
