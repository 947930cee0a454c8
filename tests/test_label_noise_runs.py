"""Runs on noisy labels: metrics under both labels, choices by the given ones alone, suspects, noise estimated."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.experiment_runs import make
from support.recipe_commands import run_in_process

from nc_tools._support.signals import StopSignal
from nc_tools.data import DataConfig, PairNoise, SymmetricNoise
from nc_tools.evaluation.evaluator import EvaluationSet
from nc_tools.experiment import ModelConfig, Protocol, RunConfig, load_run, run_data, run_job
from nc_tools.experiment.job import Job
from nc_tools.experiment.run_data import open_data
from nc_tools.heads import LinearHead
from nc_tools.losses import CrossEntropyLoss, EarlyLearningLoss, ForwardCorrectionLoss
from nc_tools.metrics import fit_temperature
from nc_tools.run_records import read_run
from nc_tools.specs import spec
from nc_tools.training import OptimConfig, TrainConfig

pytestmark = pytest.mark.slow

PROTOCOL = Protocol(curve_points=2)
EPOCHS = 14
BASE = RunConfig(
    data=DataConfig(noise=SymmetricNoise(0.3)),
    head=spec(LinearHead),
    loss=spec(CrossEntropyLoss),
    model=ModelConfig(width=8),
    training=TrainConfig(epochs=EPOCHS, batch_size=32),
    optim=OptimConfig(lr=0.1),
)


def job_of(root, kind, config=BASE, protocol=PROTOCOL, **more):
    return Job(
        kind=kind, arm="a", config=config, seed=0, draw=0, root=root, experiment="t", suite="s", protocol=protocol,
        device="cpu", **more,
    )  # fmt: skip


def opened(config=BASE):
    return open_data(config, seed=0, device=torch.device("cpu"), cache=Path("unused"))


def listed(run):
    with (run / "suspects.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def holdout(root):
    return make(job_of(root, "holdout"))[0].run


@pytest.fixture(scope="module")
def final(root, holdout):
    return make(job_of(root, "final", holdout_run=holdout))[0].run


def test_measures_under_given_and_under_true_labels_have_keys_of_their_own(final):
    values = read_run(final).final
    for key in ("gen/accuracy", "gen/balanced_accuracy", "cal/nll", "cal/ece", "nc/nc1_pinv", "nc/nc4_disagreement"):
        group, name = key.split("/")
        pair = values[f"train/{group}/{name}"], values[f"train/{group}_clean/{name}"]
        # Both disagreements are shares of 58 samples, which may be the same.
        assert pair[0] != pair[1] or name == "nc4_disagreement"
    assert not any("_clean" in key for key in values if key.startswith("test/"))
    # The model knows the truth better than its labels.
    assert values["train/gen_clean/accuracy"] > values["train/gen/accuracy"]
    data = opened()
    rate = float((data.sources.train.labels != data.sources.train.clean_labels).double().mean())
    assert values["train/noise/rate"] == rate
    shares = [values[f"train/noise/{name}"] for name in ("fitted", "recovered", "carried_over")]
    assert all(0 <= share <= 1 for share in shares)
    assert values["test/noise/dilation"] == pytest.approx(values["test/nc/nc1_trace"])
    assert values["train/noise/dilation"] == pytest.approx(values["train/nc_clean/nc1_trace"])


def test_memorization_and_dilation_are_followed_along_training_on_train_and_holdout(final, holdout):
    curves = read_run(holdout).curves()
    for split in ("train", "holdout"):
        for name in ("fitted", "carried_over", "distance_true", "dilation"):
            assert [epoch for epoch, _ in curves[f"{split}/noise/{name}"]] == [1, EPOCHS]
    theirs = read_run(final).curves()
    assert theirs["holdout/noise/dilation"] == curves["holdout/noise/dilation"]


def test_runs_on_clean_labels_have_no_metrics_of_noise(tmp_path):
    config = replace(BASE, data=DataConfig(), training=TrainConfig(epochs=1))
    run = make(job_of(tmp_path, "final", config))[0].run
    assert not [key for key in read_run(run).final if "noise" in key or "_clean" in key or "suspects" in key]
    assert not (run / "suspects.csv").exists()
    protocol = replace(PROTOCOL, suspects=7)
    run = make(job_of(tmp_path, "final", config, protocol))[0].run
    rows = listed(run)
    assert len(rows) == 7
    assert "clean" not in rows[0]


@pytest.mark.slow
def test_permuting_the_true_labels_changes_no_choice(tmp_path, monkeypatch, final, holdout):
    """Scores, temperature, best epoch, subsets, weights and suspects come from given labels alone."""
    drawn = run_data.with_noise

    def permuted(images, noise, seed):
        noisy = drawn(images, noise, seed)
        order = torch.randperm(len(noisy), generator=torch.Generator().manual_seed(9))
        return replace(noisy, clean_labels=noisy.clean_labels[order])

    score = make(job_of(tmp_path / "before", "tuning"))[0].score
    before = opened().subsets
    monkeypatch.setattr(run_data, "with_noise", permuted)
    after = opened()
    assert all(
        torch.equal(getattr(before, n), getattr(after.subsets, n)) for n in ("train", "fit", "holdout", "counts")
    )
    assert make(job_of(tmp_path, "tuning"))[0].score == score
    other_holdout = make(job_of(tmp_path, "holdout"))[0].run
    other = make(job_of(tmp_path, "final", holdout_run=other_holdout))[0].run
    for one, two in ((holdout, other_holdout), (final, other)):
        ours, theirs = read_run(one).final, read_run(two).final
        reported = ("_clean/", "/noise/", "noise/", "suspects/", "perf/")
        chosen = {key for key in ours if not any(part in key for part in reported)}
        assert {"cal/temperature", "best/epoch"} <= chosen
        assert {key: theirs[key] for key in chosen} == {key: ours[key] for key in chosen}
        assert ours["noise/transition_error_confusion"] != theirs["noise/transition_error_confusion"]
        kept = load_file(one / "transition.safetensors"), load_file(two / "transition.safetensors")
        estimated = set(kept[0]) - {"counted"}
        assert "confusion" in estimated
        assert all(torch.equal(kept[0][name], kept[1][name]) for name in estimated)
        both = load_file(one / "weights.safetensors"), load_file(two / "weights.safetensors")
        assert all(torch.equal(both[0][name], both[1][name]) for name in both[0])
    assert read_run(final).final["train/gen_clean/accuracy"] > read_run(other).final["train/gen_clean/accuracy"]
    for a, b in zip(listed(final), listed(other), strict=True):
        assert {k: v for k, v in a.items() if k != "clean"} == {k: v for k, v in b.items() if k != "clean"}


def test_tuning_reads_no_true_label(tmp_path, monkeypatch):
    def never(*_):
        raise AssertionError

    monkeypatch.setattr(EvaluationSet, "clean_labels", property(never))
    short = replace(BASE, training=replace(BASE.training, epochs=4))
    assert make(job_of(tmp_path, "tuning", short))[0].score > 0.2


def test_the_holdout_and_its_temperature_use_given_labels(holdout):
    data = opened()
    held = data.subsets.holdout
    logits = load_run(holdout).predict(data.sources.train.take(held))
    given, true = data.sources.train.labels[held], data.sources.train.clean_labels[held]
    values = read_run(holdout).final
    assert values["holdout/gen/accuracy"] == pytest.approx(float((logits.argmax(1) == given).double().mean()))
    assert values["cal/temperature"] == pytest.approx(fit_temperature(logits, given), rel=1e-4)
    assert values["cal/temperature"] != pytest.approx(fit_temperature(logits, true), rel=1e-2)


def test_suspects_are_listed_and_mostly_wrong_where_the_task_is_easy(final):
    data = opened()
    train = data.sources.train
    rows = listed(final)
    assert [int(row["rank"]) for row in rows] == list(range(1, len(train) + 1))
    assert sorted(int(row["index"]) for row in rows) == list(range(len(train)))
    for row in rows[::50]:
        index = int(row["index"])
        assert row["given"] == train.classes[int(train.labels[index])]
        assert row["clean"] == train.classes[int(train.clean_labels[index])]
        assert row["path"] == ""
    wrong = [row["given"] != row["clean"] for row in rows]
    assert sum(wrong[:100]) >= 95
    at_k = sum(wrong[: sum(wrong)]) / sum(wrong)
    values = read_run(final).final
    assert values["train/suspects/precision"] == pytest.approx(at_k)
    assert at_k > 0.8
    assert min(values["train/suspects/precision_loss"], values["train/suspects/precision_distance"]) > 0.75
    right = sum(row["suggested"] == row["clean"] for row in rows[:100])
    assert right >= 80


def test_transition_matrices_are_kept_and_better_than_nothing(final, holdout):
    matrices = load_file(final / "transition.safetensors")
    assert set(matrices) == {"counted", "anchor", "confusion", "confident"}
    held_out = load_file(holdout / "transition.safetensors")
    assert all(torch.equal(matrices[name], held_out[name]) for name in ("confusion", "confident"))
    assert all(float((matrix.sum(1) - 1).abs().max()) < 1e-9 for matrix in matrices.values())
    counted = matrices["counted"]
    off = float((counted - torch.eye(10)).abs().sum(1).mean() / 2)
    values = read_run(final).final
    for name in ("anchor", "confusion", "confident"):
        ours = float((matrices[name] - counted).abs().sum(1).mean() / 2)
        assert ours < off
        if name == "anchor":
            assert values["noise/transition_error_anchor"] == pytest.approx(ours)
    assert values["noise/transition_error_confusion"] < off
    assert values["noise/transition_error_confident"] < off


def test_suspects_and_matrices_need_no_true_label(tmp_path):
    config = replace(BASE, data=DataConfig(), training=TrainConfig(epochs=2))
    protocol = replace(PROTOCOL, suspects=9)
    holdout = make(job_of(tmp_path, "holdout", config, protocol))[0].run
    run = make(job_of(tmp_path, "final", config, protocol, holdout_run=holdout))[0].run
    assert set(load_file(run / "transition.safetensors")) == {"anchor", "confusion", "confident"}
    assert len(listed(run)) == 9
    assert not [key for key in read_run(run).final if "noise" in key or "_clean" in key]


def test_an_arm_whose_noise_cannot_be_estimated_is_refused_with_the_reason(tmp_path):
    config = replace(BASE, loss=spec(ForwardCorrectionLoss), training=TrainConfig(epochs=1), optim=OptimConfig(lr=1e-6))
    with pytest.raises(
        ValueError, match=r"cannot be estimated, because the model assigns fewer than 20 samples to \d+ of"
    ):
        run_job.run_job(job_of(tmp_path, "tuning", config), lambda _: None, StopSignal())


@pytest.mark.slow
def test_forward_correction_estimates_the_noise_in_a_first_stage_and_resumes_with_it(tmp_path, monkeypatch):
    transitions = []
    plain = run_job.build_loss

    def build_loss(config, facts, feature_dim, *, transition=None):
        transitions.append(transition)
        return plain(config, facts, feature_dim, transition=transition)

    monkeypatch.setattr(run_job, "build_loss", build_loss)
    config = replace(BASE, data=DataConfig(noise=PairNoise(0.4)), loss=spec(ForwardCorrectionLoss))
    job = job_of(tmp_path, "tuning", config)
    uninterrupted = make(job)[0]
    (estimate,) = transitions
    assert (estimate.sum(1) - 1).abs().max() < 1e-9
    pairs = estimate[torch.arange(10), (torch.arange(10) + 1) % 10]
    assert float(pairs.mean()) > 0.2  # .4 in truth, 1/90 of the rest by chance
    seconds = read_run(uninterrupted.run).final["perf/seconds"]
    stopped = replace(job, root=tmp_path / "again")
    stop = StopSignal()

    def ask(_progress):
        stop.requested = True

    assert run_job.run_job(stopped, ask, stop).status == "KILLED"
    resumed = make(replace(stopped, resume=True))[0]
    assert all(torch.equal(transition, estimate) for transition in transitions)
    assert len(transitions) == 3
    assert resumed.score == uninterrupted.score
    assert seconds > 0


def test_early_learning_counts_in_the_whole_training_set(tmp_path):
    config = replace(BASE, loss=spec(EarlyLearningLoss), training=TrainConfig(epochs=1, batch_size=64))
    assert make(job_of(tmp_path, "tuning", config))[0].status == "FINISHED"


@pytest.fixture
def pictures(tmp_path):
    """A folder of 2 x 6 images with a CSV of labels, one of them wrong."""
    rows = ["path,human,unknown"]
    for split, count in (("train", 6), ("test", 3)):
        for name in ("cat", "dog"):
            (tmp_path / "pictures" / split / name).mkdir(parents=True)
            for i in range(count):
                path = Path(split) / name / f"{i}.png"
                Image.new("RGB", (8, 8), (30 * i, 9, 9 if name == "cat" else 200)).save(tmp_path / "pictures" / path)
                label = "dog" if (split, name, i) == ("train", "cat", 0) else name
                rows.append(f"{path},{label},{'fox' if i == 1 else label}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    return tmp_path


def test_human_labels_take_the_place_of_the_noise_that_a_recipe_draws(pictures, capsys):
    flags = ["--data", f"imagefolder:{pictures / 'pictures'}", "--labels", f"{pictures / 'labels.csv'}:human"]
    run_in_process({"a": BASE}, name="x", question="Why?", argv=["--print-config", *flags])
    assert json.loads(capsys.readouterr().out)["arms"]["a"]["data"].get("noise") is None


def test_suspects_of_a_folder_have_paths(pictures):
    human, source = f"{pictures / 'labels.csv'}:human", f"imagefolder:{pictures / 'pictures'}"
    data = DataConfig(source, labels=human, clean="data", holdout=0.4)
    config = replace(BASE, data=data, training=TrainConfig(epochs=1, batch_size=4))
    run = make(job_of(pictures / "out", "final", config))[0].run
    rows = listed(run)
    assert len(rows) == 12
    assert {row["path"] for row in rows if row["given"] != row["clean"]} == {"train/cat/0.png"}
    assert read_run(run).final["train/noise/rate"] == pytest.approx(1 / 12)


def test_labels_whose_truth_is_unknown_have_suspects_and_no_rate(pictures):
    human, source = f"{pictures / 'labels.csv'}:human", f"imagefolder:{pictures / 'pictures'}"
    config = replace(BASE, data=DataConfig(source, labels=human), training=TrainConfig(epochs=1, batch_size=4))
    holdout = make(job_of(pictures / "out", "holdout", config))[0].run
    run = make(replace(job_of(pictures / "out", "final", config), holdout_run=holdout))[0].run
    assert "clean" not in listed(run)[0]
    assert len(load_file(run / "transition.safetensors")) > len(load_file(holdout / "transition.safetensors")) > 0
    assert not [key for key in read_run(run).final if "noise" in key or "_clean" in key]


WRONG = {
    "rate": (["--set", "data.noise.rate=40"], r"must lie in [0, 1), got 40: did you mean 0.4?"),
    "kind": (["--set", "data.noise=PairNois(0.3)"], "did you mean 'PairNoise'"),
    "map": (["--set", "data.noise=AsymmetricNoise(0.3)"], "names the class 'truck', which the data do not have"),
    "matrix": (["--set", "data.noise=MatrixNoise(((0.9, 0.0), (0.0, 1.0)))"], "row 0 sums to 0.9"),
    "size": (["--set", "data.noise=MatrixNoise(((0.9, 0.1), (0.0, 1.0)))"], "must have the shape (10, 10)"),
}


def refused_here(argv, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        run_in_process({"a": BASE}, name="x", question="Why?", argv=[*argv, "--out", str(tmp_path / "out")])
    shown = capsys.readouterr().err
    assert end.value.code == 2
    assert shown.count("\n") == 1
    return shown


@pytest.mark.parametrize(("argv", "message"), WRONG.values(), ids=WRONG)
def test_wrong_noise_is_reported_in_one_line(argv, message, tmp_path, capsys):
    assert message in refused_here(argv, tmp_path, capsys)


def test_a_label_file_with_unknown_classes_is_reported_in_one_line(pictures, capsys):
    argv = ["--data", f"imagefolder:{pictures / 'pictures'}", "--labels", f"{pictures / 'labels.csv'}:unknown"]
    error = refused_here(argv, pictures, capsys)
    assert "line 3, column 'unknown': the label 'fox' is neither a class name nor an index from 0 to 1" in error


def test_default_arms_run_unless_others_are_named(capsys):
    arms = dict.fromkeys(("a", "b", "c"), BASE)

    def shown(*argv):
        run_in_process(arms, name="x", question="Why?", default_arms=("a", "c"), argv=["--print-config", *argv])
        return list(json.loads(capsys.readouterr().out)["arms"])

    assert shown() == ["a", "c"]
    assert shown("--arms", "all") == ["a", "b", "c"]
    assert shown("--arms", "b,a") == ["b", "a"]
    with pytest.raises(SystemExit):
        run_in_process(arms, name="x", question="Why?", default_arms=("a", "c"), argv=["--help"])
    assert "(default: a, c)" in " ".join(capsys.readouterr().out.split())
