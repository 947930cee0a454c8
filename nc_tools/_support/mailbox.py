"""Where tasks on other machines leave messages, and learn that they are to stop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Mailbox:
    """Messages of tasks for the process that started them. It is an actor of Ray, so calls come one at a time.

    Its process starts at once, because nothing heavy is imported: messages are strings and tuples.
    """

    def __init__(self) -> None:
        self._messages: list[Any] = []
        self._begun: set[str] = set()
        self._stopped = False

    def begin(self, task: str, again: str) -> bool:
        """Note that a task begins; return whether it is to stop at once.

        Args:
            task: Its name.
            again: The message to leave if it began before, on a machine that was lost since.
        """
        if task in self._begun:
            self._messages.append(again)
        self._begun.add(task)
        return self._stopped

    def leave(self, messages: Sequence[Any]) -> bool:
        """Leave messages of a task for the process that started it; return whether the task is to stop."""
        self._messages += messages
        return self._stopped

    def collect(self) -> list[Any]:
        """Return the messages that were left since the last call."""
        messages, self._messages = self._messages, []
        return messages

    def stop(self) -> set[str]:
        """Tell every task to stop at its next message; return the names of those that have begun."""
        self._stopped = True
        return self._begun
