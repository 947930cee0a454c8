"""Names of arms, classes and files are shown, never obeyed: in HTML, SVG, Markdown, CSV, JSON and on a terminal."""

import csv
import io
import json
import re
import xml.etree.ElementTree as ET

import pytest
import torch
from rich.console import Console
from support.experiment_runs import job_of

from nc_tools import cli
from nc_tools._support.printable import csv_row, printable
from nc_tools.comparison import ComparedRun, Experiment, RecallByClass, compare_runs, render_terminal, write_comparison
from nc_tools.comparison.transfer_ranking import report_ranking
from nc_tools.data import ImageSet
from nc_tools.evaluation.evaluator import EvaluationSet
from nc_tools.experiment.evaluate.suspects_csv import write_suspects
from nc_tools.experiment.job import JobResult, RunProgress
from nc_tools.experiment.progress_display import ProgressDisplay
from nc_tools.measuring import measure_in_detail
from nc_tools.measuring.collapse_report import write_collapse_report
from nc_tools.measuring.collapse_tables import CollapseReport
from nc_tools.measuring.measure_cli import print_tables
from nc_tools.metrics import rank_suspects

NAMES = (
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    "＝1+1",
    "\x1b]0;t\x07",
    "\x1b[2J\x1b[31mred",
    "\x9b2J",
    "a\x00b",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "[red]x[/red]",
    "[/nope]",
    "a|b",
    "a\nb",
    "`code` *bold* _it_ [link](http://x)",
    "\u202ereversed",
    "half\ud800",
    "{{ 7 * 7 }} {% include 'x' %}",
    "%s %n ${x} ../../x",
)
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
DANGEROUS = tuple("=+-@\t\r\n＝＋－＠")
PRIMARY = "transfer/probe/accuracy"


def unmarked(name):
    """The name as a reader of one line sees it."""
    return printable(" ".join(name.split()))


@pytest.fixture(scope="module")
def comparison():
    recall = RecallByClass(NAMES, (5,) * len(NAMES), (5,) * len(NAMES), (0.5,) * len(NAMES))
    values = {PRIMARY: 0.5, "train/nc/nc1_pinv": 0.1, "transfer/nc1_pinv": 0.2, "test/gen/balanced_accuracy": 0.5}
    runs = [
        ComparedRun(
            arm, seed, 0, "FINISHED", {k: v + 0.01 * position + 0.001 * seed for k, v in values.items()},
            per_class=recall, run_id=f"{arm}-s{seed}", data={"name": arm, "class_counts": [5] * len(NAMES)},
            hardware=arm, git_commit=arm, versions={"torch": arm},
            curves={"train/nc/nc1_pinv": ((1, 1.0), (2, 0.5))},
        )
        for position, arm in enumerate(NAMES)
        for seed in range(3)
    ]  # fmt: skip
    runs += [ComparedRun(arm, 7, 0, "FAILED", run_id=f"{arm}-s7", error=arm) for arm in NAMES]
    rules = {"statement": NAMES[7], NAMES[8]: NAMES[11], "references": {NAMES[1]: NAMES[2]}}
    experiment = Experiment(NAMES[7], " ".join(NAMES[:14]), arms=NAMES, primary=PRIMARY, protocol=rules)
    return compare_runs(runs, experiment=experiment)


@pytest.fixture(scope="module")
def report(comparison, tmp_path_factory):
    return write_comparison(comparison, tmp_path_factory.mktemp("report"))


def check_csv(text):
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert len({len(row) for row in rows}) == 1
    for row in rows[1:]:
        for cell in row:
            assert not cell.startswith(DANGEROUS) or re.fullmatch(r"-[\d.]+(e-?\d+)?", cell), cell
    return rows


def test_html_shows_them_and_holds_no_markup_of_theirs(report):
    page = report["html"].read_text(encoding="utf-8")
    assert not CONTROL.search(page)
    assert page.count("<script") == 1
    assert "<img" not in page
    assert "{{ 7 * 7 }}" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert r"\x1b[2J" in page


def test_svg_files_are_valid(report):
    figures = list(report["html"].parent.glob("*.svg"))
    assert figures
    for figure in figures:
        tree = ET.fromstring(figure.read_text(encoding="utf-8"))
        tags = {element.tag.rpartition("}")[2] for element in tree.iter()}
        assert tags <= {"svg", "style", "rect", "g", "line", "circle", "text", "title", "polyline", "polygon", "path"}


