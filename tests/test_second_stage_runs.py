"""Second stages inside runs: recorded, stopped and resumed in either stage, counted, chosen on the hold-out."""

import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from support.experiment_runs import Reads, make
from support.recipe_commands import run_in_process

from nc_tools._support.signals import StopSignal
from nc_tools.data import DataConfig, SquareRootSampling
from nc_tools.data.sampling import EpochSampler
from nc_tools.experiment import ModelConfig, Protocol, RunConfig, TunedParameter, load_run
from nc_tools.experiment.job import Job
from nc_tools.experiment.run_data import open_data
from nc_tools.experiment.run_job import run_job
from nc_tools.experiment.serialize import run_hash
from nc_tools.experiment.stage_checkpoints import StageCheckpoints
from nc_tools.experiment.tuning import tune
from nc_tools.heads import ETFHead, LinearHead
from nc_tools.losses import CrossEntropyLoss, ForwardCorrectionLoss
from nc_tools.run_records import read_run
from nc_tools.specs import spec
from nc_tools.training import (
    LearnableWeightScaling,
    NearestClassMean,
    OptimConfig,
    RetrainClassifier,
    TauNormalize,
    TrainConfig,
)

pytestmark = pytest.mark.slow

EPOCHS = 4
BASE = RunConfig(
    data=DataConfig(imbalance=10),
    head=spec(LinearHead),
    loss=spec(CrossEntropyLoss),
    model=ModelConfig(width=4),
    training=TrainConfig(epochs=EPOCHS, batch_size=64, checkpoint_seconds=0.0),
    optim=OptimConfig(lr=0.1),
)
STAGES = {
    "crt": RetrainClassifier(share=0.5),
    "lws": LearnableWeightScaling(share=0.5),
    "tau": TauNormalize(),
    "ncm": NearestClassMean(),
}


def with_stage(name, **training):
    return replace(BASE, second_stage=STAGES[name], training=replace(BASE.training, **training))


def job_of(root, kind, config, **more):
    return Job(
        kind=kind, arm="a", config=config, seed=0, draw=0, root=root, experiment="t", suite="s",
        protocol=Protocol(curve_points=2, check_transition=False), device="cpu", **more,
    )  # fmt: skip


def stopped_after(job, epoch):
    """Run until the end of an epoch, as Ctrl-C would stop it."""
    stop = StopSignal()

    def ask(progress):
        stop.requested = stop.requested or progress.done >= epoch

    return run_job(job, ask, stop)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return make(job_of(tmp_path_factory.mktemp("plain"), "final", BASE))[0].run


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_changes_the_classifier_and_nothing_else(tmp_path, plain, name):
    run, progress = make(job_of(tmp_path, "final", with_stage(name)))
    both = load_file(plain / "weights.safetensors"), load_file(run.run / "weights.safetensors")
    differ = {key for key in both[0] if not torch.equal(both[0][key], both[1][key])}
    assert both[0].keys() == both[1].keys()
    assert differ == {"head.weight", "head.bias"}
    total = EPOCHS + (2 if name in ("crt", "lws") else 1)
    assert [(p.done, p.total) for p in progress] == [(e, total) for e in range(1, total + 1)]
    stored = read_run(run.run)
    assert [step for step, _ in stored.curves()["train/nc/nc1_pinv"]] == [1, total]
    assert not list(run.run.glob("checkpoint*"))
    trained = load_run(run.run)
    predicted = load_file(run.run / "predictions.safetensors")
    sources = open_data(BASE, seed=0, device=torch.device("cpu"), cache=Path("unused")).sources
    assert torch.equal(trained.predict(sources.test.images), predicted["test_logits"])
    assert trained.config.second_stage == STAGES[name]
    seconds, images = stored.final["perf/seconds"], stored.final["perf/images_per_s"]
    count = sum(stored.identity.data["class_counts"])
    assert seconds * images == pytest.approx(count * total)


def test_the_second_stage_counts_in_the_time(tmp_path, monkeypatch):
    from nc_tools.experiment import run_job as module

    plain, took = module.run_second_stage.steps, []

    def steps(*arguments, **more):
        took.append((yield from plain(*arguments, **more)))
        return 1000.0 + took[0]

    monkeypatch.setattr(module.run_second_stage, "steps", steps)
    monkeypatch.setattr(TauNormalize, "apply", lambda *_: time.sleep(0.2))
    run = make(job_of(tmp_path, "tuning", with_stage("tau")))[0].run
    assert 0.2 <= took[0] < 100
    assert read_run(run).final["perf/seconds"] > 1000.2


@pytest.mark.parametrize("first", [None, SquareRootSampling()])
def test_the_second_stage_counts_every_class_the_same(tmp_path, monkeypatch, first):
    from nc_tools.experiment import decoupled_stage as module

    plain, labels = module.retrain.steps, []

    def steps(model, stage, fresh, batches, *arguments, **more):
        labels.extend(batch.labels for epoch in range(5) for batch in batches.epoch(epoch))
        return plain(model, stage, fresh, batches, *arguments, **more)

    monkeypatch.setattr(module.retrain, "steps", steps)
    config = replace(with_stage("crt"), data=DataConfig(imbalance=10, sampling=first))
    run = make(job_of(tmp_path, "tuning", config))[0].run
    trained = read_run(run).identity.data["class_counts"]
    assert max(trained) > 8 * min(trained)
    drawn = torch.cat(labels).bincount(minlength=len(trained))
    expected = len(torch.cat(labels)) / len(trained)
    assert all(abs(count - expected) < 5 for count in drawn.tolist())  # each epoch is even up to one sample a class


