"""The documentation site builds without a warning, has every public name, and opens in Chromium."""

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from support.browser import NEEDS_CHROMIUM, WIDTHS, browser, opened

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


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, and the process that has built it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(DOCS), str(folder)]
    return folder, subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_names_everything(site):
    folder, done = site
    assert (done.returncode, done.stderr) == (0, "")
    conf = settings()
    for family in conf.FAMILIES:
        page = (folder / "api" / f"{family}.html").read_text()
        package = f"nc_tools.{family}"
        names = conf.public_names(importlib.import_module(package))
        assert names
        assert all(conf.constants(importlib.import_module(package)).values())
        missing = [name for name in names if f'id="{package}.{name}"' not in page]
        assert not missing
    heads = (folder / "heads.html").read_text()
    assert "benchmarks/results" in heads
    assert 'href="../' not in heads


@pytest.mark.slow
@pytest.mark.browser
@NEEDS_CHROMIUM
def test_the_site_opens_without_errors_and_requests(site):
    folder, _ = site
    with browser() as chromium:
        for page in ("index.html", "tutorial.html", "heads.html", "changelog.html"):
            for width in (400, 1400):
                with opened(chromium, (folder / page).as_uri(), width=width) as seen:
                    assert seen.page.locator("h1").first.inner_text()
                    assert seen.console == []
                    outside = [address for address in seen.requests if not address.startswith(("file:", "data:"))]
                    assert outside == []
                    wide, window = seen.page.evaluate(WIDTHS)
                    assert wide <= window == width
