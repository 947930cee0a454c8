"""Training against images of no class: where they come from, who gets them, and that nobody is measured on them."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recipe_fixture import ENVIRONMENT, RECIPES, recipe_module
from rich.console import Console
from safetensors.torch import load_file
from test_experiment_runs import job_of
from test_ood_runs import left_out, pictures

from nc_tools.compare import ComparedRun, compare_runs, render_terminal
from nc_tools.compare.markdown import markdown_text
from nc_tools.compare.report import html_text
from nc_tools.data import BlendedOutliers, DataConfig, Loader, WithOutliers, augment_for, load
from nc_tools.data.exposure import check_apart
from nc_tools.data.outliers import other_class
from nc_tools.experiment import load_run
from nc_tools.experiment.encode import encode
from nc_tools.experiment.execute import execute, identify
from nc_tools.experiment.main import main, make_options, make_plan, parser
from nc_tools.experiment.setup import build_loss, facts_of, open_data
from nc_tools.interruption import StopSignal
from nc_tools.losses import CrossEntropy, OrthogonalOutliers, OutlierExposure, WeightedSum, term
from nc_tools.seeds import stream_seed
from nc_tools.spec import spec
from nc_tools.tracking import read_run

RECIPE = next(path for path in RECIPES if path.stem == "ood")
recipe = recipe_module(RECIPE)
EXPOSED = {"linear_oe", "linear_ortho", "etf_ortho", "two_space_ortho"}
CPU = torch.device("cpu")


# Sets and configurations


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"outliers": "blnded"}, "must be a data source or blended, got 'blnded'"),
        ({"outliers": "scrambled"}, "must be a data source or blended, got 'scrambled'"),
        ({"outliers": "digit"}, "did you mean 'digits'"),
        ({"outliers": "imagefolder:"}, "needs its path"),
        ({"outliers": "digits"}, "another set than source, but both are digits: name another one, or blended"),
        ({"outliers": "imagefolder:a", "ood_near": "imagefolder:b/../a"}, "another set than ood_near"),
        ({"outliers": "imagefolder:a", "ood_far": "imagefolder:a"}, "another set than ood_far"),
        ({"outliers": "cifar10:a", "transfer_data": "cifar10:b"}, "another set than transfer_data"),
        ({"outliers_exclude": "a.csv"}, "leaves classes out of outliers, and that is None"),
        ({"outliers_exclude": "a.csv", "outliers": "blended"}, "that is blended"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DataConfig(**arguments)


def test_sets_of_one_kind_at_two_places_are_two():
    for near in ("imagefolder:b", "scrambled", "cifar10:a"):
        assert DataConfig(outliers="imagefolder:a", ood_near=near, ood_far="scrambled").outliers == "imagefolder:a"


def test_what_was_recorded_without_outliers_keeps_its_hash():
    assert not [key for key in encode(DataConfig()) if key.startswith("outliers")]
    assert encode(DataConfig(outliers="blended"))["outliers"] == "blended"


def test_the_training_part_is_taken_and_of_a_set_without_one_all(tmp_path):
    own = pictures(tmp_path / "own", {"train": 4, "val": 2})
    whole = pictures(tmp_path / "whole", {"test": 5}, size=12)
    sources = load(DataConfig(outliers=own))
    assert sorted({path.split("/")[0] for path in sources.outliers.paths}) == ["train"]
    assert len(sources.outliers) == 12
    assert sources.outliers.shape == sources.train.shape == (1, 8, 8)
    assert sources.ood == {}
    assert len(load(DataConfig(outliers=whole)).outliers) == 15
    colours = load(DataConfig(source=own, outliers="digits"))
    assert colours.outliers.shape == (3, 10, 10)
    assert len(colours.outliers) == len(load(DataConfig()).train)  # its training half
    assert load(DataConfig()).outliers is None
    assert load(DataConfig(outliers="blended")).outliers is None


def test_outliers_change_the_fingerprint_and_only_they(tmp_path):
    plain, blended = load(DataConfig()), load(DataConfig(outliers="blended"))
    assert blended.fingerprint == plain.fingerprint  # made of what is there
    against = load(DataConfig(outliers=pictures(tmp_path / "a", {"train": 5, "test": 2})))
    assert against.fingerprint != plain.fingerprint
    assert torch.equal(against.train.images, plain.train.images)
    assert torch.equal(against.mean, plain.mean)


def test_classes_and_unreadable_files_are_left_out(tmp_path):
    outliers = pictures(tmp_path / "out", {"train": 3, "test": 2})
    (tmp_path / "out" / "train" / "cat" / "0.png").write_bytes(b"no image")
    config = DataConfig(outliers=outliers, outliers_exclude=left_out(tmp_path, "dog"), skip_unreadable=True)
    sources = load(config)
    assert sorted(Path(path).parts[1] for path in sources.outliers.paths) == ["cat", "cat", "owl", "owl", "owl"]
    assert sources.skipped == ("train/cat/0.png",)
    with pytest.raises(ValueError, match=r"'dgo' is to be left out, but .* has none; did you mean 'dog'"):
        load(replace(config, outliers_exclude=left_out(tmp_path, "dgo")))
    source = pictures(tmp_path / "in", {"train": 2, "test": 1})
    with pytest.raises(ValueError, match="outliers must hold images, and of digits none is left"):
        load(DataConfig(source, outliers="digits", outliers_exclude=left_out(tmp_path, *"0123456789")))


@pytest.mark.parametrize(
    ("part", "arguments", "name"),
    [
        ("train", {}, "training"),
        ("test", {}, "test"),
        ("test", {"ood_far": "imagefolder:{far}"}, "far out-of-distribution"),
        ("test", {"ood_near": "imagefolder:{far}"}, "near out-of-distribution"),
        ("train", {"transfer_data": "imagefolder:{far}"}, "transfer training"),
        ("test", {"transfer_data": "imagefolder:{far}"}, "transfer test"),
        ("test", {"held_out_classes": 2}, "held_out out-of-distribution"),
        ("train", {"held_out_classes": 2}, "transfer training"),
    ],
)
def test_outliers_that_are_measured_or_trained_on_elsewhere_are_refused(tmp_path, part, arguments, name):
    """The same pixels in another folder, under another class and another name."""
    home, far = tmp_path / "in", tmp_path / "far"
    classes = ("ant", "bee", "cat", "dog")
    source = pictures(home, {"train": 3, "test": 2}, classes, size=8)
    pictures(far, {"train": 3, "test": 2}, ("x", "y", "z"), size=9)
    arguments = {key: v.format(far=far) if isinstance(v, str) else v for key, v in arguments.items()}
    outliers = pictures(tmp_path / "out", {"train": 4, "test": 1}, ("m", "n"), size=7)
    for i, path in enumerate(sorted((tmp_path / "out" / "train").rglob("*.png"))):  # apart from all others at first
        shade(path, 100 + i)
    for i, path in enumerate([*home.rglob("*.png"), *far.rglob("*.png")]):
        shade(path, i)
    config = DataConfig(source, image_size=8, outliers=outliers, **arguments)
    assert len(load(config).outliers) == 8
    folder = far if any("far" in str(v) for v in arguments.values()) else home
    taken = sorted((folder / part).rglob("*.png"))[-1]
    shutil.copy(taken, tmp_path / "out" / "train" / "n" / "again.png")
    with pytest.raises(ValueError, match=rf"1 of 9 are among the {name} images too, such as train/n/again\.png: take"):
        load(config)


def shade(path, value):
    """Give a picture one colour, so that it is the same at every size, and its own."""
    from PIL import Image

    with Image.open(path) as image:
        size = image.size
    Image.new("RGB", size, (value, 255 - value, 7)).save(path)


def test_streamed_sets_are_compared_too(tmp_path):
    outliers = pictures(tmp_path / "out", {"train": 3, "test": 2})
    near = pictures(tmp_path / "near", {"test": 3})
    for gigabytes in (None, 0.0):
        with pytest.raises(ValueError, match="9 of 9 are among the near out-of-distribution images too"):
            load(DataConfig(outliers=outliers, ood_near=near, memory_gb=gigabytes))


def test_sets_without_files_are_told_without_a_path():
    digits = load(DataConfig())
    with pytest.raises(ValueError, match=r"2 of 2 are among the test images too: take those out"):
        check_apart(digits.test.subset(torch.tensor([3, 5])), {"training": digits.train, "test": digits.test})


# Batches


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40))
@settings(max_examples=100, deadline=None)
def test_partners_are_of_another_class_and_spread_evenly(labels):
    partners = other_class(torch.tensor(labels)).tolist()
    assert len(partners) == len(labels)
    if len(set(labels)) == 1:
        assert all(0 <= place < len(labels) for place in partners)
        return
    assert all(labels[i] != labels[j] for i, j in enumerate(partners))
    for k in set(labels):
        mine = [j for i, j in enumerate(partners) if labels[i] == k]
        others = [j for j in range(len(labels)) if labels[j] != k]
        met = [mine.count(j) for j in others]
        assert max(met) - min(met) <= 1


def digits_loader(seed=0, **more):
    digits = load(DataConfig(held_out_classes=3))
    how = {"mean": digits.mean, "std": digits.std, "augment": augment_for(DataConfig(), 8), "seed": seed} | more
    return Loader(digits.train, torch.arange(len(digits.train)), 64, **how)


def test_blended_outliers_are_averages_of_the_batch_and_leave_it_alone():
    plain, blended = list(digits_loader().epoch(2)), list(BlendedOutliers(digits_loader()).epoch(2))
    assert len(plain) == len(blended) == len(BlendedOutliers(digits_loader())) > 5
    for one, other in zip(plain, blended, strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.labels, other.labels)
        for i, j in enumerate(other_class(one.labels).tolist()):
            assert torch.allclose(other.outliers[i], 0.5 * one.inputs[i] + 0.5 * one.inputs[j])
    late = list(BlendedOutliers(digits_loader()).epoch(2, start=4))
    for one, other in zip(blended[4:], late, strict=True):
        assert torch.equal(one.outliers, other.outliers)


def config_of(arm, **data):
    config = recipe.ARMS[arm]
    training = replace(config.training, epochs=2, batch_size=50)
    return replace(config, training=training, data=replace(config.data, **data))


def batches_of(config, root, seed=0):
    data = open_data(config, seed=seed, device=CPU, cache=root / "cache")
    loss = build_loss(config, facts_of(data.sources, data.sources.train.labels), 32)
    return data, data.batches_for(loss, data.subsets.fit)


def noise_pictures(root, count=60):
    from PIL import Image

    pixels = torch.randint(0, 256, (count, 8, 8, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for split in ("train", "test"):
        (root / split / "noise").mkdir(parents=True)
    for i, image in enumerate(pixels):
        Image.fromarray(image.numpy()).save(root / ("test" if i % 3 == 2 else "train") / "noise" / f"{i:03}.png")
    return f"imagefolder:{root}"


@pytest.mark.parametrize("named", ["blended", "folder", "streamed"])
def test_arms_stay_paired_and_only_those_that_ask_get_outliers(tmp_path, named):
    outliers = "blended" if named == "blended" else noise_pictures(tmp_path / "noise")
    more = {"memory_gb": 0.0} if named == "streamed" else {}
    seen = {}
    for arm in ("linear", *sorted(EXPOSED)):
        _, batches = batches_of(config_of(arm, outliers=outliers, **more), tmp_path)
        seen[arm] = [batch for epoch in (0, 1) for batch in batches.epoch(epoch)]
    plain = seen.pop("linear")
    assert all(batch.outliers is None for batch in plain)
    for arm, batches in seen.items():
        for one, other, first in zip(batches, plain, seen["linear_oe"], strict=True):
            assert torch.equal(one.inputs, other.inputs), arm
            assert torch.equal(one.labels, other.labels)
            assert torch.equal(one.index, other.index)
            assert one.outliers.shape[1:] == one.inputs.shape[1:]
            assert torch.equal(one.outliers, first.outliers)


def test_outliers_of_a_set_are_cut_as_training_images_are_in_an_order_of_their_own(tmp_path):
    config = config_of("linear_oe", outliers=noise_pictures(tmp_path / "noise"), crop_padding=2, flip=True)
    data, batches = batches_of(config, tmp_path, seed=3)
    assert isinstance(batches, WithOutliers)
    sources = data.sources
    direct = Loader(
        sources.outliers, torch.arange(40), 50, mean=sources.mean, std=sources.std,
        augment=augment_for(config.data, 8), seed=stream_seed(3, "outliers"),
    )  # fmt: skip
    assert augment_for(config.data, 8).flip
    mine = [batch.outliers for epoch in (0, 1) for batch in batches.epoch(epoch)]
    for step, outliers in enumerate(mine):  # 40 images in one batch: each step is a round
        assert torch.equal(outliers, next(direct.epoch(step)).inputs)
    other = [batch.outliers for batch in batches_of(config, tmp_path, seed=4)[1].epoch(0)]
    assert not torch.equal(mine[0], other[0])


def test_a_loss_without_outliers_never_opens_a_loader_of_them(tmp_path, monkeypatch):
    from nc_tools.experiment import setup

    made, make = [], setup.make_loader

    def make_loader(images, *given, **named):
        made.append(images)
        return make(images, *given, **named)

    monkeypatch.setattr(setup, "make_loader", make_loader)
    outliers = noise_pictures(tmp_path / "noise")
    data, _ = batches_of(config_of("etf", outliers=outliers), tmp_path)
    assert [images is data.sources.train for images in made] == [True]
    data, _ = batches_of(config_of("etf_ortho", outliers=outliers), tmp_path)
    assert [images is data.sources.outliers for images in made] == [False, False, True]


def test_a_sum_needs_what_a_part_needs():
    parts = [CrossEntropy(), WeightedSum([term(1.0, OutlierExposure())]), OrthogonalOutliers()]
    assert [part.needs_outliers for part in parts] == [False, True, True]
    assert WeightedSum([term(1.0, parts[0]), term(0.1, parts[1])]).needs_outliers
    assert not WeightedSum([term(1.0, parts[0])]).needs_outliers


# Runs


class After(StopSignal):
    """Asks to stop at the n-th look."""

    def __init__(self, looks):
        super().__init__()
        self.left = looks

    @property
    def requested(self):
        self.left -= 1
        return self.left < 0

    @requested.setter
    def requested(self, value):
        pass


@pytest.mark.parametrize("named", ["blended", "folder"])
def test_a_run_stopped_within_an_epoch_goes_on_to_the_same_weights(tmp_path, named):
    outliers = "blended" if named == "blended" else noise_pictures(tmp_path / "noise", 180)  # 3 batches a round
    config = config_of("etf_ortho", outliers=outliers)
    whole = execute(job_of(tmp_path / "a", "holdout", "x", config=config), lambda _: None, StopSignal())
    assert whole.error is None, whole.error
    job = job_of(tmp_path / "b", "holdout", "x", config=config)
    for looks in (4, 9):
        assert execute(job, lambda _: None, After(looks)).status == "KILLED"
        job = replace(job, resume=True)
    again = execute(job, lambda _: None, StopSignal())
    one, other = (load_file(result.run / "weights.safetensors") for result in (whole, again))
    assert all(torch.equal(one[name], other[name]) for name in one)
    told = json.loads((again.run / "run.json").read_text())
    assert told["data"]["outliers"] == told["config"]["data"]["outliers"] == outliers
    curves = read_run(again.run).curves()
    assert {"train/loss_CrossEntropy", "train/loss_OrthogonalOutliers"} <= curves.keys()


def test_the_record_says_what_an_arm_trained_against_and_nothing_for_one_that_did_not(tmp_path):
    facts = facts_of(load(DataConfig()), load(DataConfig()).train.labels)
    told = {arm: identify(job_of(tmp_path, "final", arm, config=recipe.ARMS[arm]), facts).data for arm in recipe.ARMS}
    assert {arm for arm, data in told.items() if data.get("outliers") == "blended"} == EXPOSED
    assert {arm for arm, data in told.items() if "outliers" in data} == EXPOSED
    inner = recipe.ARMS["linear_oe"].loss
    config = replace(recipe.BASE, loss=spec(WeightedSum, terms=(term(1.0, spec(CrossEntropy)), term(1.0, inner))))
    assert identify(job_of(tmp_path, "final", "deep", config=config), facts).data["outliers"] == "blended"
    config = replace(config, data=replace(config.data, outliers=None))  # refused before it runs
    assert "outliers" not in identify(job_of(tmp_path, "final", "deep", config=config), facts).data


def flags(out, *more):
    rules = ["--set", "protocol.rates=0.1", "--seeds", "0", "--epochs", "30"]
    rules += ["--set", f"data.class_counts={(12,) * 7}", "--set", "training.batch_size=128"]
    return [
        *("--smoke", "--device", "cpu", "--workers", "1", "--arms", "linear,linear_oe", "--out", str(out)),
        *rules, *more,
    ]  # fmt: skip


def run_recipe(*argv):
    told = subprocess.run(
        [sys.executable, str(RECIPE), *argv], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    return told.stdout


def run_of(out, kind):
    (found,) = (out / "runs").glob(f"linear_oe-s0-*-{kind}-*")
    return found


def test_the_recipe_trains_tells_and_resumes(tmp_path):
    out, again = tmp_path / "out", tmp_path / "again"
    shown = run_recipe(*flags(out))
    assert "outliers (blended): trained against by linear_oe" in shown
    assert "outliers: linear_oe trained against images of no class (blended)" in " ".join(shown.split())
    assert "linear_oe trained against" in (out / "report" / "comparison.md").read_text()
    shutil.copytree(out, again)
    shutil.rmtree(run_of(again, "final"))
    args = parser("ood", "", list(recipe.ARMS)).parse_args(flags(again))
    plan = make_plan(recipe.ARMS, name="ood", question=recipe.__doc__, protocol=recipe.PROTOCOL, args=args)
    job = replace(
        job_of(again, "final", "linear_oe", config=load_run(run_of(out, "final")).config),
        experiment="ood", suite=plan.suite, protocol=plan.protocol, holdout_run=run_of(again, "holdout"),
    )  # fmt: skip
    threads = torch.get_num_threads()
    torch.set_num_threads(make_options(args).threads)  # as the worker has
    try:
        assert execute(job, lambda _: None, After(31)).status == "KILLED"
    finally:
        torch.set_num_threads(threads)
    assert run_of(again, "final").name == run_of(out, "final").name
    assert (run_of(again, "final") / "checkpoint.pt").exists()
    run_recipe(*flags(again, "--resume"))
    one, other = (load_file(run_of(root, "final") / "weights.safetensors") for root in (out, again))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert read_run(run_of(again, "final")).curves() == read_run(run_of(out, "final")).curves()


def in_process(argv, out):
    main(recipe.ARMS, name="ood", question="Why?", argv=["--smoke", "--out", str(out), *argv])


def test_a_loss_without_its_outliers_is_told_before_anything_is_trained(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        in_process(["--arms", "linear,linear_oe", "--set", "data.outliers=None"], tmp_path)
    assert end.value.code == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "arm linear_oe: WeightedSum trains against images of no class, and data.outliers names none: write" in told
    assert not (tmp_path / "runs").exists()


def test_outliers_without_a_loss_that_wants_them_are_told(tmp_path, capsys, monkeypatch):
    from nc_tools.experiment import run

    def make(comparison):
        raise ValueError("as far as the check")

    monkeypatch.setattr(run._Comparison, "make", make)
    with pytest.raises(SystemExit):
        in_process(["--arms", "linear,etf"], tmp_path)
    assert "outliers (blended): not used: no arm's loss trains against them" in capsys.readouterr().out


# The report


def runs(exposed):
    final = {"test/gen/balanced_accuracy": 0.7, "test/ood/far/msp/auroc": 0.8}
    return [
        ComparedRun(arm, seed, 0, "FINISHED", final, data={"outliers": "blended"} if arm in exposed else {})
        for arm in ("linear", "oe", "across") for seed in range(3)
    ]  # fmt: skip


def test_every_output_says_which_arms_know_more(capsys):
    comparison = compare_runs(runs({"oe", "across"}), "linear")
    (caution,) = (caution for caution in comparison.cautions if caution.kind == "outliers")
    assert caution.text.startswith("oe, across trained against images of no class (blended), which the other arms")
    render_terminal(comparison, Console(width=100, highlight=False))
    for text in (capsys.readouterr().out, markdown_text(comparison), html_text(comparison)):
        assert "oe, across trained against" in " ".join(text.split())
    table = markdown_text(comparison).split("## Out-of-distribution detection")[1]
    assert "oe, across trained against" in table.split("###")[0]
    for none in (set(), {"linear", "oe", "across"}):
        assert not [c for c in compare_runs(runs(none), "linear").cautions if c.kind == "outliers"]