@pytest.mark.parametrize(
    ("name", "epoch"),
    [
        *(pytest.param(name, epoch, marks=pytest.mark.slow) for name in ("crt", "lws", "tau") for epoch in (2, EPOCHS)),
        *((name, EPOCHS + 1) for name in ("crt", "lws", "tau")),
    ],
)
def test_a_run_stopped_in_either_stage_goes_on_bit_for_bit(tmp_path, name, epoch):
    config = with_stage(name)
    uninterrupted = make(job_of(tmp_path / "whole", "holdout", config))[0].run
    job = job_of(tmp_path / "again", "holdout", config)
    ended = stopped_after(job, epoch)
    if name == "tau" and epoch > EPOCHS:
        assert ended.status == "FINISHED"  # nothing is left to stop
        return
    assert ended.status == "KILLED"
    seconds = float(torch.load(ended.run / "checkpoint.pt", weights_only=True)["seconds"])
    resumed = make(replace(job, resume=True))[0]
    assert resumed.run == ended.run
    one, two = (load_file(path / "weights.safetensors") for path in (uninterrupted, resumed.run))
    assert all(torch.equal(one[key], two[key]) for key in one)
    ours, theirs = read_run(resumed.run), read_run(uninterrupted)
    for key, curve in theirs.curves().items():
        assert ours.curves()[key] == curve
    assert {k: v for k, v in ours.final.items() if "perf/" not in k} == {
        k: v for k, v in theirs.final.items() if "perf/" not in k
    }
    assert ours.final["perf/seconds"] > seconds
    lines = (resumed.run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, config.epochs + 1))  # none is made twice
    assert not list(resumed.run.glob("checkpoint*"))


@pytest.mark.slow
def test_a_stop_between_two_steps_of_the_second_stage_goes_on_too(tmp_path, monkeypatch):
    config = with_stage("crt", batch_size=32)
    uninterrupted = make(job_of(tmp_path / "whole", "tuning", config))[0]
    stop, draw = StopSignal(), EpochSampler.draw

    def ask(*arguments):
        stop.requested = True  # when the first epoch of the second stage is drawn
        return draw(*arguments)

    monkeypatch.setattr(EpochSampler, "draw", ask)
    job = job_of(tmp_path / "again", "tuning", config)
    ended = run_job(job, lambda _: None, stop)
    assert ended.status == "KILLED"
    assert int(torch.load(ended.run / "checkpoint-second.pt", weights_only=True)["step"]) == 1
    monkeypatch.setattr(EpochSampler, "draw", draw)
    resumed = make(replace(job, resume=True))[0]
    assert resumed.score == uninterrupted.score
    ours, theirs = (read_run(r.run).curves()["train/loss"] for r in (resumed, uninterrupted))
    assert ours == theirs


@pytest.mark.slow
def test_a_run_stopped_while_it_estimates_the_noise_goes_on_there(tmp_path, monkeypatch):
    from nc_tools.experiment import noise_estimation as module

    config = replace(BASE, loss=spec(ForwardCorrectionLoss))
    uninterrupted = make(job_of(tmp_path / "whole", "tuning", config))[0]
    job, stop, fit = job_of(tmp_path / "again", "tuning", config), StopSignal(), module.fit

    def fit_a_little(*arguments, **more):
        return fit.steps(*arguments, **more, epoch_end=lambda epoch, *_: setattr(stop, "requested", epoch == 2))

    monkeypatch.setattr(module, "fit", SimpleNamespace(steps=fit_a_little))
    ended = run_job(job, lambda _: None, stop)
    assert ended.status == "KILLED"
    assert int(torch.load(ended.run / "checkpoint-first.pt", weights_only=True)["epochs_done"]) == 2
    assert StageCheckpoints(ended.run).epochs_done() == 0  # nothing of it is in the record
    went_on = []
    note = lambda epoch, *_: went_on.append(epoch)  # noqa: E731
    noted = SimpleNamespace(steps=lambda *arguments, **more: fit.steps(*arguments, **more, epoch_end=note))
    monkeypatch.setattr(module, "fit", noted)
    resumed = make(replace(job, resume=True))[0]
    assert resumed.run == ended.run
    assert went_on == [3, 4]
    assert resumed.score == uninterrupted.score
    final = read_run(resumed.run).final
    assert final["perf/seconds"] * final["perf/images_per_s"] == pytest.approx(
        2 * EPOCHS * sum(read_run(resumed.run).identity.data["class_counts"])
    )


