"""Labels from tables: given, true and corrected ones are three things, and a column has one meaning."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.image_folders import config, save
from support.tables import lines

from nc_tools.data.corrections import read_corrections
from nc_tools.data.label_column import LabelError, classes_of, is_natural_order, labels_of
from nc_tools.data.label_files import LabeledPaths, read_labels
from nc_tools.data.load_data import load_data
from nc_tools.data.subsets import make_subsets


def folder(root, classes, count=6):
    for part, number in (("train", count), ("test", 2)):
        for k, name in enumerate(classes):
            for i in range(number):
                save(root / part / name / f"{part[1]}{k}{i}.png", color=(20 * i, 30 * k, 9 if part == "train" else 99))
    return root


@pytest.fixture
def birds(tmp_path):
    """Six crows and six owls to train on, whose paths and labels are known."""
    return folder(tmp_path / "birds", ("crow", "owl"))


def rows(**changes):
    """The rows of a complete table; ``changes`` gives other labels by position."""
    paths = [f"train/{name}/r{k}{i}.png" for k, name in enumerate(("crow", "owl")) for i in range(6)]
    return [f"{path},{changes.get(f'at{i}', path.split('/')[1])}" for i, path in enumerate(paths)]


def table(path, content, header="path,label"):
    return lines(path, header, *content)


def test_given_labels_replace_the_training_labels_and_are_not_called_noise(birds, tmp_path):
    file = table(tmp_path / "l.csv", rows(at1="owl", at9="crow"))
    sources = load_data(config(birds, labels=f"{file}:label"))
    assert sources.train.labels.tolist() == [0, 1, 0, 0, 0, 0, 1, 1, 1, 0, 1, 1]
    assert sources.train.clean_labels is None
    assert sources.test.labels.tolist() == [0, 0, 1, 1]
    plain = load_data(config(birds))
    assert sources.fingerprint != plain.fingerprint
    assert sources.images_fingerprint == plain.images_fingerprint
    said = " | ".join(sources.reading.sentences)
    assert "given labels: 12 rows of l.csv, column label" in said
    assert "16.7% of the given labels differ from those of the data, by which the test images are labeled" in said


def test_true_labels_come_from_a_table_or_are_those_of_the_data(birds, tmp_path):
    file = lines(tmp_path / "l.csv", "path,worse,clean", *(f"{row},{row.split(',')[1]}" for row in rows()))
    noisy = table(tmp_path / "n.csv", rows(at1="owl"))
    sources = load_data(config(birds, labels=f"{noisy}:label", clean=f"{file}:clean"))
    assert sources.train.labels.tolist()[:3] == [0, 1, 0]
    assert sources.train.clean_labels.tolist() == [0] * 6 + [1] * 6
    own = load_data(config(birds, labels=f"{noisy}:label", clean="data"))
    assert torch.equal(own.train.clean_labels, sources.train.clean_labels)
    assert own.fingerprint == sources.fingerprint != load_data(config(birds, labels=f"{noisy}:label")).fingerprint
    alone = load_data(config(birds, clean=f"{noisy}:label"))
    assert alone.train.labels.tolist() == [0] * 6 + [1] * 6
    assert alone.train.clean_labels.tolist()[:3] == [0, 1, 0]


def test_labels_that_agree_no_better_than_chance_are_refused(birds, tmp_path):
    swapped = table(tmp_path / "l.csv", rows(**{f"at{i}": ("crow", "owl")[i % 2] for i in range(12)}))
    with pytest.raises(ValueError, match=r"only 50% of the labels agree with those of the data, no more than by"):
        load_data(config(birds, labels=f"{swapped}:label"))


WRITTEN = {
    "bare names": lambda row: row.rpartition("/")[2],
    "backslashes": lambda row: row.replace("/", "\\"),
    "absolute": lambda row: f"/data/me/birds/{row}",
    "below the part": lambda row: row.removeprefix("train/"),
}


@pytest.mark.parametrize("form", WRITTEN.values(), ids=WRITTEN)
@pytest.mark.parametrize("header", ["path,label", "Image;label", "label is second"])
def test_the_column_of_paths_is_found_however_they_are_written(birds, tmp_path, form, header):
    content = [form(row) for row in rows(at1="owl")]
    if ";" in header:
        content = [row.replace(",", ";") for row in content]
    if "second" in header:
        header, content = "label,x", [",".join(reversed(row.split(","))) for row in content]
    file = table(tmp_path / "l.csv", content, header)
    assert load_data(config(birds, labels=f"{file}:label")).train.labels.tolist()[:3] == [0, 1, 0]


BAD = {
    "column": (rows(), "lable", r"has no column 'lable': its columns are 'path', 'label'; did you mean 'label'"),
    "index too large": (rows(at0="2"), "label", r"line 2, column 'label': the label '2' is neither a class name"),
    "negative": (rows(at0="-1"), "label", "neither a class name nor an index from 0 to 1"),
    "misspelled": (rows(at6="crw"), "label", "line 8, column 'label': the label 'crw' .*did you mean 'crow'"),
    "empty first": (rows(at0=""), "label", "line 2: no label in column 'label': fill it, or remove the row"),
    "empty": (rows(at6=""), "label", "line 8: no label in column 'label': fill it"),
    "name and index": (rows(at0="1"), "label", "column 'label' of .* holds crow, owl, which are class names, and 1"),
    "unknown image": ([*rows(), "train/owl/r17.png,owl"], "label", r"line 14: there is no image 'train/owl/r17\.png'"),
    "two labels": ([*rows(), "train/owl/r11.png,crow"], "label", "the label 'crow' here and 'owl' in line 9: keep"),
    "missing rows": (rows()[:-2], "label", "no row for 2 of 12 training images, such as train/owl/r14.png: add"),
    "no column": (["a,b", "c,d"], "label", "no column of .* names an image"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "column", "message"), BAD.values(), ids=BAD)
def test_a_table_that_does_not_fit_is_refused_with_its_line(birds, tmp_path, content, column, message):
    file = table(tmp_path / "l.csv", content)
    with pytest.raises(ValueError, match=message):
        load_data(config(birds, labels=f"{file}:{column}"))
    with pytest.raises(FileNotFoundError, match=r"the table .*missing\.csv does not exist: check the path"):
        load_data(config(birds, labels=f"{tmp_path / 'missing.csv'}:label"))


def test_more_or_fewer_rows_than_images_are_counted_where_that_is_allowed(birds, tmp_path):
    more = [f"train/crow/x{i}.png,crow" for i in range(500)]
    file = table(tmp_path / "l.csv", [*rows(at1="owl")[:-2], *more, "test/owl/e10.png,crow"])
    with pytest.raises(ValueError, match=r"line 12: there is no image 'train/crow/x0.png' .*500 such rows.*--skip"):
        load_data(config(birds, labels=f"{file}:label"))
    sources = load_data(config(birds, labels=f"{file}:label", skip_missing=True))
    assert sources.train.labels.tolist() == [0, 1, 0, 0, 0, 0, 1, 1, 1, 1]
    assert sources.train.paths[-1] == "train/owl/r13.png"
    assert sources.test.labels.tolist() == [0, 0, 1, 1]
    said = " | ".join(sources.reading.sentences)
    assert "500 rows name no image and are left out" in said
    assert "2 training images have no row and are left out" in said


NUMBERED = {
    "names": (("1", "2", "3"), ("1", "2", "3"), [0, 1, 2]),
    "one class is absent": (("1", "2", "3"), ("3", "1"), [2, 0]),
    "numbers of classes": (("01", "02", "10"), ("1", "2", "10"), [0, 1, 2]),
    "decimals": (("1", "2", "3"), ("1.0", "3.0"), [0, 2]),
    "indices": (("ape", "bat", "cow"), ("0", "2"), [0, 2]),
    "indices with decimals": (("ape", "bat", "cow"), ("0.0", "2.0"), [0, 2]),
    "names in text order": (("c0", "c1", "c10", "c2"), ("c2", "c10"), [3, 2]),
    "digits": (tuple("0123456789"), ("0", "9"), [0, 9]),
}


@pytest.mark.parametrize(("classes", "values", "labels"), NUMBERED.values(), ids=NUMBERED)
def test_a_column_has_one_meaning(classes, values, labels):
    assert labels_of(values, classes)[0].tolist() == labels


REFUSED = {
    "1, 2, 3 with 0, 1, 2": (
        ("1", "2", "3"),
        ("0", "1", "2"),
        "holds 1, 2, which are class names, and 0, which",
    ),
    "text order": (("c0", "c1", "c10", "c2"), ("0", "3"), r"sorted as text \(0 is c0, 1 is c1, 2 is c10, 3 is c2\)"),
    "from 1": (("ape", "bat"), ("1", "2"), "'2' is neither a class name nor an index from 0 to 1"),
    "mixed": (("ape", "bat"), ("ape", "1"), "holds ape, which are class names, and 1, which can only be indices"),
}


@pytest.mark.parametrize(("classes", "values", "message"), REFUSED.values(), ids=REFUSED)
def test_a_column_without_one_meaning_is_refused(classes, values, message):
    with pytest.raises(LabelError, match=message):
        labels_of(values, classes)


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from(["0", "1", "2", "3", "10", "a", "b"]), min_size=2, max_size=5, unique=True),
    st.lists(st.sampled_from(["0", "1", "2", "3", "10", "a", "b"]), min_size=1, max_size=6),
)
def test_a_label_that_is_a_class_name_never_becomes_another_class(classes, values):
    try:
        labels, _ = labels_of(values, sorted(classes))
    except LabelError:
        return
    for value, label in zip(values, labels.tolist(), strict=True):
        if value in classes:
            assert sorted(classes)[label] == value
    # Equal labels are equal classes and different ones different classes, whatever the reading.
    assert len(set(zip(values, labels.tolist(), strict=True))) == len(set(values)) == len(set(labels.tolist()))


def test_natural_order_and_classes_of_a_column():
    assert is_natural_order(["a", "b", "c"])
    assert not is_natural_order(["10", "9"])
    assert classes_of(["b", "a", "b"]) == (("a", "b"), pytest.approx([1, 0, 1]), "names")
    with pytest.raises(LabelError, match="holds whole numbers and also x: correct these, or leave their rows out"):
        classes_of(["1", "2", "3", "x"])


# Corrections


def decide(root, tmp_path, content, header="path,decision,label", **options):
    file = table(tmp_path / "c.csv", content, header)
    paths = tuple(row.partition(",")[0] for row in rows())
    images = LabeledPaths(root, paths, ("test/owl/e10.png",))
    return read_corrections(file, images, ("crow", "owl"), torch.tensor([0] * 6 + [1] * 6), **options)


def test_decisions_change_keep_and_exclude(birds, tmp_path):
    fixed = decide(
        birds, tmp_path, ["train/crow/r01.png,relabel,owl", "r02.png,exclude,", "r03.png,Keep,", "r10.png,,"]
    )
    assert fixed.labels.tolist() == [0, 1, 0, 0, 0, 0] + [1] * 6
    assert fixed.excluded.nonzero().flatten().tolist() == [2]
    assert fixed.sentences == (
        "corrections of c.csv: 1 training labels changed, 1 images left out, 1 labels confirmed",
        "1 of its rows decide nothing",
    )


def test_a_table_of_right_labels_alone_is_a_table_of_corrections(birds, tmp_path):
    fixed = decide(birds, tmp_path, ["r01.png,owl", "r12.png,owl", "r00.png,"], "path,label")
    assert fixed.labels.tolist() == [0, 1, 0, 0, 0, 0] + [1] * 6
    assert fixed.sentences[0].endswith("1 training labels changed, 0 images left out, 1 labels confirmed")


WRONG_DECISIONS = {
    "unknown": (["r01.png,kep,"], "line 2: the decision must be keep, relabel or exclude, got 'kep'"),
    "no label": (["r01.png,relabel,"], "line 2: relabel needs a new label in the column 'label'"),
    "no class": (["r01.png,relabel,hawk"], "line 2: the label 'hawk' is neither a class name nor an index"),
    "contradiction": (["r01.png,keep,", "r01.png,exclude,"], "line 3: the decision about train/crow/r01.png"),
    "unknown image": (["r01.png,keep,", "r99.png,keep,"], "line 3: there is no image 'r99.png'"),
    "a class is gone": ([f"r1{i}.png,exclude," for i in range(6)], "no training image of owl is left: keep"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), WRONG_DECISIONS.values(), ids=WRONG_DECISIONS)
def test_wrong_decisions_are_refused_with_their_line(birds, tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        decide(birds, tmp_path, content)


def test_a_decision_is_about_the_label_that_was_given(birds, tmp_path):
    header = "path,given,decision,label"
    with pytest.raises(ValueError, match=r"line 2: the decision is about the label 'owl', but the data give 'crow'"):
        decide(birds, tmp_path, ["r01.png,owl,keep,"], header)
    assert decide(birds, tmp_path, ["r01.png,crow,keep,"], header).labels[1] == 0
    with pytest.raises(ValueError, match=r"line 2: the decision is about the label '1', but the data give 'crow'"):
        decide(birds, tmp_path, ["r01.png,1,keep,"], header)
    with pytest.raises(ValueError, match=r"line 2: the label that was reviewed: the label 'hawk' is neither a class"):
        decide(birds, tmp_path, ["r01.png,hawk,keep,"], header)
    assert decide(birds, tmp_path, ["r01.png,,keep,", "r02.png,crow,keep,"], header).labels[1] == 0


def test_rows_about_test_images_or_nothing_are_counted(birds, tmp_path):
    fixed = decide(birds, tmp_path, ["r01.png,relabel,owl", "test/owl/e10.png,relabel,crow"])
    assert "1 of its rows are about test images and are not applied" in fixed.sentences
    fixed = decide(birds, tmp_path, ["r01.png,keep,", "r99.png,keep,"], skip_missing=True)
    assert fixed.sentences[0].endswith("0 images left out, 1 labels confirmed")


def test_arms_with_and_without_corrections_share_their_images(birds, tmp_path):
    file = lines(
        tmp_path / "c.csv", "path,decision,label", "r01.png,relabel,owl", "r02.png,exclude,", "r13.png,exclude,"
    )
    plain_config, fixed_config = config(birds, holdout=0.4), config(birds, holdout=0.4, corrections=str(file))
    plain, fixed = load_data(plain_config), load_data(fixed_config)
    assert plain.images_fingerprint == fixed.images_fingerprint
    assert plain.fingerprint != fixed.fingerprint
    assert fixed.train.clean_labels is None
    assert fixed.given_labels.tolist() == plain.train.labels.tolist()
    assert torch.equal(plain.mean, fixed.mean)
    gone = {2, 9}
    for seed in range(4):
        one, two = make_subsets(plain, plain_config, seed), make_subsets(fixed, fixed_config, seed)
        for name in ("train", "fit", "holdout"):
            assert set(getattr(two, name).tolist()) == set(getattr(one, name).tolist()) - gone
        assert two.counts.tolist() == [4, 6]
        assert Counter(fixed.train.labels[two.train].tolist()) == {0: 4, 1: 6}


def test_a_cut_tail_is_the_same_with_corrections(birds, tmp_path):
    file = lines(tmp_path / "c.csv", "path,decision,label", *(f"r0{i}.png,relabel,owl" for i in range(3)))
    plain, fixed = config(birds, imbalance=3), config(birds, imbalance=3, corrections=str(file))
    for seed in range(3):
        one, two = make_subsets(load_data(plain), plain, seed), make_subsets(load_data(fixed), fixed, seed)
        assert one.train.tolist() == two.train.tolist()


def test_bad_combinations_are_refused():
    for options, message in (
        ({"labels": "labels.csv"}, "FILE:COLUMN"),
        ({"clean": "labels.csv"}, "FILE:COLUMN"),
        ({"corrections": "c.csv", "held_out_classes": 2}, "transfer_data"),
        (
            {"corrections": "c.csv", "coarse": "digits-parity"},
            "groups the classes of the data, which corrections",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            config("x", **options)
    assert config("x", clean="data").clean == "data"


def test_labels_can_be_read_for_any_list_of_paths(tmp_path):
    file = lines(
        tmp_path / "l.csv", "path,label", "./train\\a\\0.png, b ", "test/a/9.png,a", end="\r\n", encoding="utf-8-sig"
    )
    images = LabeledPaths(tmp_path, ("train/a/0.png",), ("test/a/9.png",))
    assert read_labels(file, "label", images, ["a", "b"]).labels.tolist() == [1]
