"""Runs of heads on fixed features: their records, what they share, what they may not read, and how they resume."""

import copy
import json
import os
import re
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.head_plans import COUNTS, D, K, arms_of, base_of, embeddings, plan_of, run_plan_of

from nc_tools._support.signals import StopSignal
from nc_tools.data import SymmetricNoise
from nc_tools.experiment import load_run
from nc_tools.experiment.build import build_head, build_loss
from nc_tools.experiment.on_features.feature_data import open_feature_data
from nc_tools.experiment.on_features.head_samples import TRIAL_SEEDS
from nc_tools.experiment.on_features.recall_counter import RecallCounter
from nc_tools.experiment.on_features.run_seeds import check_heads, merge_tuning
from nc_tools.experiment.tuning import TuningResult
from nc_tools.heads import CosineHead, ETFHead
from nc_tools.losses import ForwardCorrectionLoss, SupConLoss
from nc_tools.metrics import classification
from nc_tools.models.classifier import Classifier
from nc_tools.run_records import read_run, read_runs
from nc_tools.seeds import stream
from nc_tools.specs import spec
from nc_tools.training import ClassMeanStart, RetrainClassifier, TauNormalize, fit

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("heads")
    path = embeddings(root)
    plan = plan_of(arms_of(base_of(path)))
    result, progress = run_plan_of(plan, path, root)
    assert result == "FINISHED"
    return root, path, plan, progress


def finals(root):
    return {(run.identity.arm, run.identity.seed): run for run in read_runs(root)}


def test_every_arm_has_a_hold_out_and_a_final_run_at_every_seed(made):
    root, _, plan, _ = made
    expected = {(arm, seed) for arm in plan.arms for seed in (0, 1)}
    assert set(finals(root)) == expected
    holdouts = {(run.identity.arm, run.identity.seed) for run in read_runs(root, kinds=("holdout",))}
    assert holdouts == expected
    for run in finals(root).values():
        assert run.status == "FINISHED"
        assert {"test/gen/balanced_accuracy", "test/cal_ts/ece", "cal/temperature", "best/gen/accuracy"} <= set(
            run.final
        )
        assert {"test/nc/nc1_pinv", "train/gen/accuracy", "perf/seconds", "perf/parameters"} <= set(run.final)
        assert (run.path / "predictions.safetensors").exists()
        assert (run.path / "per_class.json").exists()
        assert not (run.path / "best.safetensors").exists()


def test_the_runs_of_a_seed_list_their_tuning_and_their_finals(made):
    root, _, plan, _ = made
    for seed in (0, 1):
        stored = json.loads((root / "seeds" / f"seed-{seed}.json").read_text())
        assert {row["arm"] for row in stored["runs"]} == set(plan.arms)
        assert all(row["status"] == "FINISHED" for row in stored["runs"])
        trials = stored["tuning"]["trials"]
        counts = {arm: sum(t["arm"] == arm for t in trials) for arm in plan.arms}
        assert counts == dict.fromkeys(plan.arms, 3) | {"means": 1}
        for arm, score in stored["scores"].items():
            assert score == max(t["score"] for t in trials if t["arm"] == arm and t["score"] is not None)


def by_hand(path, config, seed, indices_of="train"):
    """A final run's head by the ordinary loop, on features standardized here."""
    data = open_feature_data(config, path, seed=seed, device=torch.device("cpu"))
    indices = getattr(data.subsets, indices_of)
    train = data.train.take(torch.arange(len(data.train)))
    mean = train[indices].double().mean(0)
    spread = train[indices].double().std(0, unbiased=False)
    facts = data.facts(indices)
    from nc_tools.experiment.frame_seed import frame_seed_of

    frame_seed = frame_seed_of(config, seed=seed, draw=0)
    head = build_head(config, facts, D, generator=stream(seed, "head"), frame_seed=frame_seed)

    class Scale(torch.nn.Module):
        def forward(self, x):
            return ((x - mean) / spread).float()

    model = Classifier(Scale(), head)
    fit(model, build_loss(config, facts, D), data.training_batches(indices), config.training, config.optim, seed=seed)
    return model, data


@pytest.mark.parametrize("arm", ["linear", "linear_la", "cosine", "etf", "proxies"])
def test_a_final_run_is_that_of_the_ordinary_loop_on_standardized_features(made, arm):
    root, path, _, _ = made
    run = finals(root)[arm, 1]
    config = load_run(run.path).config
    model, data = by_hand(path, config, seed=1)
    tensors = load_file(run.path / "predictions.safetensors")
    with torch.no_grad():
        expected = model(data.sources.test.take(torch.arange(len(data.sources.test))))
    assert torch.allclose(tensors["test_logits"], expected, atol=1e-4)
    shares = classification(expected, data.sources.test.labels, data.facts(data.subsets.train).class_counts)
    assert run.final["test/gen/balanced_accuracy"] == pytest.approx(shares["balanced_accuracy"])


