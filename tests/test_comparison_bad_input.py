"""Comparisons of little, and reports that cannot be written: each ends well or with one sentence."""

import json
import math
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.compared_runs import BETTER, LINEAR, PRIMARY, run, runs

import nc_tools
from nc_tools import cli
from nc_tools.comparison import RecallByClass, compare_runs, write_comparison
from nc_tools.comparison.html_report import comparison_html

RECORDS = Path(__file__).parent / "data" / "records_0_1"


def test_one_run_is_no_comparison():
    with pytest.raises(ValueError, match="needs at least two arms, got only 'linear'"):
        compare_runs([run("linear", 0, 0.7)])


def test_one_run_of_each_arm_has_a_difference_and_no_test():
    comparison = compare_runs([run("linear", 0, 0.7), run("etf", 0, 0.8)])
    assert comparison.test("etf").p_holm is None
    assert "only one pair: no interval and no test" in comparison_html(comparison)


def test_one_class_makes_a_page(tmp_path):
    made = []
    for one in runs(linear=LINEAR, etf=BETTER):
        file = tmp_path / f"{one.arm}-{one.seed}"
        save_file({"test_logits": np.ones((4, 1), np.float32), "test_labels": np.zeros(4, np.int64)}, file)
        recall = RecallByClass(("all",), (9,), (4,), (1.0,), {"thr": (1.0,)})
        made.append(run(one.arm, one.seed, one.final[PRIMARY], per_class=recall, predictions=file))
    comparison = compare_runs(made)
    assert comparison.mistakes == {}
    page = comparison_html(comparison)
    assert "1 class</summary>" in page
    assert "nan" not in page.split("</style>")[-1].partition("<script>")[0]


def test_equal_values_have_no_interval_and_no_verdict():
    comparison = compare_runs(runs(linear=[0.7] * 4, etf=[0.7] * 4))
    test = comparison.test("etf")
    assert (test.paired.mean, test.paired.low, test.p_holm) == (0.0, None, None)
    assert "all 4 differences are identical" in comparison_html(comparison)


def test_runs_that_are_not_finite_are_lost_and_an_arm_of_them_has_no_verdict():
    comparison = compare_runs(runs(linear=LINEAR, etf=[*BETTER[:4], math.nan]))
    assert [one.reason for one in comparison.test("etf").lost] == [f"finished, but its {PRIMARY} is nan"]
    assert comparison.family.verdict(comparison.test("etf")) == "open"
    assert "lost runs" in {one.kind for one in comparison.cautions}
    with pytest.raises(ValueError, match="both have a finite value of 'test/gen/balanced_accuracy'"):
        compare_runs(runs(linear=LINEAR, etf=[math.nan] * 5))


@pytest.fixture
def out(tmp_path):
    """An output folder with its report."""
    root = tmp_path / "out"
    shutil.copytree(RECORDS, root)
    return root


@pytest.mark.parametrize("how", ["a file in its place", "not writable"])
def test_a_report_that_cannot_be_written_is_said_in_one_sentence_after_the_result(out, how, capsys, monkeypatch):
    report = out / "report"
    shutil.rmtree(report, ignore_errors=True)
    if how == "a file in its place":
        report.write_text("")
        reason = "File exists"
    else:
        report.mkdir(0o555)
        reason = "Permission denied"
        if os.access(report, os.W_OK):  # the superuser may write everywhere
            monkeypatch.setattr(Path, "write_text", refused)
    with pytest.raises(SystemExit) as end:
        cli.main(["compare", str(out), "--tracking-uri", "none"])
    assert end.value.code == 2
    shown = capsys.readouterr()
    assert "Holm" in shown.out
    assert shown.err == (
        f"error: the report cannot be written to {report} ({reason}): make that folder writable, or write "
        "the report to another one with nc_tools.compare(FOLDER, out=OTHER)\n"
    )
    assert report.is_file() or list(report.iterdir()) == []


def refused(*args, **kwargs):
    raise PermissionError(13, "Permission denied")


def test_a_reader_never_sees_half_a_report_while_several_write_it(tmp_path):
    comparisons = [compare_runs(runs(linear=LINEAR, etf=BETTER), baseline) for baseline in ("linear", "etf")]
    write_comparison(comparisons[0], tmp_path, formats="json")
    problems = []

    def write(comparison):
        try:
            for _ in range(20):
                write_comparison(comparison, tmp_path, formats="json")
        except OSError as error:
            problems.append(error)

    writers = [threading.Thread(target=write, args=(comparison,)) for comparison in comparisons * 2]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert json.loads((tmp_path / "comparison.json").read_text())["baseline"] in ("linear", "etf")
    assert problems == []
    assert [file.name for file in tmp_path.iterdir()] == ["comparison.json"]


@pytest.mark.slow
def test_two_compares_of_one_folder_at_once_both_end_well(out):
    command = [sys.executable, "-m", "nc_tools.cli", "compare", str(out), "--tracking-uri", "none"]
    environment = {**os.environ, "PYTHONPATH": str(Path(nc_tools.__file__).parents[1])}
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(2)]  # fmt: skip
    for process in both:
        said, errors = process.communicate(timeout=300)
        assert (process.returncode, errors) == (0, "")
        assert "Report: file://" in said
    names = {file.name for file in (out / "report").iterdir()}
    assert names >= {f"comparison.{ending}" for ending in ("html", "md", "csv", "json", "tex")}
    assert not [name for name in names if name.endswith(".part")]
    assert (out / "report" / "comparison.html").read_text().rstrip().endswith("</html>")
