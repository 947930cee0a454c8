"""The command nc-tools gain: given labels beside corrected, randomly changed and pruned ones."""

import csv
import json

import numpy as np
import pytest
import torch
from support.runs_here import runs_here
from support.tables import lines

import nc_tools
from nc_tools.cli import main
from nc_tools.data import DataConfig
from nc_tools.data.corrections import Corrections
from nc_tools.features import FeatureSet
from nc_tools.suspects import find_suspects
from nc_tools.suspects.gain_decisions import pruned, random_changes, random_checks
from nc_tools.suspects.label_arms import label_arms

CLASSES = ("ape", "bee", "cow")
FAST = ["--epochs", "20", "--set", "protocol.max_extensions=0", "--set", "protocol.rates=0.003,0.03"]


def noisy_pets(folder, wrong=110, per_class=150, seed=0):
    """An embedding file with wrong training labels, a table of true ones, and decisions that correct all of them."""
    random = np.random.default_rng(seed)
    true = np.repeat(np.arange(3), per_class)
    features = (2 * np.eye(3, 16)[true] + random.normal(size=(len(true), 16))).astype(np.float32)
    split = np.where(np.arange(len(true)) % 3 == 0, "test", "train")
    given = true.copy()
    chosen = random.permutation(np.flatnonzero(split == "train"))[:wrong]
    given[chosen] = (given[chosen] + 1) % 3
    ids = np.asarray([f"{i:03}.png" for i in range(len(true))])
    names = np.asarray(CLASSES)
    np.savez(folder / "pets.npz", features=features, labels=names[given], ids=ids, split=split)
    lines(folder / "true.csv", "path,true", *(f"{ids[i]},{names[true[i]]}" for i in np.flatnonzero(split == "train")))
    rows = [f"{ids[i]},{names[given[i]]},relabel,{names[true[i]]}" for i in chosen[1:]]
    lines(folder / "decisions.csv", "path,given,decision,label", *rows, *(f"{ids[i]},,exclude," for i in chosen[:1]))
    return folder / "pets.npz", {ids[i]: names[given[i]] for i in chosen}


def gain(*words):
    with runs_here():
        main(["gain", *map(str, words), *FAST, "--tracking-uri", "none"])


def rows_of(file):
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


@pytest.mark.slow
def test_correcting_wrong_labels_gains_and_random_changes_do_not(tmp_path, capsys):
    file, wrong = noisy_pets(tmp_path)
    out = tmp_path / "out"
    gain(file, "--corrections", tmp_path / "decisions.csv", "--seeds", "0-2", "--arm", "cosine", "--out", out)
    printed = " ".join(capsys.readouterr().out.split())
    assert "corrected, 109 training labels changed, 1 images left out, 0 labels confirmed: +" in printed
    comparison = nc_tools.compare(out)
    assert comparison.arms == ("given", "corrected", "random", "pruned")
    assert comparison.baseline == "given"
    assert not [caution for caution in comparison.cautions if caution.kind in ("confounded", "not paired")]
    gains = {test.arm: test.paired.mean for test in comparison.family.tests}
    assert all(len(test.seeds) == 3 for test in comparison.family.tests)
    assert gains["corrected"] > 0.01
    assert gains["corrected"] > gains["random"]
    decisions = rows_of(out / "decisions" / "random_changes.csv")
    assert len(decisions) == 110
    assert {row["path"] for row in decisions}.isdisjoint(wrong)
    left_out = rows_of(out / "decisions" / "pruned.csv")
    assert {row["decision"] for row in left_out} == {"exclude"}
    assert len({row["path"] for row in left_out} & set(wrong)) > 0.6 * len(left_out)
    # The runs hold what they were trained on.
    runs = {arm: comparison.cells[arm][0, 0] for arm in comparison.arms}
    assert len({run.data["images_fingerprint"] for run in runs.values()}) == 1
    assert len({run.data["fingerprint"] for run in runs.values()}) == 4
    assert sum(runs["given"].data["class_counts"]) == 300
    assert sum(runs["corrected"].data["class_counts"]) == 299
    assert sum(runs["pruned"].data["class_counts"]) == 300 - len(left_out)
    labels = json.loads((out / "report" / "comparison.json").read_text())["labels"]
    assert labels["corrected"] == "labels of the data with the decisions of decisions.csv"


def test_with_true_labels_the_random_arm_is_checking_as_many_at_random(tmp_path):
    file, wrong = noisy_pets(tmp_path)
    files = {"clean": f"{tmp_path / 'true.csv'}:true", "corrections": str(tmp_path / "decisions.csv")}
    arms = label_arms(file, DataConfig(f"embeddings:{file}", **files), tmp_path / "decisions")
    decisions = rows_of(arms["random"].file)
    assert arms["random"].words == f"{len(decisions)} labels corrected where 110 random images are checked"
    assert {row["path"]: row["given"] for row in decisions}.items() <= wrong.items()
    assert 20 < len(decisions) < 65  # 110 of 300 labels are wrong