def test_a_second_stage_changes_the_trained_head(made):
    root, path, _, _ = made
    run = finals(root)["tau", 0]
    config = load_run(run.path).config
    model, _ = by_hand(path, replace(config, second_stage=None), seed=0)
    expected = copy.deepcopy(model.head)
    TauNormalize(tau=config.second_stage.tau).apply(expected, lambda: None)
    assert torch.allclose(load_run(run.path).model.head.weight, expected.weight, atol=1e-4)
    assert run.curves()["train/loss"][-1][0] == 3
    assert read_run(next((root / "runs").glob("tau-s0-d0-holdout-*"))).curves()["holdout/gen/accuracy"][-1][0] == 4


def test_curves_of_the_hold_out_run_are_in_the_final_run(made):
    root, _, _, _ = made
    run = finals(root)["linear", 0]
    holdout = read_run(next((root / "runs").glob("linear-s0-d0-holdout-*")))
    assert run.curves()["holdout/gen/balanced_accuracy"] == holdout.curves()["holdout/gen/balanced_accuracy"]
    assert len(run.curves()["train/loss"]) == 3


def test_early_stopping_ends_each_run_after_its_best_epoch(tmp_path):
    """Beside arms that train all epochs, with the numbers that these have until then."""
    path = embeddings(tmp_path, shift=0.7)
    base = replace(base_of(path), training=replace(base_of(path).training, epochs=12))
    arms = {name: arm for name, arm in arms_of(base).items() if name in ("linear", "proxies")}
    stopped = {
        f"{name}_stopped": replace(arm, training=replace(arm.training, patience=2)) for name, arm in arms.items()
    }
    plan = plan_of(arms | stopped, rates=(0.1,))
    assert run_plan_of(plan, path, tmp_path)[0] == "FINISHED"
    runs = {(r.identity.kind, r.identity.arm, r.identity.seed): r for r in read_runs(tmp_path, ("holdout", "final"))}
    lengths = set()
    for name in stopped:
        for seed in (0, 1):
            holdout, final = (runs[kind, name, seed] for kind in ("holdout", "final"))
            whole = runs["holdout", name.removesuffix("_stopped"), seed]
            if holdout.identity.config["optim"] != whole.identity.config["optim"]:
                continue  # tuned to another setting
            key = "holdout/gen/balanced_accuracy"
            scores, every = (dict(run.curves()[key]) for run in (holdout, whole))
            best = max(scores, key=lambda epoch, scores=scores: (scores[epoch], -epoch))
            assert scores == {epoch: every[epoch] for epoch in range(1, min(best + 2, 12) + 1)}
            assert holdout.final["best/epoch"] == best
            assert holdout.final[key] == scores[best]
            assert max(epoch for epoch, _ in final.curves()["train/loss"]) == best
            lengths.add(len(scores))
    assert lengths
    assert min(lengths) < 12


def test_loaded_runs_give_the_recorded_logits(made):
    root, path, _, _ = made
    test = open_feature_data(base_of(path), path, seed=0, device=torch.device("cpu")).sources.test
    for run in finals(root).values():
        model = load_run(run.path).model
        logits = load_file(run.path / "predictions.safetensors")["test_logits"]
        with torch.no_grad():
            assert torch.allclose(model(test.take(torch.arange(len(test)))), logits, atol=1e-5), run.path.name


def test_finished_runs_are_not_repeated(made):
    root, path, plan, _ = made
    before = {file: file.stat().st_mtime_ns for file in (root / "runs").rglob("final.json")}
    result, progress = run_plan_of(plan, path, root)
    assert (result, progress) == ("FINISHED", [])
    assert {file: file.stat().st_mtime_ns for file in (root / "runs").rglob("final.json")} == before


def test_a_lost_final_run_is_made_again_without_tuning(made, tmp_path):
    _, path, plan, _ = made
    root = shutil.copytree(made[0], tmp_path / "copy")
    lost = finals(root)["linear_la", 0]
    shutil.rmtree(lost.path)
    result, progress = run_plan_of(plan, path, root)
    assert result == "FINISHED"
    assert {p.label for p in progress} == {
        "final runs (1 heads), pack 1 of 1",
        "evaluating final runs",
    }
    again = finals(root)["linear_la", 0]
    assert again.final["test/cal/nll"] == pytest.approx(lost.final["test/cal/nll"], abs=1e-5)


