"""The error messages of the package that name a way out, read from its source."""

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import nc_tools

_ROOT = Path(nc_tools.__file__).parent
_ERRORS = {"ValueError", "TypeError", "RuntimeError", "IndexError"}
# Advice in a message: a verb in the imperative after the statement of what is wrong.
_ADVICE = re.compile(
    r"(?:^|[:;.,] |\bor |\band )(add|build|call|choose|convert|correct|derive|export|flatten|give|increase|load|"
    r"measure|name|number|omit|pass|pool|put|raise|read|remove|replace|run|set|switch|train|try|use|watch|wrap|write)\b",
    re.IGNORECASE,
)


class Message:
    """One message in the source: where it is, and a pattern of the text that it gives."""

    def __init__(self, path: Path, node: ast.expr) -> None:
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        texts = [part.value if isinstance(part, ast.Constant) else None for part in parts]
        self.place = f"{path.relative_to(_ROOT)}:{node.lineno}"
        self.text = "".join("{}" if text is None else str(text) for text in texts)
        self.pattern = re.compile("".join(".*" if t is None else re.escape(str(t)) for t in texts), re.DOTALL)

    @property
    def has_advice(self) -> bool:
        return _ADVICE.search(self.text) is not None


def messages(*paths: str) -> Iterator[Message]:
    """Yield the messages of all errors that are built in some files or folders of the package."""
    for name in paths:
        path = _ROOT / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
                if called in _ERRORS and isinstance(node.args[0], ast.JoinedStr | ast.Constant):  # type: ignore[union-attr]
                    yield Message(file, node.args[0])  # type: ignore[union-attr]


class Case:
    """A mistake, a part of the message that it gives, and the ways out of it that the message names, as calls."""

    def __init__(self, says: str, wrong: Callable[[], Any], *follow: Callable[[], Any]) -> None:
        self.says, self.wrong, self.follow = says, wrong, follow

    def message(self) -> str:
        with pytest.raises((ValueError, TypeError, RuntimeError)) as error:
            self.wrong()
        return str(error.value)

    def check(self) -> None:
        """Check the message, and that what it advises works."""
        assert self.says in self.message()
        for way_out in self.follow:
            way_out()


def without_a_case(cases: Sequence[Case], *paths: str) -> list[str]:
    """Return the messages with advice of some files or folders that no case gives."""
    given = [case.message() for case in cases]
    return [
        f"{message.place}: {message.text}"
        for message in messages(*paths)
        if message.has_advice and not any(message.pattern.search(text) for text in given)
    ]
