"""Headline, tables and files of a comparison tell which labels the arms were trained on."""

import csv
import io
import json
from dataclasses import replace

from rich.console import Console
from support.compared_runs import BETTER, LINEAR, SAME, runs

from nc_tools.comparison import compare_runs, render_terminal
from nc_tools.comparison.export import comparison_csv, comparison_json
from nc_tools.comparison.headline import headline
from nc_tools.comparison.html_report import comparison_html
from nc_tools.comparison.markdown import markdown_text
from nc_tools.data import CIFAR10_CONFUSIONS, AsymmetricNoise, DataConfig, SymmetricNoise
from nc_tools.experiment.serialize import encode

RATE = "train/noise/rate"
DRAWN = "labels with drawn noise (symmetric, rate 0.4; 39.0 % are wrong)"
HUMAN = "labels of people.csv:worse, not drawn (39.0 % differ from the true labels)"


def compared(data, *, data_of_etf=None, share=0.39):
    made = []
    for run in runs(linear=LINEAR, etf=BETTER):
        config = data_of_etf if run.arm == "etf" and data_of_etf else data
        final = dict(run.final) if share is None else {**run.final, RATE: share}
        made.append(replace(run, final=final, config={"data": encode(config)}))
    return compare_runs(made, "linear")


def terminal(comparison):
    out = io.StringIO()
    render_terminal(comparison, Console(file=out, width=200))
    return out.getvalue()


def texts_beside_tables(comparison):
    """Return every report of a comparison as text, without its headline."""
    pages = (markdown_text(comparison), terminal(comparison), comparison_html(comparison))
    return [page.replace(headline(comparison), "") for page in pages]


def test_drawn_noise_is_in_the_headline_and_beside_every_table():
    comparison = compared(DataConfig("digits", noise=SymmetricNoise(0.4)))
    assert headline(comparison).startswith(f"Trained on {DRAWN}: etf is significantly better than the baseline linear")
    caption = f"Training labels of all arms: {DRAWN}."
    markdown, text, page = texts_beside_tables(comparison)
    assert markdown.count(caption) == 2  # the summary and the table of all metrics
    assert page.count(caption) == 2
    assert text.count(caption) == 1
    assert {row["labels"] for row in csv.DictReader(io.StringIO(comparison_csv(comparison)))} == {DRAWN}
    assert json.loads(comparison_json(comparison))["labels"] == {"linear": DRAWN, "etf": DRAWN}


def test_labels_of_a_file_that_differ_from_the_truth_are_told_as_not_drawn():
    comparison = compared(DataConfig("imagefolder:x", labels="/home/somebody/people.csv:worse", clean="data"))
    assert headline(comparison).startswith(f"Trained on {HUMAN}: etf is")
    assert all(f"Training labels of all arms: {HUMAN}." in text for text in texts_beside_tables(comparison))
    unknown = compared(DataConfig("imagefolder:x", labels="people.csv:worse"), share=None)
    assert headline(unknown).startswith("Trained on labels of people.csv:worse: etf is")


def test_arms_that_differ_in_labels_are_listed():
    given = DataConfig("imagefolder:x", labels="people.csv:worse")
    comparison = compared(given, data_of_etf=replace(given, corrections="decisions.csv"), share=None)
    assert headline(comparison).startswith("Trained on labels that differ by arm, as listed at the table: etf is")
    caption = (
        "Training labels differ by arm. linear: labels of people.csv:worse; etf: labels of people.csv:worse with the "
        "decisions of decisions.csv."
    )
    assert all(caption in text for text in texts_beside_tables(comparison))
    rows = csv.DictReader(io.StringIO(comparison_csv(comparison)))
    assert {row["labels"] for row in rows if row["arm"] == "etf"} == {
        "labels of people.csv:worse with the decisions of decisions.csv"
    }


def test_nothing_is_said_of_the_labels_of_the_data():
    comparison = compared(DataConfig("digits"), share=0.0)
    assert headline(comparison).startswith("etf is significantly better")
    assert all("Training labels" not in text for text in texts_beside_tables(comparison))
    assert json.loads(comparison_json(comparison))["labels"]["etf"] == "labels of the data"


def test_a_headline_without_a_better_arm_tells_noise_too():
    noise = AsymmetricNoise(0.2, CIFAR10_CONFUSIONS)
    made = [
        replace(run, config={"data": encode(DataConfig("cifar10", noise=noise))})
        for run in runs(linear=LINEAR, etf=SAME)
    ]
    text = headline(compare_runs(made, "linear"))
    assert text.startswith("Trained on labels with drawn noise (asymmetric, rate 0.2): no arm is significantly better")