def test_random_changes_are_those_of_a_person_on_other_samples():
    generator = torch.Generator().manual_seed(0)
    given = torch.randint(3, (300,), generator=generator)
    decided = torch.zeros(300, dtype=torch.bool)
    decided[:60] = True
    new, excluded = given.clone(), decided & (torch.arange(300) < 10)
    new[10:40] = (given[10:40] + 1) % 3
    samples = FeatureSet(torch.zeros(300, 2), given, CLASSES, "pets")
    labels, out = random_changes(samples, Corrections(new, excluded, decided, ()), seed=1)
    assert not (out & decided).any()
    assert torch.equal(labels[decided], given[decided])
    for k in range(3):
        assert int((out & (given == k)).sum()) == int((excluded & (given == k)).sum())
        for j in range(3):
            changes = [int(((ys != given) & (given == k) & (ys == j)).sum()) for ys in (labels, new)]
            assert changes[0] == changes[1]
    again, _ = random_changes(samples, Corrections(new, excluded, decided, ()), seed=2)
    assert not torch.equal(again, labels)


def test_random_checks_leave_right_labels_and_give_true_ones():
    given, true = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1])
    samples = FeatureSet(torch.zeros(4, 2), given, ("ape", "bee"), "pets", true)
    assert torch.equal(random_checks(samples, 0, seed=0), given)
    assert torch.equal(random_checks(samples, 4, seed=0), true)
    assert int((random_checks(samples, 2, seed=0) != given).sum()) <= 2


def test_pruning_keeps_the_least_suspect_of_every_class():
    generator = torch.Generator().manual_seed(0)
    true = torch.arange(90) % 3
    features = 4 * torch.eye(3, 5)[true] + torch.randn(90, 5, generator=generator)
    labels = torch.where(true == 2, 0, true)
    labels[:2] = 2  # both labels of the class are wrong
    found = find_suspects(features, labels, 3)
    left_out = pruned(found, labels)
    assert not left_out[:2].any()
    assert not (left_out & ~found.likely_wrong).any()
    everyone = type(found)(**{**vars(found), "likely_wrong": torch.ones(90, dtype=torch.bool)})
    kept = ~pruned(everyone, labels)
    assert kept[labels == 0].sum() == kept[labels == 1].sum() == 2
    last = [int(i) for i in found.order.flip(0) if labels[i] == 0][:2]
    assert kept[last].all()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["004.png,relabel,yak"], "yak"),
        (["999.png,relabel,ape"], "there is no image '999.png'"),
        (["001.png,keep,"], "change no training label and leave no image out, so there is no gain to measure"),
        (["001.png,relabel,bee", "001.png,exclude,"], "contradicts line 2"),
        (["001.png,relabel,"], "relabel needs a new label"),
        (["001.png,flip,bee"], "must be keep, relabel or exclude"),
    ],
)
def test_decisions_that_do_not_fit_are_refused_in_one_sentence(tmp_path, capsys, rows, message):
    file, _ = noisy_pets(tmp_path)
    decisions = lines(tmp_path / "c.csv", "path,decision,label", "002.png,keep,", *rows)
    if "contradicts" in message:
        message = "contradicts line 3"
    with pytest.raises(SystemExit) as end:
        gain(file, "--corrections", decisions, "--out", tmp_path / "out")
    assert end.value.code == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert len(printed.strip().splitlines()) == 1


def test_what_cannot_be_compared_is_said_in_one_sentence(tmp_path, capsys):
    (tmp_path / "noisy").mkdir()
    noisy, _ = noisy_pets(tmp_path / "noisy")
    file, _ = noisy_pets(tmp_path, wrong=0)
    with np.load(file) as read:
        np.savez(tmp_path / "nameless.npz", **{name: read[name] for name in read.files if name != "ids"})
    clean = tmp_path / "apart.npz"
    with np.load(file) as read:
        places = np.unique(read["labels"], return_inverse=True)[1]
        np.savez(clean, **{**{name: read[name] for name in read.files}, "features": 50 * np.eye(3)[places]})
    train = [i for i in range(450) if i % 3]
    lines(tmp_path / "yak.csv", "path,true", *(f"{i:03}.png,{'yak' if i == 1 else 'ape'}" for i in train))
    lines(tmp_path / "none_left.csv", "path,decision", *(f"{i:03}.png,exclude" for i in train if i >= 300))
    np.savez(tmp_path / "equal.npz", features=np.eye(9), labels=["ape"] * 9, ids=[f"{i}.png" for i in range(9)])
    for words, message in (
        ([file, "--clean", f"{tmp_path / 'yak.csv'}:true"], "the label 'yak' is neither a class name nor"),
        ([file, "--corrections", tmp_path / "none_left.csv"], "no training image of cow is left: keep at least one"),
        ([tmp_path / "equal.npz"], "must have samples of at least 2 classes, got only 'ape'"),
        ([tmp_path / "nameless.npz"], "decisions are about samples with ids"),
        ([tmp_path / "nameless.npz", "--labels", "x.csv:y"], "nameless.npz has no ids"),
        ([clean], "there is nothing to compare, because no label is suspect and no corrections are given"),
        ([noisy, "--arm", "liner"], "there is no arm 'liner'; did you mean 'linear'"),
        (["digits"], "features of images come from a pretrained model"),
        ([file, "--corrections", tmp_path / "none.csv"], "none.csv"),
    ):
        with pytest.raises(SystemExit) as end:
            gain(*words, "--out", tmp_path / "out")
        assert end.value.code == 2
        printed = capsys.readouterr().err
        assert message in printed, printed
        assert len(printed.strip().splitlines()) == 1