@pytest.mark.parametrize("kind", ["tuning", pytest.param("holdout", marks=pytest.mark.slow)])
def test_no_stage_sees_the_hold_out(tmp_path, monkeypatch, kind):
    for name in ("crt", "ncm"):
        reads = Reads(monkeypatch)
        make(job_of(tmp_path, kind, with_stage(name)))
        opened = open_data(BASE, seed=0, device=torch.device("cpu"), cache=Path("unused"))
        fit, held = set(opened.subsets.fit.tolist()), set(opened.subsets.holdout.tolist())
        assert all(set(indices.tolist()) <= fit for indices in reads.of("train", how="train"))
        for indices in reads.of("train"):
            assert set(indices.tolist()) in (fit, held)
        assert reads.of("test") == []
        monkeypatch.undo()


@pytest.mark.slow
def test_the_best_epoch_may_lie_in_either_stage(tmp_path):
    config = with_stage("tau")
    held = make(job_of(tmp_path, "holdout", config))[0].run
    curve = dict(read_run(held).curves()["holdout/gen/balanced_accuracy"])
    assert set(curve) == set(range(1, EPOCHS + 2))
    assert read_run(held).final["holdout/gen/balanced_accuracy"] == curve[EPOCHS + 1]
    assert curve[EPOCHS + 1] != curve[EPOCHS]
    final = read_run(make(job_of(tmp_path, "final", config, holdout_run=held))[0].run).final
    assert final["best/epoch"] == max(curve, key=lambda e: (curve[e], -e))


def test_every_setting_of_a_second_stage_is_in_the_hash():
    assert run_hash(BASE) != run_hash(with_stage("tau"))
    other = replace(BASE, second_stage=TauNormalize(tau=0.5))
    assert run_hash(with_stage("tau")) != run_hash(other)


def test_how_often_checkpoints_are_written_makes_no_other_run():
    rare = replace(BASE, training=replace(BASE.training, checkpoint_seconds=900.0))
    assert run_hash(rare) == run_hash(BASE)
    assert run_hash(rare) != run_hash(replace(rare, training=replace(rare.training, epochs=EPOCHS + 1)))


def test_tau_is_paid_from_the_same_number_of_trials():
    tried = []

    def run_trials(settings):
        tried.extend(settings)
        return [0.9 if c.second_stage is not None and c.second_stage.tau == 1.0 else 0.5 for _, c in settings]

    arm = replace(with_stage("tau"), tuned=TunedParameter(path="second_stage.tau", values=(0.0, 1.0)))
    tuned = tune({"linear": BASE, "tau": arm}, Protocol(rates=(0.1,), max_extensions=0), run_trials)
    assert tuned.configs["tau"].second_stage == TauNormalize(tau=1.0)
    assert [name for name, _ in tried].count("tau") == [name for name, _ in tried].count("linear") == 3
    assert tuned.to_json()["chosen"]["tau"] == {"lr": 0.1, "second_stage.tau": 1.0}


ARMS = {"linear": BASE, "tau": with_stage("tau"), "crt": with_stage("crt")}


def shown(argv, capsys, arms=None):
    run_in_process(arms or ARMS, name="x", question="Why?", argv=["--print-config", *argv])
    return json.loads(capsys.readouterr().out)["arms"]


def test_a_field_of_a_stage_is_set_where_a_stage_has_it(capsys):
    arms = shown(["--set", "second_stage.tau=0.3"], capsys)
    assert arms["linear"]["second_stage"] is None
    assert arms["tau"]["second_stage"]["tau"] == 0.3
    assert "tau" not in arms["crt"]["second_stage"]


def test_a_stage_is_set_for_all_arms_as_python_writes_it(capsys):
    arms = shown(["--set", "second_stage=LearnableWeightScaling(share=0.3)"], capsys)
    assert {arm["second_stage"]["share"] for arm in arms.values()} == {0.3}
    assert shown(["--set", "second_stage=None"], capsys)["tau"]["second_stage"] is None


WRONG = {
    "field": (["--set", "second_stage.tua=1"], "no arm's second_stage has an argument 'tua'; did you mean 'tau'?"),
    "kind": (["--set", "second_stage=TauNormalise()"], "there is no 'TauNormalise'; did you mean 'TauNormalize'"),
    "family": (["--set", "second_stage=PostHocStage()"], "there is no 'PostHocStage'"),
    "value": (["--set", "second_stage.tau=-1"], "TauNormalize.tau must be at least 0"),
}


@pytest.mark.parametrize(("argv", "message"), WRONG.values(), ids=WRONG)
def test_wrong_input_is_reported_in_one_line(argv, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        run_in_process(ARMS, name="x", question="Why?", argv=[*argv, "--out", str(tmp_path / "out")])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_stage_that_does_not_fit_its_head_is_reported_before_anything_trains(tmp_path, capsys):
    arms = {"linear": BASE, "etf": replace(with_stage("crt", epochs=1), head=spec(ETFHead), model=ModelConfig(width=8))}
    with pytest.raises(SystemExit):
        run_in_process(arms, name="x", question="Why?", argv=["--out", str(tmp_path / "out")])
    error = " ".join(capsys.readouterr().err.split())
    assert "arm etf: classifier re-training needs a head with learned weights" in error
    assert not list((tmp_path / "out").glob("runs/*"))
