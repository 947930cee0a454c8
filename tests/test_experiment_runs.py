"""Runs in this process: what is read when, what is shared by all arms, what is not repeated."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.experiment_runs import EPOCHS, Reads, config_of, job_of, make, recipe

from nc_tools._support.signals import Killed, StopSignal
from nc_tools.evaluation.collect import evaluation_batch
from nc_tools.experiment import load_run
from nc_tools.experiment.build import build_model
from nc_tools.experiment.evaluate import final_run
from nc_tools.experiment.evaluate.epochs import curve_epochs
from nc_tools.experiment.evaluate.holdout_run import HoldoutResult
from nc_tools.experiment.run_data import RunData, facts_of, open_data
from nc_tools.experiment.run_job import run_job
from nc_tools.metrics import CONFORMAL_METHODS, fit_temperature
from nc_tools.run_records import read_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def data():
    return open_data(config_of("etf"), seed=0, device=torch.device("cpu"), cache=Path("unused"))


@pytest.fixture(scope="module")
def holdout(root):
    return make(job_of(root, "holdout", "etf"))[0].run


@pytest.fixture(scope="module")
def final(root, holdout):
    return make(job_of(root, "final", "etf", holdout_run=holdout))[0].run


@pytest.mark.parametrize("kind", ["tuning", "holdout"])
def test_no_run_that_chooses_anything_sees_the_test_set_or_the_rest(tmp_path, monkeypatch, data, kind):
    reads = Reads(monkeypatch)
    make(job_of(tmp_path, kind, "etf"))
    assert reads.of("test") == []
    assert reads.of("transfer_test") == []
    (trained,) = reads.of("train", how="train")
    assert torch.equal(trained, data.subsets.fit)
    allowed = set(data.subsets.fit.tolist()) | set(data.subsets.holdout.tolist())
    assert all(set(indices.tolist()) <= allowed for indices in reads.of("train"))


def test_a_final_run_trains_on_the_whole_subset_and_reads_the_test_set_after_the_last_step(
    tmp_path, monkeypatch, data, holdout
):
    reads = Reads(monkeypatch)
    at = []

    def report(progress):
        at.append((progress.done, len(reads.of("test"))))

    run_job(job_of(tmp_path, "final", "etf", holdout_run=holdout), report, StopSignal())
    assert at == [(epoch, 0) for epoch in range(1, EPOCHS + 1)]
    (trained,) = reads.of("train", how="train")
    assert torch.equal(trained.sort().values, data.subsets.train.sort().values)
    # Once with the weights of the last epoch, once with those of the hold-out run's best.
    assert reads.of("test") == [None, None]
    outside, subset = set(data.subsets.outside.tolist()), set(data.subsets.train.tolist())
    for indices in reads.of("train"):
        assert set(indices.tolist()) <= subset or set(indices.tolist()) <= outside


def test_without_a_holdout_run_the_test_set_is_read_once_and_nothing_is_borrowed(tmp_path, monkeypatch, data):
    reads = Reads(monkeypatch)
    result, _ = make(job_of(tmp_path, "final", "etf"))
    assert reads.of("test") == [None]
    final = read_run(result.run).final
    assert "cal/temperature" not in final
    assert not any(key.startswith(("best/", "test/cal_ts/")) for key in final)
    assert "cal/temperature_oracle" in final


def test_fit_and_holdout_and_outside_share_no_image(data):
    parts = [set(part.tolist()) for part in (data.subsets.fit, data.subsets.holdout, data.subsets.outside)]
    assert sum(map(len, parts)) == len(set().union(*parts)) == len(data.sources.train)
    assert parts[0] | parts[1] == set(data.subsets.train.tolist())


def test_temperature_and_best_epoch_are_those_of_the_holdout_run(holdout, final):
    ours, theirs = read_run(final).final, read_run(holdout).final
    assert ours["cal/temperature"] == theirs["cal/temperature"]
    assert ours["best/epoch"] == theirs["best/epoch"]
    curve = read_run(holdout).curves()["holdout/gen/balanced_accuracy"]
    best = max(value for _, value in curve)
    assert theirs["best/epoch"] == next(epoch for epoch, value in curve if value == best)
    assert read_run(final).curves()["holdout/gen/balanced_accuracy"] == curve


def test_the_oracle_temperature_comes_from_images_outside_the_subset(final, data):
    pixels = data.sources.train.take(data.subsets.outside)
    logits = load_run(final).predict(pixels)
    expected = fit_temperature(logits, data.sources.train.labels[data.subsets.outside])
    assert read_run(final).final["cal/temperature_oracle"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_a_run_gives_its_model_back_bit_for_bit(tmp_path, data, precision):
    config = config_of("etf_la", precision=precision, ema_decay=0.9)
    result, _ = make(job_of(tmp_path, "final", "etf_la", seed=0, draw=2, config=config))
    stored = load_file(result.run / "predictions.safetensors")
    assert len(data.sources.test) > evaluation_batch(8)  # more than one batch
    trained = load_run(result.run)
    assert torch.equal(trained.predict(data.sources.test.images), stored["test_logits"])
    assert torch.equal(data.sources.test.labels, stored["test_labels"])
    assert trained.config == replace(config, tuned=trained.config.tuned)
    assert trained.facts.num_classes == 7
    with pytest.raises(ValueError, match=r"images must be uint8 of shape \(N, 1, 8, 8\), got torch.float32"):
        trained.predict(torch.zeros(1, 1, 8, 8))


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no run\.json"):
        load_run(tmp_path)


def test_a_second_run_with_the_same_config_repeats_nothing(final, holdout, monkeypatch):
    before = {p: p.stat().st_mtime_ns for p in final.rglob("*")}
    reads = Reads(monkeypatch)
    result, progress = make(job_of(final.parents[1], "final", "etf", holdout_run=holdout))
    assert (result.run, result.status, result.earlier) == (final, "FINISHED", True)
    assert (progress, reads.made) == ([], [])
    assert {p: p.stat().st_mtime_ns for p in final.rglob("*")} == before


@pytest.mark.slow
def test_a_changed_config_or_seed_or_draw_is_another_run(root, final, holdout):
    for job in (
        job_of(root, "final", "etf", draw=1, holdout_run=holdout),
        job_of(root, "final", "etf", config=config_of("etf", batch_size=33), holdout_run=holdout),
    ):
        result, _ = make(job)
        assert not result.earlier
        assert result.run != final
    one, other = (read_run(p).identity for p in sorted(root.glob("runs/etf-s0-d[01]-final-*")) if p == final or
                  "-d1-" in p.name)  # fmt: skip
    assert one.group_hash == other.group_hash  # draws are replicates


@pytest.mark.slow
def test_all_arms_of_a_seed_share_backbone_subset_order_and_augmentation(tmp_path, monkeypatch):
    batches = {}
    training = RunData.training_batches

    def training_batches(data, indices, *views, **drawn):
        loader = training(data, indices, *views, **drawn)
        # A second stage, which draws class by class, asks again.
        batches.setdefault(current, [(b.index, b.inputs, b.labels) for epoch in (0, 1) for b in loader.epoch(epoch)])
        return loader

    monkeypatch.setattr(RunData, "training_batches", training_batches)
    backbones, heads = {}, {}
    for current in recipe.ARMS:
        job = job_of(tmp_path, "tuning", current, seed=4)
        make(job)
        data = open_data(job.config, seed=4, device=torch.device("cpu"), cache=tmp_path)
        facts = facts_of(data.sources, data.sources.train.labels[data.subsets.fit])
        model = build_model(job.config, facts, seed=4, frame_seed=None)
        backbones[current], heads[current] = model.backbone.state_dict(), model.head.state_dict()
    for arm in recipe.ARMS:
        assert len(batches[arm]) == len(batches["linear"]) > 4
        for one, other in zip(batches[arm], batches["linear"], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        assert backbones[arm].keys() == backbones["linear"].keys()
        assert all(torch.equal(v, backbones["linear"][k]) for k, v in backbones[arm].items())
    # Two arms with one kind of head start from the same head, too.
    assert all(torch.equal(v, heads["linear"][k]) for k, v in heads["linear_la"].items())
    first, later = batches["linear"][0], batches["linear"][len(batches["linear"]) // 2]
    assert not torch.equal(first[0], later[0])  # epochs differ


def test_another_seed_changes_all_and_another_frame_seed_only_the_frame(data):
    facts = facts_of(data.sources, data.sources.train.labels[data.subsets.fit])
    config = config_of("etf_la")

    def state(seed, frame_seed):
        return build_model(config, facts, seed=seed, frame_seed=frame_seed).state_dict()

    base, drawn, seeded = state(0, 0), state(0, 1), state(1, 0)
    differing = {k for k in base if not torch.equal(base[k], drawn[k])}
    assert set(differing) == {"head.frame"}
    differing = {k for k in base if not torch.equal(base[k], seeded[k])}
    assert "head.projection.weight" in differing
    assert any(k.startswith("backbone") for k in differing)
    assert "head.frame" not in differing  # the same frames at every seed


def test_trials_leave_neither_weights_nor_predictions_nor_checkpoints(tmp_path):
    result, _ = make(job_of(tmp_path, "tuning"))
    assert {p.name for p in result.run.iterdir()} == {
        "run.json",
        "status.json",
        "metrics.jsonl",
        "final.json",
        "figures",
    }
    assert result.score == read_run(result.run).final["holdout/gen/balanced_accuracy"]


def test_a_final_run_leaves_what_the_record_promises(final):
    names = {p.name for p in final.iterdir()}
    assert names >= {"run.json", "status.json", "metrics.jsonl", "final.json", "per_class.json"}
    assert names >= {"predictions.safetensors", "weights.safetensors"}
    assert not names & {"checkpoint.pt", "best.safetensors"}
    assert not [n for n in names if n.startswith(".") or n.endswith(".part")]
    table = json.loads((final / "per_class.json").read_text())
    assert {len(table[key]) for key in ("classes", "train_counts", "test_counts", "recall", "group")} == {7}
    assert {len(values) for values in table["coverage"].values()} == {7}
    assert table["coverage"].keys() == set(CONFORMAL_METHODS)
    final_values = read_run(final).final
    for method, values in table["coverage"].items():
        assert min(values) == pytest.approx(final_values[f"test/conformal/{method}/coverage_worst"])
        assert sum(values) / 7 == pytest.approx(final_values[f"test/conformal/{method}/coverage_balanced"])
    keys = read_run(final).final.keys()
    for group in ("test/gen", "test/cal", "test/cal_ts", "test/cal_oracle", "train/nc", "test/nc", "transfer", "perf"):
        assert any(key.startswith(f"{group}/") for key in keys), group


def test_a_diverging_run_fails_with_step_and_term_and_is_not_repeated(tmp_path):
    config = config_of("linear")
    config = replace(config, optim=replace(config.optim, lr=1e20, warmup=0.0))
    job = job_of(tmp_path, "tuning", config=config)
    result = run_job(job, lambda _: None, StopSignal())
    assert (result.status, result.diverged, result.unexpected) == ("FAILED", True, False)
    assert "CrossEntropy was not finite at step" in result.error
    assert read_run(result.run).status == "FAILED"
    again = run_job(job, lambda _: None, StopSignal())
    assert again.earlier
    assert again.diverged


def test_a_stopped_run_is_killed_and_goes_on_to_the_same_numbers(tmp_path, final, holdout):
    job = job_of(tmp_path, "final", "etf", holdout_run=holdout)
    for _ in range(EPOCHS):  # stopped after every epoch: at its end, the most delicate place
        stop = StopSignal()

        def ask(_progress, stop=stop):
            stop.requested = True

        killed = run_job(job, ask, stop)
        assert killed.status == read_run(killed.run).status == "KILLED"
        assert not killed.unexpected
        job = replace(job, resume=True)
    progress = []
    result = run_job(job, progress.append, StopSignal())
    assert progress == []  # nothing was left to train
    ours, theirs = read_run(result.run), read_run(final)
    timed = {"perf/seconds", "perf/images_per_s", "perf/evaluation_seconds"}
    assert {k: v for k, v in ours.final.items() if k not in timed} == {
        k: v for k, v in theirs.final.items() if k not in timed
    }
    assert ours.curves() == theirs.curves()
    both = [load_file(p / "weights.safetensors") for p in (result.run, final)]
    assert all(torch.equal(both[0][k], both[1][k]) for k in both[1])


def test_a_run_stopped_while_it_fine_tunes_keeps_the_metrics_of_its_best_epoch(tmp_path, monkeypatch, holdout):
    job = job_of(tmp_path, "final", "etf", config=config_of("etf", checkpoint_seconds=0.0), holdout_run=holdout)

    def stopped(*_):
        raise Killed("stopped while fine-tuning")

    first_is_best = HoldoutResult(best_epoch=1)
    monkeypatch.setattr(HoldoutResult, "read", lambda _: first_is_best)
    with monkeypatch.context() as patch:
        patch.setattr(final_run, "evaluate_transfer", stopped)
        assert run_job(job, lambda _: None, StopSignal()).status == "KILLED"
    result, progress = make(replace(job, resume=True))
    assert progress == []  # no epoch is made again
    keys = read_run(result.run).final.keys()
    assert {"best/epoch", "best/gen/accuracy", "transfer/probe/accuracy"} <= keys
    assert not (result.run / "best.safetensors").exists()


def test_curves_are_measured_at_rising_epochs_up_to_the_last():
    for epochs in (1, 2, 30, 200):
        for points in (1, 2, 10):
            chosen = curve_epochs(epochs, points)
            assert max(chosen) == epochs
            assert min(chosen) >= 1
            assert len(chosen) <= max(points, 1)