def test_markdown_tables_keep_their_cells(report):
    text = report["md"].read_text(encoding="utf-8")
    assert not CONTROL.search(text)
    assert "<script" not in text.replace(r"\<script", "")
    tables = re.findall(r"(?:^\|.*\n)+", text, re.M)
    assert tables
    for table in tables:
        cells = {len(re.split(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(cells) == 1, table


def test_csv_cells_are_no_formulas(report, comparison):
    rows = check_csv(report["csv"].read_text(encoding="utf-8"))
    arms = {row[0].removeprefix("'") for row in rows[1:]}
    assert arms == {printable(name) for name in comparison.arms}


def test_json_keeps_the_names_as_they_are(report):
    arms = [arm["arm"] for arm in json.loads(report["json"].read_text(encoding="utf-8"))["arms"]]
    assert arms == list(NAMES)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_obeys_none_of_them(comparison, terminal):
    out = io.StringIO()
    render_terminal(comparison, Console(file=out, width=200, force_terminal=terminal, color_system=None))
    assert not CONTROL.search(out.getvalue())
    assert r"\x1b]0;t\x07" in out.getvalue()
    assert "[/nope]" in out.getvalue()


def test_progress_of_arms_with_such_names(tmp_path):
    out = io.StringIO()
    console = Console(file=out, width=200, force_terminal=True, color_system=None)
    with ProgressDisplay(console, every=0.0) as display:
        display.stage("final runs", len(NAMES))
        for name in NAMES:
            job = job_of(tmp_path, "final", arm="linear")
            object.__setattr__(job, "arm", name)
            display.progress(RunProgress(job.label, 1, 2))
            display.result(job, JobResult(None, "FAILED", error=name))
            display.note(name)
    shown = re.sub(r"\x1b\[(\?25[lh]|\d?K|\d?A|2K)|\r", "", out.getvalue())  # of the progress bars themselves
    assert not CONTROL.search(shown)


def test_errors_of_commands(tmp_path, capsys):
    for name in NAMES:
        if "\x00" in name or "\ud800" in name:
            continue
        for command in ("compare", "sync"):
            with pytest.raises(SystemExit):
                cli.main([command, "--tracking-uri", "sqlite:///x.db", f"{tmp_path}/{name}"])
        with pytest.raises(SystemExit):
            cli.main(["measure", "--model", name.removeprefix("-").removeprefix("+") or "x", "--out", str(tmp_path)])
        errors = capsys.readouterr().err
        assert not CONTROL.search(errors)
        assert len(errors.splitlines()) == 3


def test_a_collapse_report_of_classes_with_such_names(tmp_path):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(len(NAMES)).repeat(4)
    features = torch.randn(len(labels), 8, generator=generator)
    loader = [(features, labels)]
    net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(8, len(NAMES)))
    measured = measure_in_detail(net, loader, layers=())
    names = tuple(name.replace("\ud800", "") for name in NAMES)
    report = CollapseReport(NAMES[7], NAMES[0], "", 8, names, {"train": measured}, (NAMES[8],), "0", "0", "cpu")
    written = write_collapse_report(report, tmp_path)
    page = written.pop("html").read_text(encoding="utf-8")
    assert not CONTROL.search(page)
    assert "<script" not in page
    assert json.loads(written.pop("json").read_text())["classes"] == list(names)
    for figure in written.values():
        ET.fromstring(figure.read_text(encoding="utf-8"))
    out = io.StringIO()
    print_tables(report, Console(file=out, width=150))
    assert not CONTROL.search(out.getvalue())


def test_tables_of_suspects_and_of_transfer(tmp_path, comparison):
    names = tuple(name for name in NAMES if "\ud800" not in name)
    labels = torch.arange(len(names))
    pixels = torch.zeros(len(names), 1, 2, 2, dtype=torch.uint8)
    images = ImageSet(pixels, labels, names, "named", paths=tuple(f"{name}.png" for name in names))
    suspects = rank_suspects(torch.randn(len(names), 4), torch.randn(len(names), len(names)), labels)
    write_suspects(tmp_path / "suspects.csv", suspects, EvaluationSet("train", images), 100)
    check_csv((tmp_path / "suspects.csv").read_text(encoding="utf-8"))
    out = io.StringIO()
    report_ranking(comparison, tmp_path, Console(file=out, width=200))
    assert not CONTROL.search(out.getvalue())
    check_csv((tmp_path / "transfer_ranking.csv").read_text(encoding="utf-8"))


def test_numbers_are_no_formulas():
    numbers = [-1, -0.5, "-0.5", "+3", "-1e-7", "-inf", "", None]
    assert csv_row(numbers) == numbers
    assert csv_row(["-1 ", "\t=5", "-1+1", "＋5"]) == ["'-1 ", "\\t=5", "'-1+1", "'＋5"]
