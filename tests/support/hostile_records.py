"""Damaged and hostile variants of an output folder, and the readers that must survive them."""

from __future__ import annotations

import copy
import io
import json
import os
import shutil
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

RECORDS = Path(__file__).parents[1] / "data" / "records_0_1"
RUN = "runs/etf-s0-d0-final-896f0939"
JSON_FILES = ("experiment.json", "tuning.json", *(f"{RUN}/{n}.json" for n in ("run", "status", "final", "per_class")))
PROGRAM = "run.json names a program"
FILES = (*JSON_FILES, f"{RUN}/metrics.jsonl", f"{RUN}/predictions.safetensors", f"{RUN}/weights.safetensors")


@dataclass(frozen=True)
class Hostile:
    """A way to damage an output folder.

    Attributes:
        name: What is wrong.
        file: The damaged file, relative to the folder.
        damage: Does it to the file at a path.
        unreadable: Whether nobody could use the file, so that it must be named.
    """

    name: str
    file: str
    damage: Callable[[Path], None]
    unreadable: bool = True

    def make(self, root: Path) -> Path:
        """Write the damaged folder, and return it."""
        shutil.copytree(RECORDS, root)
        self.damage(root / self.file)
        return root


def hostile_records() -> list[Hostile]:
    """Return all variants: every file replaced by something else, and every value by one of a wrong type."""
    return [*_replaced_files(), *_replaced_values(), *_tensors(), *_lines(), *_programs()]


