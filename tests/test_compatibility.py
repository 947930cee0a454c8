"""docs/compatibility.md says what these tests find, for every head and every way to save, wrap, trace and shard it."""

import re
from pathlib import Path

import pytest
from support import compatibility
from support.compatibility import CLASSES, PAGE, REFUSED, TITLES, WORKS, Cells, page

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of the libraries, about what they will change


def written() -> Cells:
    """Return the cells of the page."""
    cells: Cells = {}
    for table in re.findall(r"((?:^\|.*\|\n)+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE):
        head, _, *rows = [[part.strip() for part in line.strip("|").split("|")] for line in table.splitlines()]
        for row in rows:
            for way, value in zip(head[1:], row[1:], strict=True):
                cells.setdefault(way, {})[row[0].strip("`")] = value
    return cells


def check(tried: Cells) -> None:
    """Compare what was tried with the page; a way whose package is absent was not tried."""
    on_page = written()
    for way, cells in tried.items():
        assert on_page[way] == cells, f"{way}: write the page again, PYTHONPATH=.:tests python -m support.compatibility"


def test_the_page_has_a_cell_for_every_head_and_way() -> None:
    cells = written()
    assert list(cells) == [way for ways in TITLES.values() for way in ways]
    for way, of_heads in cells.items():
        assert list(of_heads) == [cls.__name__ for cls in CLASSES], way
        assert set(of_heads.values()) <= {WORKS, REFUSED, "-"}, way
    assert page(cells) == PAGE.read_text(encoding="utf-8")


def test_saved_and_loaded_in_another_process(tmp_path: Path) -> None:
    check(compatibility.saved(tmp_path))


def test_wrapped_and_traced() -> None:
    tried = compatibility.wrapped_cells()
    check(tried)
    if "torchao int8 weights" not in tried:
        pytest.skip("torchao is not installed: its column was not tried")


def test_distributed(tmp_path: Path) -> None:
    check(compatibility.sharded(tmp_path))
