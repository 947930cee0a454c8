"""Near, far and held-out images in configurations, in runs, and in the report."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from support.experiment_runs import config_of, job_of, make
from support.head_variants import VARIANTS, build
from support.ood_runs import left_out, pictures

from nc_tools.comparison import ComparedRun, compare_runs, render_terminal
from nc_tools.comparison.html_report import comparison_html
from nc_tools.comparison.markdown import markdown_text
from nc_tools.comparison.metric_info import metric_info
from nc_tools.comparison.ood_tables import outlier_tables
from nc_tools.data import DataConfig, ood_sets
from nc_tools.data.load_data import load_data
from nc_tools.evaluation.collect import collect
from nc_tools.evaluation.evaluator import EvaluationSet
from nc_tools.evaluation.head_view import class_vectors
from nc_tools.experiment import Protocol
from nc_tools.experiment.build import build_model
from nc_tools.experiment.evaluate.ood import check_outlier_sets, evaluate_ood
from nc_tools.experiment.run_data import RunData, facts_of, open_data
from nc_tools.ood import SCORES, ood_report
from nc_tools.run_records import read_run

pytestmark = pytest.mark.slow

NAMES = ("auroc", "aupr_in", "aupr_out", "fpr95")
LIST = Path(__file__).parents[1] / "recipes" / "tiny_imagenet_cifar10.csv"


# Configurations and sets


def test_a_set_with_a_test_part_gives_that_and_one_without_gives_all(tmp_path):
    own = pictures(tmp_path / "own", {"train": 4, "val": 2})
    test_only = pictures(tmp_path / "test_only", {"test": 5})
    loose = pictures(tmp_path / "loose", {".": 5})
    sources = load_data(DataConfig(ood_near=own, ood_far=test_only))
    assert (len(sources.ood["near"]), len(sources.ood["far"])) == (6, 15)
    assert sources.ood["near"].shape == sources.train.shape == (1, 8, 8)
    assert len(set(sources.ood["far"].paths)) == 15
    assert len(load_data(DataConfig(ood_far=loose)).ood["far"]) == 15
    assert sources.transfer_train is None


def test_sets_change_the_fingerprint_and_only_they(tmp_path):
    plain = load_data(DataConfig())
    assert plain.ood == {}
    near = load_data(DataConfig(ood_near=pictures(tmp_path / "a", {"test": 5})))
    assert near.fingerprint != plain.fingerprint
    assert torch.equal(near.train.images, plain.train.images)
    assert torch.equal(near.mean, plain.mean)
    held = load_data(DataConfig(held_out_classes=3))
    assert list(held.ood) == ["held_out"]
    assert held.ood["held_out"] is held.transfer_test


def test_scrambled_images_keep_their_pixels_and_nothing_else():
    sources = load_data(DataConfig(source="digits", ood_far="scrambled"))
    mixed, plain = sources.ood["far"].images, sources.test.images
    assert torch.equal(mixed.flatten(1).sort(1).values, plain.flatten(1).sort(1).values)
    assert not torch.equal(mixed, plain)
    moved = [int((mixed[i] != plain[i]).sum()) for i in range(50)]
    assert min(moved) > 5
    again = load_data(DataConfig(ood_near="scrambled")).ood["near"].images
    assert torch.equal(again, mixed)
    assert not torch.equal(ood_sets.scrambled(replace(sources.test, images=plain[:1].repeat(2, 1, 1, 1),
                                                     labels=torch.zeros(2).long())).images[0],
                           ood_sets.scrambled(replace(sources.test, images=plain[:1].repeat(2, 1, 1, 1),
                                                     labels=torch.zeros(2).long())).images[1])  # fmt: skip


def test_classes_are_left_out_by_a_file(tmp_path):
    near = pictures(tmp_path / "near", {"train": 3, "test": 2})
    cache = tmp_path / "cache"
    config = DataConfig(ood_near=near, ood_near_exclude=left_out(tmp_path, "dog"))
    for _ in range(2):  # the second from the cache
        part = load_data(config, cache).ood["near"]
        assert sorted(Path(path).parts[1] for path in part.paths) == ["cat", "cat", "owl", "owl"]
        assert len(load_data(replace(config, ood_near_exclude=None), cache).ood["near"]) == 6
    assert len(list(cache.glob("near-test*"))) == 2  # one does not push the other out
    some = load_data(DataConfig(source=near, ood_near="digits", ood_near_exclude=left_out(tmp_path, "3", "8"))).ood[
        "near"
    ]
    assert set(some.labels.tolist()) == set(range(10)) - {3, 8}
    assert some.shape == (3, 10, 10)


def test_unreadable_images_are_left_out_on_request_and_named(tmp_path):
    near = pictures(tmp_path / "near", {"train": 3, "test": 2})
    (tmp_path / "near" / "test" / "cat" / "0.png").write_bytes(b"no image")
    sources = load_data(DataConfig(ood_near=near, skip_unreadable=True))
    assert len(sources.ood["near"]) == 5
    assert sources.skipped == ("test/cat/0.png",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ood_near": "digit"}, "did you mean 'digits'"),
        ({"ood_far": "scrambld"}, "a data source or 'scrambled', got 'scrambld'"),
        ({"ood_far": "imagefolder:"}, "needs its path"),
        ({"ood_near_exclude": "a.csv"}, "leaves classes out of ood_near, .* got None"),
        ({"ood_near_exclude": "a.csv", "ood_near": "scrambled"}, "leaves classes out of ood_near, .* got scrambled"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DataConfig(**arguments)


def test_wrong_lists_are_refused(tmp_path):
    near = pictures(tmp_path / "near", {"train": 3, "test": 2})

    def loaded(file):
        return load_data(DataConfig(ood_near=near, ood_near_exclude=file))

    with pytest.raises(FileNotFoundError, match=r"none\.csv does not exist: check the path"):
        loaded(str(tmp_path / "none.csv"))
    with pytest.raises(ValueError, match=r"the class 'dgo' to leave out is not in .*; did you mean 'dog'"):
        loaded(left_out(tmp_path, "dgo"))
    with pytest.raises(ValueError, match="it names no class"):
        loaded(left_out(tmp_path))
    with pytest.raises(ValueError, match=r"all classes of .* are excluded"):
        loaded(left_out(tmp_path, "cat", "dog", "owl"))
    with pytest.raises(ValueError, match="ood_near=digits has no images left"):
        load_data(DataConfig(ood_near="digits", ood_near_exclude=left_out(tmp_path, *"0123456789")))
    with pytest.raises(FileNotFoundError, match="nowhere does not exist: check the path"):
        load_data(DataConfig(ood_far=f"imagefolder:{tmp_path / 'nowhere'}"))


def test_the_list_of_shared_classes_is_in_order():
    with LIST.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["wnid"] for row in rows] == sorted({row["wnid"] for row in rows})
    assert len(rows) == 24
    classes = {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"}
    assert {row["cifar10"] for row in rows} <= classes
    assert all(row["why"] and row["name"] for row in rows)
    assert ood_sets.read_classes(LIST) == tuple(row["wnid"] for row in rows)


# Runs


@pytest.fixture(scope="module")
def final(tmp_path_factory):
    config = config_of("etf")
    config = replace(config, data=replace(config.data, ood_far="scrambled"))
    job = job_of(tmp_path_factory.mktemp("ood"), "final", "etf", config=config)
    return read_run(make(job)[0].run).final, config


def test_a_final_run_has_every_set_and_score(final):
    values, _ = final
    keys = {key for key in values if "/ood/" in key}
    expected = {f"test/ood/{s}/{c.name}/{n}" for s in ("held_out", "far") for c in SCORES for n in NAMES}
    expected |= {f"test/ood/{s}/nc5" for s in ("held_out", "far")}
    expected |= {f"test/ood/mean/{c.name}/auroc" for c in SCORES}
    assert keys == expected
    assert all(0 <= values[key] <= 1 for key in keys)
    sets = [values[f"test/ood/{s}/msp/auroc"] for s in ("held_out", "far")]
    assert values["test/ood/mean/msp/auroc"] == pytest.approx(sum(sets) / 2)


def test_scores_are_fitted_on_training_images_with_training_labels_and_measured_on_the_rest(final, monkeypatch):
    _, config = final
    data = open_data(config, seed=0, device=torch.device("cpu"), cache=Path("unused"))
    facts = facts_of(data.sources, data.sources.train.labels)
    model = build_model(config, facts, seed=0, frame_seed=None)
    train = EvaluationSet("train", data.sources.train, data.subsets.train)
    test = EvaluationSet("test", data.sources.test)
    read = []
    plain = RunData.plain_batches

    def plain_batches(self, images, indices=None):
        read.append((id(images), indices))
        return plain(self, images, indices)

    monkeypatch.setattr(RunData, "plain_batches", plain_batches)
    values = evaluate_ood(data, data.evaluator(model, facts), train, test)
    monkeypatch.undo()
    once = [(images, None) for images in data.sources.ood.values()] + [
        (train.images, train.indices),
        (test.images, None),
    ]
    assert read == [(id(images), indices) for images, indices in once]

    def outputs(part):
        return collect(model, plain(data, part.images, part.indices))

    def expected(train):
        sets = {name: collect(model, plain(data, images)) for name, images in data.sources.ood.items()}
        report = ood_report(train, outputs(test), sets, *class_vectors(model.head))
        return {f"test/ood/{key}": value for key, value in report.items()}

    values = {key: value for key, value in values.items() if "/mean/" not in key and not key.endswith("/nc5")}
    assert values == expected(outputs(train))
    assert values != expected(replace(outputs(train), labels=outputs(train).labels.flip(0)))
    without = replace(data, sources=replace(data.sources, ood={}))
    assert evaluate_ood(without, without.evaluator(model, facts), train, test) == {}


def test_large_sets_are_cut_to_the_same_images(final, monkeypatch):
    from nc_tools.experiment.evaluate import ood

    images = load_data(final[1].data).ood["far"]
    assert ood._sample(images) is None
    monkeypatch.setattr(ood, "OOD_SAMPLES", 20)
    chosen = ood._sample(images)
    assert len(chosen) == 20
    assert torch.equal(chosen, ood._sample(images))
    assert len(set(chosen.tolist())) == 20
    assert int(chosen.max()) > 40


def test_class_vectors_give_the_logits_of_every_affine_head():
    affine = 0
    for variant in VARIANTS:
        head = build(variant)
        features = torch.randn(5, head.feature_dim)
        weight, bias = class_vectors(head)
        if weight is None:
            assert bias is None
            assert not head.affine
            continue
        affine += 1
        outputs = head.eval().outputs(features)
        expected = outputs.embedded @ weight.T + (0 if bias is None else bias)
        torch.testing.assert_close(expected, outputs.logits, rtol=1e-4, atol=1e-4)
        assert not weight.requires_grad
    assert affine > 5


# The report


def runs():
    values = {"linear": (0.7, 0.8), "etf": (0.72, 0.9)}
    return [
        ComparedRun(arm, seed, 0, "FINISHED", {
            "test/gen/balanced_accuracy": gen + 0.01 * seed,
            "test/ood/far/knn/auroc": ood,
            "test/ood/far/msp/auroc": ood - 0.1 + 0.02 * seed,
            **({"test/ood/near/nci/auroc": 0.5} if arm == "etf" else {}),
            "test/ood/far/knn/fpr95": 0.3,
        })
        for arm, (gen, ood) in values.items() for seed in range(2)
    ]  # fmt: skip


def test_tables_hold_auroc_by_score_and_set():
    near, far = outlier_tables(compare_runs(runs(), "linear"))
    assert (near.heading, near.scores) == ("near outliers", ("NCI",))
    assert near.rows == (("linear", ("–",)), ("etf", ("50.0",)))
    assert (far.heading, far.scores) == ("far outliers", ("MSP", "KNN"))
    assert far.rows == (("linear", ("71.0", "80.0")), ("etf", ("81.0", "90.0")))
    plain = [replace(run, final={"test/gen/balanced_accuracy": 0.5 + 0.1 * run.seed}) for run in runs()]
    assert outlier_tables(compare_runs(plain, "linear")) == ()
    assert "Out-of-distribution" not in markdown_text(compare_runs(plain, "linear"))
    assert "Out-of-distribution detection" not in comparison_html(compare_runs(plain, "linear"))


def test_a_comparison_that_outliers_decide_needs_some():
    mean, near = (Protocol(primary=f"test/ood/{name}/msp/auroc") for name in ("mean", "near"))
    with pytest.raises(ValueError, match=r"data have none: hold classes out with --set data.held_out_classes=N"):
        check_outlier_sets(mean, load_data(DataConfig()))
    held_out = load_data(DataConfig(held_out_classes=3))
    check_outlier_sets(mean, held_out)
    with pytest.raises(ValueError, match="data have only held_out"):
        check_outlier_sets(near, held_out)
    check_outlier_sets(Protocol(), load_data(DataConfig()))


def test_every_output_shows_them(capsys):
    comparison = compare_runs(runs(), "linear")
    markdown, page = markdown_text(comparison), comparison_html(comparison)
    render_terminal(comparison, Console(width=100, highlight=False), details=True)
    shown = capsys.readouterr().out
    assert "| etf | 81.0 | 90.0 |" in markdown
    assert "### far outliers" in markdown
    assert "Out-of-distribution detection" in page
    assert "<td>81.0</td><td>90.0</td>" in page
    assert "Out-of-distribution, AUROC: far outliers" in shown
    assert [line.split() for line in shown.splitlines() if "81.0" in line] == [["etf", "81.0", "90.0"]]


def test_keys_have_labels():
    auroc, fpr = metric_info("test/ood/held_out/fdbd/auroc"), metric_info("test/ood/near/max_logit/fpr95")
    assert (auroc.label, auroc.direction, auroc.unit) == ("held-out classes, fDBD, AUROC", "higher", "points")
    assert (fpr.label, fpr.direction) == ("near outliers, MaxLogit, FPR at 95 % TPR", "lower")
    assert metric_info("test/ood/own/mine/auroc").label == "own, mine, AUROC"
    assert metric_info("test/ood/near/msp/other").direction == "neither"