def _write(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _huge(path: Path) -> None:
    os.truncate(path, 2**34)  # without a byte on the disk


def _folder(path: Path) -> None:
    path.unlink()
    (path / "inside").mkdir(parents=True)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _link(target: str | None) -> Callable[[Path], None]:
    def link(path: Path) -> None:
        path.unlink()
        path.symlink_to(path.name if target is None else target)

    return link


_REPLACEMENTS: dict[str, Callable[[Path], None]] = {
    "empty": _write(b""),
    "half": _half,
    "zeros": _write(bytes(1000)),
    "of 16 GiB": _huge,
    "a folder": _folder,
    "a pipe": _pipe,
    "an endless device": _link("/dev/zero"),
    "a link to itself": _link(None),
    "a link to nowhere": _link("nowhere"),
    "other bytes": _write(b"\x93NUMPY\x01\x00" + bytes(range(256)) * 4),
}
_JSON_TEXTS = {
    "not UTF-8": b'{"arm": "\xff\xfe"}',
    "in UTF-16": '{"arm": "etf"}'.encode("utf-16"),
    "nested 100,000 deep": b"[" * 100_000 + b"]" * 100_000,
    "nested 900 deep": b'{"a":' * 900 + b"1" + b"}" * 900,
    "a list": b'["arm", "seed"]',
    "a number": b"5",
    "a text": b'"etf"',
    "NaN": b"NaN",
    "a number of 5,000 digits": b'{"seed": ' + b"9" * 5000 + b"}",
    "half of a surrogate pair": b'{"arm": "\\ud800", "seed": 0, "kind": "final"}',
    "two objects": b"{}\n{}\n",
}


def _replaced_files() -> Iterator[Hostile]:
    for file in FILES:
        for name, damage in _REPLACEMENTS.items():
            # A link to nowhere is no file, and a line of metrics without its end is not written yet.
            cut = file.endswith("metrics.jsonl") and name in ("empty", "half", "zeros")
            yield Hostile(f"{Path(file).name} is {name}", file, damage, unreadable=not cut and "nowhere" not in name)
    for file in JSON_FILES:
        for name, content in _JSON_TEXTS.items():
            yield Hostile(f"{Path(file).name} is {name}", file, _write(content))


_VALUES: tuple[Any, ...] = (
    None, 5, -(10**30), 1e30, True, "x", "\x1b]0;t\x07", [], {}, [[1]], {"a": {"b": 1}}, ["x"] * 3, float("nan"),
)  # fmt: skip


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _paths(item, (*path, key))
    elif isinstance(value, list) and value:
        yield from _paths(value[0], (*path, 0))


def _replaced_values() -> Iterator[Hostile]:
    for file in JSON_FILES:
        whole = json.loads((RECORDS / file).read_text())
        paths = [path for path in _paths(whole) if Path(file).name != "final.json" or len(path) == 1]
        for number, path in enumerate(paths):
            # Each place gets some of the values, so that all values and all places occur.
            for value in (_VALUES[(3 * number + i) % len(_VALUES)] for i in range(3)):
                changed = copy.deepcopy(whole)
                place = changed
                for key in path[:-1]:
                    place = place[key]
                place[path[-1]] = value
                name = f"{Path(file).name}: {'.'.join(map(str, path))} is {value!r}"
                yield Hostile(name, file, _write(json.dumps(changed).encode()), unreadable=False)
        for key in whole:
            changed = {k: v for k, v in whole.items() if k != key}
            name = f"{Path(file).name} lacks {key}"
            yield Hostile(name, file, _write(json.dumps(changed).encode()), unreadable=False)


def _header(text: bytes, data: bytes = b"", length: int | None = None) -> Callable[[Path], None]:
    return _write(struct.pack("<Q", len(text) if length is None else length) + text + data)


def _tensor_file(**changes: Any) -> Callable[[Path], None]:
    """Change some tensors of a safetensors file; None removes one, a function gets the old one."""

    def change(path: Path) -> None:
        tensors = load_file(path)
        for name, new in changes.items():
            old = tensors.pop(name, None)
            if new is not None:
                tensors[name] = new(old) if callable(new) else new
        save_file(tensors, path)

    return change


def _bfloat16(path: Path) -> None:
    import torch
    from safetensors.torch import load_file as load
    from safetensors.torch import save_file as save

    tensors = load(path)
    save({n: t.to(torch.bfloat16) if n == "test_logits" else t for n, t in tensors.items()}, path)


def _tensors() -> Iterator[Hostile]:
    declared = json.dumps({"test_logits": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4]}}).encode()
    overlapping = json.dumps(
        {name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in ("test_logits", "test_labels")}
    ).encode()
    headers = {
        "has a header of 2^63 bytes": _header(b"{}", length=2**63),
        "has a header beyond its end": _header(b"{}", length=10_000),
        "has a header that is no JSON": _header(b"not json at all"),
        "has a nested header": _header(b'{"a":' * 900 + b"1" + b"}" * 900),
        "has a list as header": _header(b"[1]"),
        "declares 10^18 numbers": _header(declared, bytes(4)),
        "has overlapping tensors": _header(overlapping, bytes(4)),
        "has no tensors": _header(b"{}"),
        "has an unknown dtype": _header(
            b'{"test_logits": {"dtype": "F7", "shape": [1], "data_offsets": [0, 4]}}', bytes(4)
        ),
    }
    for file in FILES[-2:]:
        for name, damage in headers.items():
            yield Hostile(f"{Path(file).name} {name}", file, damage)
    file = FILES[-2]
    for name, damage in {
        "has bf16 logits": _bfloat16,
        "has no labels": _tensor_file(test_labels=None),
        "has logits (N,)": _tensor_file(test_logits=lambda old: old[:, 0].copy()),
        "has logits (N, 0)": _tensor_file(test_logits=lambda old: old[:, :0].copy()),
        "has logits of whole numbers": _tensor_file(test_logits=lambda old: old.astype(np.int64)),
        "has labels (N, 1)": _tensor_file(test_labels=lambda old: old[:, None].copy()),
        "has labels that are no whole numbers": _tensor_file(test_labels=lambda old: old.astype(np.float32)),
        "has a single label": _tensor_file(test_labels=np.array(1)),
        "has more labels": _tensor_file(test_labels=lambda old: np.concatenate([old, old])),
        "has NaN logits": _tensor_file(test_logits=lambda old: old * np.float32("nan")),
        "has no temperature value": _tensor_file(temperature=np.zeros((0,), np.float32)),
        "has a negative temperature": _tensor_file(temperature=np.full((1,), -1, np.float32)),
        "has a temperature of NaN": _tensor_file(temperature=np.full((1,), np.nan, np.float32)),
    }.items():
        yield Hostile(f"{Path(file).name} {name}", file, damage)
    file = FILES[-1]
    for name, change in {
        "lacks a tensor": {"head.projection": None, "backbone.layers.0.weight": None},
        "has a larger tensor": {"extra": np.zeros(10**6, np.float32)},
        "has a foreign tensor": {"extra": np.zeros(3, np.float32)},
        "has another shape": {"backbone.layers.0.weight": lambda old: old[:1].copy()},
        "has a frame of zeros": {"head.frame": lambda old: 0 * old},
        "has a frame of NaN": {"head.frame": lambda old: old * np.float32("nan")},
    }.items():
        yield Hostile(f"{Path(file).name} {name}", file, _tensor_file(**change))


