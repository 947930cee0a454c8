"""Ctrl-C and SIGTERM as a wish that a loop can look at, so that a run ends between two steps and keeps everything."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Killed(SystemExit):
    """A run was asked to end. Not an Exception: code that catches errors to go on must not catch this.

    Left uncaught it ends the process quietly, with the exit status that a shell gives for SIGTERM.

    Args:
        reason: What to say of it.
    """

    def __init__(self, reason: str = "asked to stop") -> None:
        super().__init__(128 + signal.SIGTERM)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class StopSignal:
    """Remember the first Ctrl-C or SIGTERM inside a ``with`` block; a second one interrupts at once.

    Outside the main thread, where Python allows no handlers, it does nothing but stay unset.

    Example:
        >>> with StopSignal() as stop:
        ...     stop.requested
        False
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.requested:
            raise Killed(f"{signal.Signals(number).name} twice")
        self.requested = True
