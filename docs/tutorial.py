"""Run the blocks of docs/tutorial.md, write docs/tutorial.ipynb with their outputs, and renew the outputs on the page.

    python docs/tutorial.py                       downloads the pretrained weights
    python docs/tutorial.py --weights FILE        without a network: the weights of the same model in a file

The page is the only source: its text becomes the text cells, its ``python`` and ``bash`` blocks the code cells. A
``text`` block below a block shows its output; one that begins with "..." shows as many last lines as it has already.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_suffix(".md")
NOTEBOOK = Path(__file__).with_suffix(".ipynb")
_BLOCK = re.compile(r"^```(python|bash|text)\n(.*?)^```\n?", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Cell:
    """A part of the page.

    Attributes:
        kind: "prose", "python", "bash" or "text".
        source: Its text, without the fences of a block.
    """

    kind: str
    source: str


def cells_of(page: str) -> list[Cell]:
    """Return the parts of a page in order."""
    cells, at = [], 0
    for block in _BLOCK.finditer(page):
        cells += [Cell("prose", page[at : block.start()]), Cell(block[1], block[2])]
        at = block.end()
    return [cell for cell in (*cells, Cell("prose", page[at:])) if cell.source or cell.kind != "prose"]


def page_of(cells: list[Cell]) -> str:
    """Return the page of its parts."""
    return "".join(cell.source if cell.kind == "prose" else f"```{cell.kind}\n{cell.source}```\n" for cell in cells)


def run_cells(cells: list[Cell], folder: Path, change: Callable[[str], str] = str) -> list[str]:
    """Run the code cells one after the other in a folder, as a reader would, and return their outputs.

    Args:
        cells: Of the page.
        folder: An empty one.
        change: What to run in place of a cell's source.

    Raises:
        RuntimeError: If a command fails.
    """
    names: dict[str, Any] = {"__name__": "tutorial"}
    outputs = []
    for cell in cells:
        if cell.kind == "python":
            printed = io.StringIO()
            with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
                exec(compile(change(cell.source), "tutorial", "exec"), names)  # noqa: S102
            outputs.append(printed.getvalue())
        elif cell.kind == "bash":
            outputs.append(_run_command(change(cell.source), folder))
    # The place of the folder, which is a new one each time, is written as a reader's could be.
    return [output.replace(str(folder.resolve()), "/home/me").replace(str(folder), "/home/me") for output in outputs]


def _run_command(source: str, folder: Path) -> str:
    home = PAGE.parents[1]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(home), "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run(
        ["bash", "-ec", source], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{source}\n{done.stdout}\n{done.stderr}")
    # Progress lines, which start with the seconds, are for the moment.
    return "".join(line for line in done.stdout.splitlines(keepends=True) if not re.match(r"\[ *\d+\.\d s\]", line))


def with_outputs(cells: list[Cell], outputs: list[str]) -> list[Cell]:
    """Return the parts of the page with these outputs in the text blocks."""
    renewed, last, remaining = [], "", iter(outputs)
    for cell in cells:
        if cell.kind in ("python", "bash"):
            last = next(remaining)
        renewed.append(Cell("text", shown(last, cell.source)) if cell.kind == "text" else cell)
    return renewed


def shown(output: str, before: str) -> str:
    """Return what a text block shows of an output: all, or the last lines if it begins with "..."."""
    if not before.startswith("...\n"):
        return output
    return "...\n" + "".join(output.splitlines(keepends=True)[-(before.count("\n") - 1) :])


def notebook_of(cells: list[Cell], outputs: list[str]) -> dict[str, Any]:
    """Return the notebook, in format 4.5, of the parts of the page and the outputs of its code."""
    remaining, made = iter(outputs), []
    for number, cell in enumerate(cells):
        common = {"id": f"cell-{number}", "metadata": {}}
        if cell.kind == "prose" and cell.source.strip():
            made.append({"cell_type": "markdown", **common, "source": _lines(cell.source.strip())})
        elif cell.kind in ("python", "bash"):
            source, output = cell_source(cell), next(remaining)
            streams = [{"output_type": "stream", "name": "stdout", "text": _lines(output)}] if output else []
            count = sum(other["cell_type"] == "code" for other in made) + 1
            code: Mapping[str, Any] = {"execution_count": count, "source": _lines(source), "outputs": streams}
            made.append({"cell_type": "code", **common, **code})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def cell_source(cell: Cell) -> str:
    """Return the source of a code cell in the notebook."""
    return ("%%bash\n" if cell.kind == "bash" else "") + cell.source.rstrip()


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--weights", type=Path, help="file to use in place of the download")
    weights = parser.parse_args().weights
    cells = cells_of(PAGE.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        change: Callable[[str], str] = str
        if weights is not None:
            (Path(folder) / weights.name).symlink_to(weights.resolve())
            change = functools.partial(re.sub, "--weights pretrained", f"--weights {weights.name}")
        outputs = run_cells(cells, Path(folder), change)
    PAGE.write_text(page_of(with_outputs(cells, outputs)), encoding="utf-8")
    NOTEBOOK.write_text(json.dumps(notebook_of(cells, outputs), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
