"""Metric keys in words, and one table entry that puts a metric into every part of the report."""

import io

import pytest
from rich.console import Console
from support.compared_runs import BETTER, LINEAR, PRIMARY

from nc_tools.comparison import ComparedRun, compare_runs, cost_table, html_report, metric_info, summary_table
from nc_tools.comparison.html_report import comparison_html
from nc_tools.comparison.markdown import markdown_text
from nc_tools.comparison.metric_entry import MetricEntry
from nc_tools.comparison.metric_table import METRICS
from nc_tools.comparison.terminal import render_terminal


@pytest.mark.parametrize(
    ("key", "direction", "text"),
    [
        ("test/gen/few", "higher", "-1.2"),
        ("test/cal/ece", "lower", "-1.2"),
        ("test/cal_ts/nll", "lower", "-0.012"),
        ("transfer/knn/accuracy", "higher", "-1.2"),
        ("train/nc/nc1_pinv", "neither", "-0.012"),
        ("something/else", "neither", "-0.012"),
    ],
)
def test_each_metric_has_its_direction_and_unit(key, direction, text):
    metric = metric_info.metric_info(key)
    assert (metric.direction, metric.difference(-0.012)) == (direction, text)
    assert metric.improvement(-0.012) == {"higher": "worse", "lower": "better", "neither": "neither"}[direction]
    if direction != "neither":
        assert metric.difference(-1e-9).startswith("+0")


@pytest.mark.parametrize(
    ("key", "label"),
    [
        ("test/gen/accuracy", "accuracy"),
        ("best/gen/accuracy", "accuracy (best epoch)"),
        ("mine/gen/accuracy", "accuracy (mine)"),
        ("holdout/cal_oracle/ece", "ECE after oracle temperature (hold-out)"),
        ("holdout/nc/nc3_cosine", "hold-out NC3 cosine"),
        ("transfer/knn/accuracy", "transfer, kNN"),
        ("transfer/nc1_pinv", "transfer, NC1 of its training part"),
        ("transfer/lpft/lr", "transfer, probe, then fine-tuning lr"),
        ("test/ood/far/knn/auroc", "far outliers, KNN, AUROC"),
        ("cal/temperature", "temperature"),
        ("perf/seconds", "training seconds"),
        ("train/nc_embedded/nc1_pinv", "train NC1 after the head's projection"),
        ("test/cal_groups/few/ece", "ECE, few-shot classes"),
        ("test/ood/held_out/nc5", "held-out classes, NC5"),
        ("layer/1/nc1_pinv", "layer/1/nc1_pinv"),
    ],
)
def test_a_key_is_written_in_words(key, label):
    assert metric_info.metric_info(key).label == label


def test_a_spread_is_written_to_the_last_digit_of_its_mean():
    assert metric_info.metric_info("train/nc/nc1_pinv").mean_and_sd(0.36421, 0.02514) == "0.364 ± 0.025"
    assert metric_info.metric_info("test/gen/accuracy").mean_and_sd(0.5, 5e-17) == "50.0 ± 0.0"
    assert metric_info.metric_info("test/gen/accuracy").mean_and_sd(0.5, None) == "50.0"


def test_the_table_names_each_pattern_once_and_refers_to_its_own_keys():
    patterns = [entry.pattern for entry in METRICS]
    assert len(patterns) == len(set(patterns))
    keys = {entry.key for entry in METRICS}
    assert {key for entry in METRICS for key in (entry.then, entry.instead_of) if key} <= keys
    assert all(bool(entry.column) == bool(entry.meaning) for entry in METRICS)
    assert all(entry.help == entry.help.strip() and not entry.help.endswith("..") for entry in METRICS)


def test_one_entry_puts_a_metric_into_every_part_of_the_report(monkeypatch):
    entry = MetricEntry(
        "*/gen/top5", "top-5 accuracy", "higher", "points", 1, "top 5", "top-5 accuracy of the test set",
        forest=True, cost=True,
    )  # fmt: skip
    for module in (metric_info, summary_table, html_report, cost_table):
        monkeypatch.setattr(module, "METRICS", (*METRICS, entry))
    metric_info.metric_info.cache_clear()
    runs = [
        ComparedRun(arm, seed, 0, "FINISHED", {PRIMARY: value, "test/gen/top5": value + 0.1})
        for arm, values in (("linear", LINEAR), ("etf", BETTER))
        for seed, value in enumerate(values)
    ]
    comparison = compare_runs(runs, "linear")
    stream = io.StringIO()
    render_terminal(comparison, Console(file=stream, width=100))
    markdown, page = markdown_text(comparison), comparison_html(comparison)
    metric_info.metric_info.cache_clear()
    assert "top 5" in stream.getvalue()
    assert "top 5↑: top-5 accuracy of the test set; higher is better." in markdown
    assert "| top-5 accuracy ↑ | 80.4 | 85.4 |" in markdown
    assert "<h3>top-5 accuracy ↑</h3>" in page  # its forest plot
    assert page.count('<th scope="col">top-5 accuracy</th>') == 1  # the cost table
    assert "<td>80.4</td>" in page
