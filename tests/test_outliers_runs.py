"""Runs with outliers: resuming, the record of a run, and what the report says."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from support.experiment_runs import job_of
from support.outlier_runs import EXPOSED, RECIPE, config_of, noise_pictures, recipe
from support.recipe_commands import run_script
from support.runs_here import runs_here

from nc_tools._support.signals import StopSignal
from nc_tools.comparison import ComparedRun, compare_runs, render_terminal
from nc_tools.comparison.html_report import comparison_html
from nc_tools.comparison.markdown import markdown_text
from nc_tools.data import DataConfig, load_data
from nc_tools.experiment import load_run, run_recipe
from nc_tools.experiment.recipe_cli import make_options, recipe_parser
from nc_tools.experiment.recipe_plan import make_plan
from nc_tools.experiment.run_data import facts_of
from nc_tools.experiment.run_identity import identify
from nc_tools.experiment.run_job import run_job
from nc_tools.losses import CrossEntropyLoss, WeightedSumLoss, term
from nc_tools.run_records import read_run
from nc_tools.specs import spec

pytestmark = pytest.mark.slow


class StopAfter(StopSignal):
    """A signal that requests to stop at the n-th check."""

    def __init__(self, checks):
        super().__init__()
        self.left = checks

    @property
    def requested(self):
        self.left -= 1
        return self.left < 0

    @requested.setter
    def requested(self, value):
        pass


@pytest.mark.parametrize("named", ["blended", "folder"])
def test_a_run_stopped_within_an_epoch_resumes_to_the_same_weights(tmp_path, named):
    outliers = "blended" if named == "blended" else noise_pictures(tmp_path / "noise", 180)  # 3 batches a round
    config = config_of("etf_ortho", outliers=outliers)
    straight = run_job(job_of(tmp_path / "a", "holdout", "x", config=config), lambda _: None, StopSignal())
    assert straight.error is None, straight.error
    job = job_of(tmp_path / "b", "holdout", "x", config=config)
    for checks in (4, 9):
        assert run_job(job, lambda _: None, StopAfter(checks)).status == "KILLED"
        job = replace(job, resume=True)
    resumed = run_job(job, lambda _: None, StopSignal())
    one, other = (load_file(result.run / "weights.safetensors") for result in (straight, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    record = json.loads((resumed.run / "run.json").read_text())
    assert record["data"]["outliers"] == record["config"]["data"]["outliers"] == outliers
    curves = read_run(resumed.run).curves()
    assert {"train/loss_CrossEntropy", "train/loss_OrthogonalOutliers"} <= curves.keys()


def test_the_record_names_the_outliers_of_the_arms_that_train_against_them(tmp_path):
    facts = facts_of(load_data(DataConfig()), load_data(DataConfig()).train.labels)
    records = {
        arm: identify(job_of(tmp_path, "final", arm, config=recipe.ARMS[arm]), facts).data for arm in recipe.ARMS
    }
    assert {arm for arm, data in records.items() if data.get("outliers") == "blended"} == EXPOSED
    assert {arm for arm, data in records.items() if "outliers" in data} == EXPOSED
    inner = recipe.ARMS["linear_oe"].loss
    config = replace(
        recipe.BASE, loss=spec(WeightedSumLoss, terms=(term(1.0, spec(CrossEntropyLoss)), term(1.0, inner)))
    )
    assert identify(job_of(tmp_path, "final", "deep", config=config), facts).data["outliers"] == "blended"
    config = replace(config, data=replace(config.data, outliers=None))  # such a run raises before it starts
    assert "outliers" not in identify(job_of(tmp_path, "final", "deep", config=config), facts).data


def flags(out, *more):
    rules = ["--set", "protocol.rates=0.1", "--seeds", "0", "--epochs", "30"]
    rules += ["--set", f"data.class_counts={(12,) * 7}", "--set", "training.batch_size=128"]
    return [
        *("--smoke", "--device", "cpu", "--workers", "1", "--arms", "linear,linear_oe", "--out", str(out)),
        *("--tracking-uri", "none"), *rules, *more,
    ]  # fmt: skip


def run_of(out, kind):
    (folder,) = (out / "runs").glob(f"linear_oe-s0-*-{kind}-*")
    return folder


@pytest.mark.slow
def test_the_recipe_trains_reports_and_resumes(tmp_path, capsys):
    out, again = tmp_path / "out", tmp_path / "again"
    with runs_here():
        run_script(RECIPE, *flags(out))
    output = capsys.readouterr().out
    assert "training against outlier images from blended: used by linear_oe" in output
    assert "outliers: linear_oe trained with outlier images (blended)" in " ".join(output.split())
    assert "linear_oe trained with outlier images" in (out / "report" / "comparison.md").read_text()
    shutil.copytree(out, again)
    shutil.rmtree(run_of(again, "final"))
    args = recipe_parser("ood", "", list(recipe.ARMS)).parse_args(flags(again))
    plan = make_plan(recipe.ARMS, name="ood", question=recipe.__doc__, protocol=recipe.PROTOCOL, args=args)
    job = replace(
        job_of(again, "final", "linear_oe", config=load_run(run_of(out, "final")).config),
        experiment="ood", suite=plan.suite, protocol=plan.protocol, holdout_run=run_of(again, "holdout"),
    )  # fmt: skip
    threads = torch.get_num_threads()
    torch.set_num_threads(make_options(args).threads)  # as the worker has
    try:
        assert run_job(job, lambda _: None, StopAfter(31)).status == "KILLED"
    finally:
        torch.set_num_threads(threads)
    assert run_of(again, "final").name == run_of(out, "final").name
    assert (run_of(again, "final") / "checkpoint.pt").exists()
    with runs_here():
        run_script(RECIPE, *flags(again, "--resume"))
    one, other = (load_file(run_of(root, "final") / "weights.safetensors") for root in (out, again))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert read_run(run_of(again, "final")).curves() == read_run(run_of(out, "final")).curves()


def in_process(argv, out):
    run_recipe(
        recipe.ARMS, name="ood", question="Why?", argv=["--smoke", "--tracking-uri", "none", "--out", str(out), *argv]
    )


def test_a_loss_without_its_outliers_raises_before_anything_is_trained(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        in_process(["--arms", "linear,linear_oe", "--set", "data.outliers=None"], tmp_path)
    assert end.value.code == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "arm linear_oe: WeightedSum" in message
    assert all(text in message for text in ("data.outliers", "imagefolder:PATH", "blended"))
    assert not (tmp_path / "runs").exists()


def test_outliers_that_no_loss_needs_are_reported(tmp_path, capsys, monkeypatch):
    from nc_tools.experiment import run_plan

    def run(stages):
        raise ValueError("as far as the check")

    monkeypatch.setattr(run_plan._Stages, "run", run)
    with pytest.raises(SystemExit):
        in_process(["--arms", "linear,etf"], tmp_path)
    assert (
        "training against outlier images from blended: not used, because no loss needs them" in capsys.readouterr().out
    )


def runs(exposed):
    final = {"test/gen/balanced_accuracy": 0.7, "test/ood/far/msp/auroc": 0.8}
    return [
        ComparedRun(arm, seed, 0, "FINISHED", final, data={"outliers": "blended"} if arm in exposed else {})
        for arm in ("linear", "oe", "across") for seed in range(3)
    ]  # fmt: skip


def test_every_output_names_the_arms_with_outliers(capsys):
    comparison = compare_runs(runs({"oe", "across"}), "linear")
    (caution,) = (caution for caution in comparison.cautions if caution.kind == "outliers")
    assert caution.text.startswith("oe, across trained with outlier images (blended), the other arms did not.")
    render_terminal(comparison, Console(width=100, highlight=False))
    for text in (capsys.readouterr().out, markdown_text(comparison), comparison_html(comparison)):
        assert "oe, across trained with outlier images" in " ".join(text.split())
    table = markdown_text(comparison).split("## Out-of-distribution detection")[1]
    assert "oe, across trained with outlier images" in table.split("###")[0]
    for none in (set(), {"linear", "oe", "across"}):
        assert not [c for c in compare_runs(runs(none), "linear").cautions if c.kind == "outliers"]
