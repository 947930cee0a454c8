"""The documentation site builds without a warning, and has every public name."""

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
pytest.importorskip("sphinx", reason="the site needs the extra docs")


def settings():
    spec = importlib.util.spec_from_file_location("conf", DOCS / "conf.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_guide_is_in_a_list_of_pages():
    listed = {line for page in ("index", "guides") for line in (DOCS / f"{page}.md").read_text().splitlines()}
    assert {path.stem for path in DOCS.glob("*.md")} - {"index"} <= listed


def test_formulas_are_marked_and_sections_are_left_alone():
    lines = ["Headline with |x|.", "", "Where", "", "    f = |a|", "", "Args:", "    x: An ``a | b``.", "", "    more"]
    settings().mark_formulas(None, "function", "f", None, None, lines)
    assert lines == [
        *("Headline with \\|x\\|.", "", "Where", "", "::", "", "    f = |a|", ""),
        *("Args:", "    x: An ``a | b``.", "", "    more"),
    ]


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_names_everything(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(DOCS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    site = settings()
    for family in site.FAMILIES:
        page = (tmp_path / "api" / f"{family}.html").read_text()
        package = f"nc_tools.{family}"
        names = site.public_names(importlib.import_module(package))
        assert names
        assert all(site.constants(importlib.import_module(package)).values())
        missing = [name for name in names if f'id="{package}.{name}"' not in page]
        assert not missing
    heads = (tmp_path / "heads.html").read_text()
    assert "benchmarks/results" in heads
    assert 'href="../' not in heads
