"""The report as people see it, in Chromium: in light and dark, wide and narrow."""

import pytest
from support.browser import NEEDS_CHROMIUM, WIDTHS, barriers, browser, opened
from support.comparison_records import write_output

from nc_tools.comparison import compare, write_comparison

pytestmark = [pytest.mark.slow, pytest.mark.browser, NEEDS_CHROMIUM]
OPEN_ALL = "for (const fold of document.querySelectorAll('details')) fold.open = true"


@pytest.fixture(scope="module")
def chromium():
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The address of the report of seven arms with curves, pictures and prediction sets."""
    folder = tmp_path_factory.mktemp("report")
    comparison = compare(write_output(folder, images=300, epochs=6))
    return write_comparison(comparison, folder / "report", formats="html")["html"].as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_the_report_has_no_error_no_request_no_overflow_and_no_barrier(chromium, report, width, scheme):
    with opened(chromium, report, width=width, scheme=scheme) as seen:
        seen.page.evaluate(OPEN_ALL)
        assert barriers(seen.page) == []
        wide, window = seen.page.evaluate(WIDTHS)
        assert wide <= window == width
        assert seen.console == []
        assert [address for address in seen.requests if not address.startswith("data:")] == [report]


def test_a_barrier_would_be_found(chromium, report):
    with opened(chromium, report) as seen:
        seen.page.evaluate("document.querySelector('.mistakes img').removeAttribute('alt')")
        seen.page.evaluate("document.querySelector('.headline').style.color = '#ddd'")
        found = barriers(seen.page)
    assert [one.split()[0] for one in found] == ["color-contrast", "image-alt"]


def test_the_report_is_dark_where_the_system_is(chromium, report):
    colors = {}
    for scheme in ("light", "dark"):
        with opened(chromium, report, scheme=scheme) as seen:
            colors[scheme] = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colors == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 22, 27)"}


def test_a_table_is_searched_by_a_person(chromium, report):
    with opened(chromium, report) as seen:
        box = seen.page.get_by_label("Search metrics:")
        box.fill("nll temp")
        rows = seen.page.locator("#metrics tbody tr:visible th").all_inner_texts()
    assert rows
    assert all("NLL" in row and "temperature" in row for row in rows)
