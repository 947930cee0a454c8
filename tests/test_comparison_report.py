import base64
import csv
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console
from support.comparison_records import write_output
from support.simulated_comparisons import World, simulate

from nc_tools.comparison import (
    ComparedRun,
    Experiment,
    RecallByClass,
    compare,
    compare_runs,
    render_terminal,
    write_comparison,
)
from nc_tools.comparison.closing_report import report_comparison
from nc_tools.comparison.html_report import comparison_html
from nc_tools.comparison.metric_entry import CONFORMAL_WORDS
from nc_tools.comparison.next_steps import next_steps
from nc_tools.comparison.report_files import report_folder

PRIMARY = "test/gen/balanced_accuracy"
VOID = {"meta", "br", "img", "line", "rect", "circle", "path", "polyline", "polygon"}


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    return compare(write_output(tmp_path_factory.mktemp("out"), images=300, epochs=6))


@pytest.fixture(scope="module")
def page(complete):
    return comparison_html(complete)


class Nesting(HTMLParser):
    """Holds that every tag is closed in order, and gathers the text that a reader sees."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):  # noqa: ARG002 - the base class names it
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(page):
    parser = Nesting()
    parser.feed(page)
    assert parser.open == []
    return parser, " ".join(" ".join(parser.text).split())


def print_at(comparison, width, encoding="utf-8", details=True):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    render_terminal(comparison, Console(file=stream, width=width, highlight=False), details=details)
    return raw.getvalue().decode(encoding)


def test_the_page_is_whole_and_asks_nothing_of_the_network(page):
    parser, _ = read(page)
    assert parser.tags.count("script") == 1
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    others = script.replace("image.src = `data:image/svg+xml;", "")  # a figure that is saved as pixels: no request
    assert not re.search(r"fetch|XMLHttp|import|innerHTML|eval|\bsrc\b", others)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'Policy" content="(.*?)"', page)[1].replace("&#39;", "'")
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    rest = page.replace(script, "")
    assert set(re.findall(r"src=\"([^,]*)", rest)) == {"data:image/jpeg;base64"}
    assert not re.search(r"https?:|url\(|@import", rest.replace("font-src=", ""))
    targets = set(re.findall(r'href="(#|data:text/csv)?', rest))
    assert targets == {"#", "data:text/csv"}
    anchors = re.findall(r'href="#([\w-]+)"', rest)
    assert all(f'id="{anchor}"' in rest for anchor in anchors)
    assert page.startswith("<!doctype html>")


def test_every_figure_offers_its_data_without_script(page):
    figures = re.findall(r'<figure.*?</figure>|<div class="forest".*?<p class="saves">.*?</p>', page, re.DOTALL)
    assert len(figures) > 20
    for figure in figures:
        assert 'data-figure="' in figure, figure[:200]
        assert re.search(r'class="saves">.*download="[a-z0-9_]+\.csv".*href="data:text/csv', figure, re.DOTALL)
    assert page.count('role="img"') <= sum(figure.count('role="img"') for figure in figures)
    links = re.findall(r'download="(.*?)" aria-label="(.*?)"', page)
    assert len(set(links)) == len(links)
    assert len(links) == len(figures) + 1  # the list of the surest mistakes


def test_the_page_says_what_was_found(page):
    _, text = read(page)
    for words in (
        "arms are significantly better than the tuned baseline linear",
        "Against the reference with the same loss",
        "No difference for etf_wide",
        "loss is not finite at step 812",
        "Every arm against linear, in balanced accuracy (higher is better): 6 two-sided paired t tests",
        "seeds for half",
        "standard error of the frames",
        "cannot give p below .0625",
        "lower is better",
        "35 trials",
    ):
        assert words in text, words


def test_lower_is_better_puts_the_word_on_the_left(page):
    nll = page[page.index("NLL ↓") :]
    axis = nll[nll.index('aria-hidden="true"') :]
    assert re.search(r'x="0"[^>]*text-anchor="start">← better<', axis) or re.search(r'"start">← better<', axis)
    assert '"end">worse →<' in axis


def test_names_from_files_never_become_markup(complete):
    evil = '<script>alert("x")</script>'
    runs = [replace(run, arm=evil if run.arm == "etf_la" else run.arm) for run in complete.runs]
    experiment = Experiment(name=evil, question=evil, protocol={evil: evil}, tuning={"notes": [evil]})
    comparison = compare_runs(runs, "linear", experiment=experiment)
    text = comparison_html(comparison)
    parser, _ = read(text)
    assert parser.tags.count("script") == 1
    assert "&lt;script&gt;" in text
    assert "[red]" in print_at(replace(comparison, notes=("[red]",)), 100)


def test_all_files_are_written_whole(complete, tmp_path):
    paths = write_comparison(complete, tmp_path / "report")
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "comparison.csv", "comparison.html", "comparison.json", "comparison.md", "comparison.tex", "over_nc1.svg",
    ]  # fmt: skip
    assert json.loads(paths["json"].read_text())["family"]["size"] == 6
    assert write_comparison(complete, tmp_path / "one", formats=["csv"]).keys() == {"csv"}
    with pytest.raises(ValueError, match="got pdf"):
        write_comparison(complete, tmp_path, formats=["pdf"])


def test_a_failing_write_leaves_the_old_file(complete, tmp_path, monkeypatch):
    path = write_comparison(complete, tmp_path, formats=["md"])["md"]
    before = path.read_text()
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_comparison(complete, tmp_path, formats=["md"])
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["comparison.md"]


def test_the_csv_is_long_and_in_the_metrics_own_unit(complete, tmp_path):
    rows = list(csv.DictReader(write_comparison(complete, tmp_path, formats=["csv"])["csv"].read_text().splitlines()))
    assert len(rows) == len(complete.arms) * len(complete.metrics)
    row = next(r for r in rows if r["arm"] == "etf_la" and r["metric"] == PRIMARY)
    assert float(row["diff"]) == pytest.approx(complete.test("etf_la").paired.mean)
    assert float(row["p_holm"]) == pytest.approx(complete.test("etf_la").p_holm)
    assert row["n"] == "5"
    absent = next(r for r in rows if r["arm"] == "etf_wide")
    assert (absent["n"], absent["mean"]) == ("0", "")


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_terminal_table_fits(complete, width):
    text = print_at(complete, width)
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b" not in text
    for arm in complete.arms:
        assert re.search(rf"^[▲▼ ] {arm} ", text, re.MULTILINE), arm
    lines = [line for line in text.splitlines() if line.startswith("▲ etf_la ")]
    assert len(lines) == (2 if width == 80 else 1)
    assert re.search(r"5×3 +[\d.]+±[\d.]+ +\+[\d.]+ \[.*\] +[<.\d]+", lines[0])
    assert "→" in lines[-1]


def test_an_output_without_unicode_gets_ascii(complete):
    text = print_at(complete, 100, "ascii")
    assert "+ etf_la" in text
    assert "5x3" in text


def test_markdown_stays_readable_and_safe(complete, tmp_path):
    text = write_comparison(complete, tmp_path, formats=["md"])["md"].read_text()
    assert "| ▲ etf_la | 5×3 |" in text
    runs = [replace(run, arm="a|b<i>" if run.arm == "etf_la" else run.arm) for run in complete.runs]
    text = write_comparison(compare_runs(runs, "linear"), tmp_path, formats=["md"])["md"].read_text()
    assert r"a\|b\<i>" in text


def test_a_bare_comparison_has_a_page_too():
    runs = [ComparedRun(arm, 0, 0, "FINISHED", {PRIMARY: v}) for arm, v in (("linear", 0.5), ("etf", 0.6))]
    comparison = compare_runs(runs, "linear")
    _, text = read(comparison_html(comparison))
    assert "No test of balanced accuracy is possible" in text
    printed = print_at(comparison, 80)
    assert "only one pair: no interval" in printed
    # A metric that no run has gets no column.
    assert "NLL" not in printed
    assert "→" not in printed


def test_two_seeds_and_a_wild_interval_do_not_flatten_the_others():
    values = {"linear": [0.5, 0.6, 0.55], "etf": [0.52, 0.621, 0.57], "wild": [0.9, 0.1, 0.4]}
    runs = [ComparedRun(arm, s, 0, "FINISHED", {PRIMARY: v}) for arm, vs in values.items() for s, v in enumerate(vs)]
    page = comparison_html(compare_runs(runs, "linear"))
    read(page)
    assert "nan" not in page.split("</style>")[1].replace("finance", "")


@pytest.mark.slow
@pytest.mark.parametrize(("arms", "methods", "most"), [(12, 0, 2e6), (50, 6, 10e6)])
def test_a_thousand_classes_and_many_arms_make_a_page_that_opens_at_once(tmp_path, arms, methods, most):
    generator = np.random.default_rng(0)
    names = tuple(f"class {k}" for k in range(1000))
    counts = tuple(int(1280 * 256 ** (-k / 999)) for k in range(1000))
    runs = []
    for arm in range(arms):
        for seed in range(5):
            recall = tuple(generator.uniform(size=1000))
            curves = {"train/nc/nc1_pinv": tuple((step, 1.0 / step) for step in range(1, 201))}
            final = {
                PRIMARY: float(generator.normal(0.5, 0.01)),
                **{f"own/metric_{i}": 1.0 for i in range(40)},
            }
            coverage = {method: tuple(generator.uniform(size=1000)) for method in (*CONFORMAL_WORDS,)[:methods]}
            per_class = RecallByClass(names, counts, (50,) * 1000, recall, coverage)
            runs.append(ComparedRun(f"arm_{arm}", seed, 0, "FINISHED", final, curves, per_class))
    write_comparison(compare_runs(runs, "arm_0"), tmp_path)
    assert (tmp_path / "comparison.html").stat().st_size < most


def test_more_seeds_are_not_advised_where_the_test_images_decide():
    """With few test images and seeds that agree, the interval stays wide however many seeds there are."""
    world = World(seeds=5, seed=0.01, rest=0.01, image=3.0, images=100)
    comparison = compare_runs(simulate(world, ["etf"], np.random.default_rng(0)), "linear")
    test = comparison.test("etf")
    assert comparison.family.covers_images
    assert test.paired.mean > 0
    assert test.power.pairs_for_half_adjusted is None
    assert "Use more test images" in next_steps(comparison, "nc-tools compare out")[0]


def test_the_terminal_shows_the_verdict_and_the_table_and_the_rest_on_request(complete):
    short, whole = (print_at(complete, 100, details=details) for details in (False, True))
    assert "Detectable difference" not in short
    assert "Detectable difference" in whole
    assert "did not finish" in short
    assert "more, in the report" in short
    assert len(short.splitlines()) < 45


def test_what_to_do_next_follows_from_the_result(complete, tmp_path):
    def steps(values, **changes):
        runs = [ComparedRun(arm, seed, 0, "FINISHED", {PRIMARY: value}, folder=tmp_path / "my runs" / f"{arm}-s{seed}")
                for arm, of_arm in values.items() for seed, value in enumerate(of_arm)]  # fmt: skip
        return next_steps(compare_runs(runs, "linear", experiment=Experiment(**changes)), "nc-tools compare 'my runs'")

    linear = [0.50, 0.51, 0.49]
    better = steps({"linear": linear, "etf": [0.60, 0.612, 0.591], "other": linear})
    assert better[0] == f"use etf: nc-tools export '{tmp_path}/my runs/etf-s0' --to onnx --out exports/model"
    assert better[1].endswith("nc-tools compare 'my runs' --baseline etf")
    assert better[2].endswith("--details")
    unsure = steps({"linear": linear, "etf": [0.53, 0.50, 0.51]})
    assert re.search(r"(\d+) seeds would show half of the gain of etf \(\+0.7\): .* --seeds 0-\d+", unsure[0])
    assert "--smoke" in steps({"linear": linear, "etf": linear}, smoke=True)[0]
    assert "--resume" in next_steps(complete, "nc-tools compare out")[0]
    other = next_steps(replace(complete, baseline="etf_la"), "nc-tools compare out")
    assert other[-1].endswith("nc-tools compare out --baseline etf_la --details")


@pytest.mark.slow
def test_a_report_against_another_arm_stands_beside_the_first(tmp_path):
    out = write_output(tmp_path, images=200, epochs=3, broken=False)
    console = Console(file=io.StringIO(), width=100)
    for baseline in (None, "linear_la", "linear"):
        report_comparison(out, console, baseline=baseline)
    first, second = ((out / "report" / name / "comparison.json").read_text() for name in ("", "against-linear_la"))
    assert json.loads(first)["baseline"] == "linear"
    assert json.loads(second)["baseline"] == "linear_la"
    assert sorted(path.name for path in (out / "report").iterdir() if path.is_dir()) == ["against-linear_la"]
    strange = replace(compare(out), baseline="../a b")
    assert report_folder(out, strange).parent == out / "report"