def _lines() -> Iterator[Hostile]:
    good = b'{"step": 1, "time_ms": 1, "values": {"train/loss": 1.0}}\n'
    for name, line in {
        "no JSON": b"nonsense",
        "empty": b"",
        "not UTF-8": b'{"step": 2, "values": {"\xff": 1}}',
        "nested 100,000 deep": b"[" * 100_000,
        "a list": b"[1, 2]",
        "without values": b'{"step": 2, "time_ms": 1}',
        "with a text as value": b'{"step": 2, "time_ms": 1, "values": {"a": "high"}}',
        "with a list of values": b'{"step": 2, "time_ms": 1, "values": [1]}',
        "with a step of 400 digits": b'{"step": ' + b"9" * 400 + b', "time_ms": 1, "values": {}}',
        "with a step of NaN": b'{"step": NaN, "time_ms": 1, "values": {}}',
        "with a step of true": b'{"step": true, "time_ms": 1, "values": {}}',
        "with a time in words": b'{"step": 2, "time_ms": "noon", "values": {}}',
        "of 20 MB": b"x" * 20_000_000,
    }.items():
        yield Hostile(f"a line of metrics.jsonl is {name}", FILES[-3], _write(good + line + b"\n" + good))


def _programs() -> Iterator[Hostile]:
    """Records that name a program where a class or a value of nc_tools belongs; the program would make a file."""
    whole = json.loads((RECORDS / RUN / "run.json").read_text())
    places = [path for path in _paths({"config": whole["config"], "data": whole["data"]}) if len(path) < 4]
    for path in dict.fromkeys([*places, ("config", "training", "mixing"), ("config", "second_stage")]):
        name = f"{PROGRAM} at {'.'.join(map(str, path))}"
        yield Hostile(name, f"{RUN}/run.json", _program_at(path), unreadable=False)


def _program_at(path: tuple[Any, ...]) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        values = json.loads(file.read_text())
        place = values
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = {"dataclass": "subprocess.Popen", "args": ["touch", str(marker(file.parents[2]))]}
        file.write_text(json.dumps(values))

    return damage


def marker(root: Path) -> Path:
    """The file that exists if a program of a hostile record ran."""
    return root.with_name(f"{root.name}-ran")


def read_trained_model(root: Path) -> object:
    from nc_tools.experiment import load_run

    return load_run(root / RUN)


def read_comparison(root: Path) -> object:
    from rich.console import Console

    from nc_tools.comparison import compare, render_terminal

    comparison = compare(root, out=root / "report")
    render_terminal(comparison, Console(file=io.StringIO(), width=120))
    return " ".join([*map(str, comparison.cautions), *comparison.notes, *(n for r in comparison.runs for n in r.notes)])


def read_for_sync(root: Path) -> object:
    """Read what the upload to MLflow reads."""
    from nc_tools.run_records import mark_killed, read_run, scan
    from nc_tools.tracking.run_items import comparison_item, run_item

    mark_killed(root)
    scanned = scan(root)
    for run in scanned.runs:
        run_item(run).metrics(0)
    comparison_item(root)
    read_run(root / RUN).curves()
    return " ".join(scanned.broken.values())


def read_by_command(root: Path) -> object:
    """Run nc-tools measure, and raise what it prints as an error."""
    from nc_tools import cli

    shown, errors = io.StringIO(), io.StringIO()
    arguments = ["measure", "--model", str(root / RUN), "--layers", "none", "--out", str(root / "measured")]
    with redirect_stdout(shown), redirect_stderr(errors):
        try:
            cli.main(arguments)
        except SystemExit as error:
            if error.code != 2:
                raise
            raise ValueError(errors.getvalue().removeprefix("error: ").rstrip("\n")) from None
    return shown.getvalue()


READERS: dict[str, Callable[[Path], object]] = {
    "load_run": read_trained_model,
    "compare": read_comparison,
    "sync": read_for_sync,
    "measure": read_by_command,
}
# The files that a reader does not open.
NOT_READ = {
    "load_run": ("experiment.json", "tuning.json", "status.json", "final.json", "per_class.json", "metrics.jsonl",
                 "predictions.safetensors"),
    "compare": ("weights.safetensors",),
    "sync": ("experiment.json", "tuning.json", "per_class.json", "predictions.safetensors", "weights.safetensors"),
}  # fmt: skip
NOT_READ["measure"] = NOT_READ["load_run"]


@dataclass(frozen=True)
class Outcome:
    """What a reader did: it refused a folder with a message, or read it, perhaps with words about what is damaged."""

    refused: bool
    text: str


def outcome(reader: str, root: Path, *, seconds: int = 30) -> Outcome:
    """Read a folder.

    Raises:
        AssertionError: If an error is none that a command shows as a sentence, or reading takes too long.
    """
    with _limit(seconds, reader):
        try:
            return Outcome(False, str(READERS[reader](root)))
        except UnicodeError as error:  # a ValueError, but none that says what to do
            raise AssertionError(error) from error
        except (ValueError, OSError) as error:
            message = str(error)
    assert len(message.splitlines()) == 1, message
    assert len(message) < 1200, message
    assert message.isprintable(), message
    return Outcome(True, message)


@contextmanager
def _limit(seconds: int, what: str) -> Iterator[None]:
    def late(*_: object) -> None:
        raise AssertionError(f"{what} takes more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
