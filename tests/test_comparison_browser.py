"""The report in a real browser: arms are switched off, values read, tables sorted and searched, figures saved."""

from __future__ import annotations

import html
import json
import re
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.browser import CHROMIUM, NEEDS_CHROMIUM, browser
from support.browser import opened as seen_by
from support.comparison_records import write_output

from nc_tools.comparison import ComparedRun, Experiment, RecallByClass, compare, compare_runs, write_comparison

PRIMARY = "test/gen/balanced_accuracy"
pytestmark = [pytest.mark.slow, pytest.mark.browser, NEEDS_CHROMIUM]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    return write_comparison(compare(write_output(folder, images=300, epochs=6)), folder / "report", formats="html")[
        "html"
    ]


def opened(file: Path, *flags: str) -> tuple[str, str]:
    """Open a page; return its document after all scripts ran, and what the browser logged."""
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr",
         "--window-size=1400,900", f"--user-data-dir={tempfile.mkdtemp(dir=file.parent)}", *flags, "--dump-dom",
         file.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout, done.stderr


def tried(page: Path, script: str) -> object:
    """Run a script in a copy of the page, which must not hold the policy that forbids it; return what it returns."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy".*?>', "", page.read_text(encoding="utf-8"))
    copy = page.with_name("tried.html")
    ending = f"<script>document.title = JSON.stringify((() => {{ {script} }})());</script></body>"
    copy.write_text(text.replace("</body>", ending), encoding="utf-8")
    shown, _ = opened(copy)
    return json.loads(html.unescape(re.search(r"<title>(.*?)</title>", shown, re.DOTALL)[1]))


def test_the_page_runs_without_an_error_and_asks_for_nothing(page):
    shown, log = opened(page)
    assert 'class="scripted"' in shown
    assert shown.count('class="sort"') > 20
    # Its policy lets nothing else load, and a refused request would be logged here.
    assert "CONSOLE" not in log, log


def test_arms_are_switched_off_in_all_figures(page):
    seen = tried(page, """
      const chip = [...document.querySelectorAll('.chip')].find((chip) => chip.textContent === 'etf_la');
      const marks = [...document.querySelectorAll(`figure [data-arm="${chip.dataset.switch}"]`)];
      const shown = () => marks.filter((mark) => getComputedStyle(mark).display !== 'none').length;
      const before = shown();
      chip.click();
      const off = [shown(), [...document.querySelectorAll('.chip[aria-pressed="false"]')].map((c) => c.textContent)];
      chip.click();
      return [before === marks.length && before > 2, off, shown() === before];
    """)  # fmt: skip
    assert seen == [True, [0, ["etf_la"] * len(seen[1][1])], True]
    assert seen[1][1]


def test_values_are_read_by_pointer_and_by_keys(page):
    seen = tried(page, """
      const svg = [...document.querySelectorAll('svg[data-area]')].find((svg) => /NC1/.test(svg.ariaLabel));
      const tip = document.getElementById('tip');
      svg.focus();
      for (const key of ['ArrowRight', 'ArrowRight']) svg.dispatchEvent(new KeyboardEvent('keydown', {key}));
      const keys = tip.textContent;
      svg.dispatchEvent(new PointerEvent('pointerleave'));
      const dot = document.querySelector('[data-tip]');
      dot.dispatchEvent(new PointerEvent('pointerover', {bubbles: true, clientX: 5, clientY: 5}));
      return [keys, tip.textContent, getComputedStyle(tip).display, dot.dataset.tip];
    """)  # fmt: skip
    place, *rows = seen[0].split("\n")
    assert place.startswith("at ")
    assert len(rows) == 7
    values = [float(row.split()[0]) for row in rows]
    assert values == sorted(values, reverse=True)
    assert seen[1] == seen[3] != ""
    assert seen[2] == "block"


def test_tables_are_sorted_and_searched(page):
    seen = tried(page, """
      const table = document.querySelector('#arms table[data-sort]');
      const arms = () => [...table.tBodies[0].rows].map((row) => parseFloat(row.cells[2].textContent));
      const before = arms();
      const heading = table.tHead.rows[0].cells[2];
      const orders = [];
      for (let i = 0; i < 3; i += 1) {
        heading.querySelector('button').click(); orders.push([heading.ariaSort, arms()]);
      }
      const find = document.querySelector('#metrics .find input');
      find.value = 'nll temp'; find.dispatchEvent(new Event('input'));
      const rows = [...document.querySelectorAll('#metrics tbody tr')].filter((row) => row.checkVisibility());
      return [before, orders, rows.map((row) => row.cells[0].textContent), find.parentNode.textContent];
    """)  # fmt: skip
    before, orders, rows, count = seen
    numbers = [value for value in before if value is not None]
    assert orders[0] == ["ascending", [*sorted(numbers), None]]
    assert orders[1] == ["descending", [*sorted(numbers, reverse=True), None]]
    assert orders[2] == [None, before]
    assert rows
    assert all("NLL" in row and "temperature" in row for row in rows)
    assert f"{len(rows)} of" in count


def test_every_figure_can_be_saved_as_data_and_as_a_picture(page):
    offers = tried(page, """
      const places = [...document.querySelectorAll('[data-figure]')];
      return places.map((place) => [...place.querySelectorAll('.saves > *')].map((one) => one.ariaLabel));
    """)  # fmt: skip
    assert len(offers) > 20
    for data, drawing, pixels in offers:
        assert [drawing, pixels] == [data.replace("CSV", kind) for kind in ("SVG", "PNG")]


@pytest.mark.parametrize("kind", ["plot", "forest"])
def test_a_saved_figure_is_a_picture_of_its_own(page, kind):
    text = tried(page, f"""
      let saved = '';
      const Original = window.Blob;
      window.Blob = class extends Original {{
        constructor(parts, options) {{ super(parts, options); saved = parts[0]; }}
      }};
      HTMLAnchorElement.prototype.click = () => {{}};  // a download would keep the browser open
      document.querySelector('[data-figure="{kind}"] .saves button').click();
      return saved;
    """)  # fmt: skip
    tree = ET.fromstring(text)
    assert tree.tag == "{http://www.w3.org/2000/svg}svg"
    assert float(tree.get("width")) > 100
    assert len(list(tree.iter())) > 20
    assert "var(" not in text
    assert "class=" not in text


@pytest.mark.parametrize("kind", ["plot", "forest"])
def test_a_figure_saved_as_pixels_is_the_drawing_on_white_under_the_policy_of_the_page(page, kind, tmp_path):
    with browser() as chromium, seen_by(chromium, page.as_uri(), scheme="dark") as seen:
        figure = seen.page.locator(f'[data-figure="{kind}"]').first
        files = {}
        for name in ("SVG", "PNG"):
            with seen.page.expect_download() as download:
                figure.locator(".saves button", has_text=name).click()
            files[name] = Path(tmp_path / download.value.suggested_filename)
            download.value.save_as(files[name])
        assert seen.console == []
    size = [float(ET.parse(files["SVG"]).getroot().get(side)) for side in ("width", "height")]
    with Image.open(files["PNG"]) as image:
        assert image.format == "PNG"
        assert list(image.size) == pytest.approx([3 * side for side in size], abs=2)
        pixels = np.asarray(image.convert("RGB"))
    assert (pixels[0, 0] == 255).all()
    assert 0.5 < (pixels == 255).all(axis=2).mean() < 0.995  # most is paper, and something is drawn on it
    assert files["PNG"].stem == files["SVG"].stem


def test_without_script_only_the_data_is_offered(page):
    with browser() as chromium:
        plain = chromium.new_context(java_script_enabled=False).new_page()
        plain.goto(page.as_uri())
        assert plain.locator(".saves a").count() > 20
        assert plain.locator(".saves button").count() == 0


@pytest.fixture(scope="module")
def long_names(tmp_path_factory):
    """A page of arms and a class whose names are long, of one letter, or written from right to left."""
    names = ("base", "x" * 300, "long words " * 27, "\u05e9\u05dc\u05d5\u05dd " * 9, "<b>")
    recall = RecallByClass(("y" * 300, "z"), (9, 5), (5, 5), (0.5, 0.4))
    runs = [
        ComparedRun(name, seed, 0, "FINISHED", {PRIMARY: 0.5 + 0.01 * place + 0.002 * seed, "perf/seconds": 3.0},
                    per_class=recall, config={"head": {"class": name, "arguments": {"name": name}}}, run_id=name)
        for place, name in enumerate(names)
        for seed in range(3)
    ]  # fmt: skip
    comparison = compare_runs(runs, "base", experiment=Experiment(name="q" * 300, question="w" * 300))
    return write_comparison(comparison, tmp_path_factory.mktemp("names"), formats="html")["html"]


@pytest.mark.parametrize("which", ["page", "long_names"])
def test_nothing_is_wider_than_the_window(which, request):
    page = request.getfixturevalue(which)
    inner = re.sub(r'<meta http-equiv="Content-Security-Policy".*?>', "", page.read_text(encoding="utf-8"))
    report = "<script>parent.postMessage([document.documentElement.scrollWidth, innerWidth], '*')</script></body>"
    page.with_name("inner.html").write_text(inner.replace("</body>", report), encoding="utf-8")
    frames = "".join(
        f'<iframe src="inner.html" style="border:0" width="{width}" height="900"></iframe>' for width in (400, 1400)
    )
    frame = page.with_name("frame.html")
    frame.write_text(
        "<!doctype html><title></title><script>const all = []; onmessage = (event) => {"
        f" all.push(event.data); document.title = JSON.stringify(all); }}</script>{frames}"
    )
    shown, _ = opened(frame, "--virtual-time-budget=9000")
    widths = json.loads(re.search(r"<title>(.*?)</title>", shown)[1])
    assert sorted(window for _, window in widths) == [400, 1400]
    assert all(wide <= window for wide, window in widths), widths
