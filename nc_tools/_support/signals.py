"""Ctrl-C and SIGTERM as a flag or as an exception, so that a run ends between two steps with everything saved."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

# Terminals signal a whole group of processes, and some wrappers signal twice: repeats within this time count as one.
REPEAT_SECONDS = 1.0


class Killed(SystemExit):
    """Raised when a signal ends a run. Not an Exception, so that code that goes on after errors does not catch it.

    If nothing catches it, the process ends without a traceback, with the exit status that a shell gives for SIGTERM.

    Args:
        reason: Text of the exception.
    """

    def __init__(self, reason: str = "stopped by a signal") -> None:
        super().__init__(128 + signal.SIGTERM)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class StopSignal:
    """Set a flag at the first Ctrl-C or SIGTERM inside a ``with`` block; raise ``Killed`` at a later second one.

    Outside the main thread Python allows no signal handlers: there the flag is never set.

    Args:
        signals: The signals to handle.
        patience: Seconds within which a further signal counts as a repeat of the first; with ``math.inf`` no signal
            ever raises.

    Example:
        >>> with StopSignal() as stop:
        ...     stop.requested
        False
    """

    def __init__(
        self, *, signals: Sequence[int] = (signal.SIGINT, signal.SIGTERM), patience: float = REPEAT_SECONDS
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
            raise Killed(f"stopped by a second {signal.Signals(number).name}")


@contextmanager
def killed_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM into a ``Killed`` exception within the block, so that ``finally`` and ``with`` still run.

    Schedulers end jobs with SIGTERM, and by default Python then stops at once and writes nothing. A handler that the
    user has set stays in place. In threads, where Python allows no handlers, this does nothing.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def raise_killed(_number: int, _frame: FrameType | None) -> None:
        raise Killed

    signal.signal(signal.SIGTERM, raise_killed)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
