"""Ctrl-C and SIGTERM as a wish that a loop can look at, so that a run ends between two steps and keeps everything."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

# A terminal signals a whole group of processes and some wrappers signal twice: that is one wish, told twice.
SAME_WISH_SECONDS = 1.0


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
    """Remember the first Ctrl-C or SIGTERM inside a ``with`` block; a later second one interrupts at once.

    Outside the main thread, where Python allows no handlers, it does nothing but stay unset.

    Args:
        signals: Which signals to hear.
        patience: Seconds within which a further signal repeats the same wish; ``math.inf`` never interrupts.

    Example:
        >>> with StopSignal() as stop:
        ...     stop.requested
        False
    """

    def __init__(
        self, *, signals: Sequence[int] = (signal.SIGINT, signal.SIGTERM), patience: float = SAME_WISH_SECONDS
    ) -> None:
        self.requested = False
        self._signals = tuple(signals)
        self._patience = patience
        self._first = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in self._signals:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if not self.requested:
            self.requested, self._first = True, time.monotonic()
        elif time.monotonic() - self._first > self._patience:
            raise Killed(f"{signal.Signals(number).name} twice")