def test_trials_have_other_weights_and_frames_than_final_runs(made):
    root, _, _, _ = made
    assert all(run.identity.seed < TRIAL_SEEDS for run in read_runs(root, kinds=("final", "holdout")))
    frames = {seed: finals(root)["etf", seed].identity.frame_seed for seed in (0, 1)}
    assert len(set(frames.values())) == 2
    holdout = read_run(next((root / "runs").glob("etf-s0-d0-holdout-*")))
    assert holdout.identity.frame_seed == frames[0], "temperature and best epoch are those of the same frame"


def test_tuning_and_choice_do_not_read_the_test_set(tmp_path):
    """With other test samples the hold-out results are the same to the bit."""
    scores = []
    for shift in (0, 1):
        root = tmp_path / str(shift)
        root.mkdir()
        path = embeddings(root)
        with np.load(path) as file:
            content = dict(file)
        test = content["split"] == "test"
        content["features"][test] += 100 * shift
        content["labels"][test] = (content["labels"][test] + shift) % K
        np.savez(path, **content)
        plan = plan_of({k: v for k, v in arms_of(base_of(path)).items() if k in ("linear", "etf")}, seeds=(0,))
        run_plan_of(plan, path, root)
        scores.append(json.loads((root / "seeds" / "seed-0.json").read_text())["tuning"]["trials"])
    assert scores[0] == scores[1]


def test_an_arm_that_always_diverges_is_listed_and_the_others_finish(tmp_path):
    path = embeddings(tmp_path)
    base = base_of(path)
    wild = replace(base, optim=replace(base.optim, optimizer=spec(torch.optim.SGD), weight_decay=1e30))
    wild = replace(wild, tuned=replace(wild.tuned, values=(1e31,)))
    plan = plan_of({"linear": base, "wild": wild}, seeds=(0,))
    run_plan_of(plan, path, tmp_path)
    stored = json.loads((tmp_path / "seeds" / "seed-0.json").read_text())
    assert [row["arm"] for row in stored["runs"]] == ["linear"]
    assert "wild: no tuning trial gave a score" in stored["tuning"]["notes"]


def test_noise_and_outlier_rows_are_measured(tmp_path):
    random = np.random.default_rng(0)
    rows = sum(COUNTS)
    split = np.asarray(["test" if i % 3 == 0 else "train" for i in range(rows)] + ["ood_far"] * 20)
    labels = np.concatenate([np.repeat(np.arange(K), COUNTS), np.zeros(20, int)])
    features = np.concatenate(
        [2 * np.eye(K, D)[labels[:rows]] + random.normal(size=(rows, D)), 9 + random.normal(size=(20, D))]
    )
    path = embeddings(tmp_path, features=features, labels=labels, split=split)
    base = base_of(path, noise=SymmetricNoise(0.2))
    run_plan_of(plan_of({"linear": base, "etf": arms_of(base)["etf"]}, seeds=(0,)), path, tmp_path)
    run = finals(tmp_path)["linear", 0]
    assert run.final["train/noise/rate"] == pytest.approx(0.2, abs=0.1)
    assert {"train/gen_clean/accuracy", "noise/transition_error_anchor"} <= set(run.final)
    assert run.final["test/ood/far/energy/auroc"] >= 0
    assert (run.path / "suspects.csv").exists()


def test_recall_counts_are_those_of_the_metric():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 50, 5, generator=generator)
    labels = torch.randint(0, 4, (4, 50), generator=generator)  # class 4 has no sample
    counter = RecallCounter(4, 5)
    for part in range(0, 50, 16):
        counter.add(logits[:, part : part + 16], labels[:, part : part + 16])
    for own, z, y in zip(counter.metrics(), logits, labels, strict=True):
        expected = classification(z, y, [1] * 5)
        assert own["holdout/gen/accuracy"] == pytest.approx(expected["accuracy"])
        assert own["holdout/gen/balanced_accuracy"] == pytest.approx(expected["balanced_accuracy"])
        assert own["holdout/cal/nll"] == pytest.approx(float(torch.nn.functional.cross_entropy(z, y)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"second_stage": RetrainClassifier()}, "RetrainClassifier trains a classifier again"),
        ({"loss": spec(SupConLoss)}, "a batch of features has one view of each sample"),
        ({"head": spec(ETFHead)}, "no parameter of the model can be trained"),
        ({"head": spec(CosineHead), "second_stage": TauNormalize()}, "tau-normalization changes the norms"),
        ({"data": None}, "must have the same data settings"),
        ({"training": None}, "has other features or batch size"),
        ({"loss": spec(ForwardCorrectionLoss)}, "needs a transition matrix"),
    ],
)
def test_arms_that_cannot_run_are_refused_before_anything_trains(tmp_path, change, message):
    path = embeddings(tmp_path)
    base = base_of(path)
    if "data" in change:
        change = {"data": replace(base.data, holdout=0.3)}
    if "training" in change:
        change = {"training": replace(base.training, batch_size=7)}
    plan = plan_of({"linear": base, "other": replace(base, **change)})
    with pytest.raises((ValueError, TypeError), match=message) as error:
        check_heads(plan, path)
    assert "arm other" in str(error.value)


