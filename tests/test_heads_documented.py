"""docs/heads.md has every head of the package."""

import inspect
import re
from pathlib import Path

import pytest
from support.package_heads import head_classes

import nc_tools.heads

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize("cls", head_classes(), ids=lambda cls: cls.__name__)
def test_every_head_of_the_package_is_exported(cls: type) -> None:
    if cls.__name__ not in nc_tools.heads.__all__:
        pytest.fail(f"heads.{cls.__name__} is not exported: add it to nc_tools/heads/__init__.py", pytrace=False)


@pytest.mark.parametrize("cls", head_classes(), ids=lambda cls: cls.__name__)
def test_every_head_has_a_row_in_the_table_of_heads(cls: type) -> None:
    if cls.__name__ not in _table_of_heads():
        pytest.fail(f"{cls.__name__} has no row in docs/heads.md: add one to the table of heads", pytrace=False)


def test_the_table_of_heads_names_no_other_class() -> None:
    exported = {name for name, value in vars(nc_tools.heads).items() if inspect.isclass(value)}
    assert _table_of_heads() - exported == set()


def _table_of_heads() -> set[str]:
    text = (DOCS / "heads.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|.*\|$", text, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+Head)`", row)}