def test_the_tuning_of_all_seeds_is_one_file():
    result = TuningResult()
    trial = {"arm": "a", "lr": 0.1, "parameter": "optim.weight_decay", "value": 0.0, "score": 0.5}
    chosen = {"a": {"lr": 0.1, "optim.weight_decay": 0.0}}
    stored = {"tuning": {"trials": [trial], "chosen": chosen, "notes": ["a: at the edge"], "grid": [0.1]}}
    merged = merge_tuning({0: stored, 1: stored, 2: {"tuning": result.to_json()}})
    assert [(t["seed"], t["chosen"]) for t in merged["trials"]] == [(0, True), (1, True)]
    assert merged["notes"] == ["a: at the edge (seed 0, 1)"]
    assert merged["grid"] == [0.1]


def test_a_stop_while_heads_are_computed_ends_the_job_before_the_next_one(tmp_path, monkeypatch):
    path = embeddings(tmp_path)
    stop, computed = StopSignal(), []
    apply = ClassMeanStart.apply

    def stopped_meanwhile(*arguments):
        computed.append(apply(*arguments))
        stop.requested = True

    monkeypatch.setattr(ClassMeanStart, "apply", stopped_meanwhile)
    arm = replace(base_of(path), head=spec(CosineHead), start=ClassMeanStart())
    arm = replace(arm, training=replace(arm.training, epochs=0))
    plan = plan_of({"linear": base_of(path), "means": arm})
    assert run_plan_of(plan, path, tmp_path, stop=stop)[0] == "KILLED"
    assert len(computed) == 1
    again = []
    monkeypatch.setattr(ClassMeanStart, "apply", lambda *arguments: again.append(apply(*arguments)))
    assert run_plan_of(plan, path, tmp_path)[0] == "FINISHED"
    assert len(again) == 3 + 4, "the other trials, and the hold-out and final runs"


def heads_tuned(progress):
    """How many heads each round of tuning trained."""
    return dict(re.findall(r"tuning, round (\d+) \((\d+) heads\)", "\n".join(p.label for p in progress)))


def test_tuning_that_is_stopped_goes_on_with_the_packs_that_had_not_ended(tmp_path):
    """Stopped by a signal after one pack of the first round, and again after one more, with the same records."""
    path, stopped, whole = embeddings(tmp_path), tmp_path / "stopped", tmp_path / "whole"
    arms = arms_of(base_of(path))
    plan = plan_of({name: arms[name] for name in ("linear", "proxies", "least_squares")}, seeds=(0,))
    expected = heads_tuned(run_plan_of(plan, path, whole)[1])
    for stopped_in, heads in (("pack 2 of 3", {"1": "4"}), ("pack 2 of 2", {"1": "3"}), (None, {"1": "2"})):
        progress = []

        def note(at, progress=progress, stopped_in=stopped_in):
            progress.append(at)
            if stopped_in is not None and stopped_in in at.label:
                os.kill(os.getpid(), signal.SIGINT)

        with StopSignal() as stop:
            ended, _ = run_plan_of(plan, path, stopped, on_progress=note, stop=stop)
        assert ended == ("FINISHED" if stopped_in is None else "KILLED")
        assert heads_tuned(progress) == (expected | heads if stopped_in is None else heads)
    ours, theirs = (json.loads((root / "seeds" / "seed-0.json").read_text()) for root in (stopped, whole))
    assert ours == theirs
    for run in read_runs(stopped, kinds=("holdout", "final")):
        other = read_run(whole / "runs" / run.identity.run_id)
        assert run.curves() == other.curves()
        values, expected_values = ({k: v for k, v in r.final.items() if "perf/" not in k} for r in (run, other))
        assert values == pytest.approx(expected_values, abs=0, nan_ok=True)
