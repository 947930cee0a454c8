"""Coarse labels: groups of classes to train on, and the classes themselves for transfer."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from support.recipe_commands import RECIPES, recipe_module

from nc_tools.data import DataConfig, SymmetricNoise, load_data, make_subsets
from nc_tools.data.coarse_labels import GROUPINGS, check_grouping, read_grouping
from nc_tools.experiment.run_data import open_data
from nc_tools.experiment.serialize import encode, run_hash

DIGITS = tuple("0123456789")
ANIMALS = ("cat", "dog", "car", "ship")


def test_digits_are_even_and_odd_to_train_on_and_digits_for_transfer():
    fine, coarse = load_data(DataConfig()), load_data(DataConfig(coarse="digits-parity"))
    assert coarse.train.classes == coarse.test.classes == ("even", "odd")
    assert torch.equal(coarse.train.labels, fine.train.labels % 2)
    assert torch.equal(coarse.test.labels, fine.test.labels % 2)
    assert coarse.transfer_train.classes == DIGITS
    assert torch.equal(coarse.transfer_train.labels, fine.train.labels)
    assert torch.equal(coarse.transfer_test.labels, fine.test.labels)
    assert coarse.transfer_train.images is coarse.train.images  # the same pixels, not a copy
    assert torch.equal(coarse.mean, fine.mean)
    assert coarse.fingerprint != fine.fingerprint


def test_a_long_tail_is_cut_by_the_groups():
    config = DataConfig(coarse="digits-parity", imbalance=4)
    counts = make_subsets(load_data(config), config, seed=0).counts
    assert counts.max() // counts.min() == 4


def test_noise_changes_coarse_labels_and_not_the_fine_ones(tmp_path):
    base = recipe_module(next(path for path in RECIPES if path.stem == "coarse_to_fine")).BASE
    config = replace(base, data=replace(base.data, noise=SymmetricNoise(0.3)))
    data = open_data(config, seed=0, device=torch.device("cpu"), cache=tmp_path)
    wrong = data.sources.train.labels != data.sources.train.clean_labels
    assert 0.2 < wrong.double().mean() < 0.4
    assert torch.equal(data.sources.transfer_train.labels % 2, data.sources.train.clean_labels)


def test_groupings_cover_their_classes_once():
    cifar = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    groups, of = read_grouping("cifar10-animals", cifar)
    assert groups == ("vehicle", "animal")
    assert of == (0, 0, 1, 1, 1, 1, 1, 1, 0, 0)
    for parts in GROUPINGS.values():
        names = [name for part in parts.values() for name in part]
        assert len(names) == len(set(names)) == 10


def write(path, *rows, header="class,coarse"):
    path.write_text("\n".join([header, *rows]))
    return str(path)


def test_a_csv_groups_the_classes_of_a_folder(tmp_path):
    for split in ("train", "test"):
        for i, name in enumerate(sorted(ANIMALS)):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for j in range(2):
                Image.new("RGB", (4, 4), (60 * i, 99 * j, 0)).save(tmp_path / "images" / split / name / f"{j}.png")
    file = write(tmp_path / "groups.csv", "cat,animal", "dog,animal", "car,vehicle", "ship, vehicle ", "ship,vehicle")
    sources = load_data(DataConfig(f"imagefolder:{tmp_path / 'images'}", coarse=file))
    assert sources.train.classes == ("vehicle", "animal")  # car comes first
    assert sources.train.labels.tolist() == [0, 0, 1, 1, 1, 1, 0, 0]
    assert sources.transfer_test.classes == ("car", "cat", "dog", "ship")
    assert sources.transfer_test.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (["cat,a", "dog,a", "car,b"], "class,coarse", "has no group for ship: add a row"),
        (["cat,a", "dog,a", "car,b", "ship,b", "shp,b"], "class,coarse", "did you mean 'ship'"),
        (
            ["cat,a", "dog,a", "car,b", "ship,b", "cat,b"],
            "class,coarse",
            "puts the class 'cat' into two groups, 'a' and 'b'",
        ),
        (
            ["cat,a", "dog,a", "car,a", "ship,a"],
            "class,coarse",
            "at least two groups and fewer groups than the 4 classes, got 1",
        ),
        (["cat,a", "dog,b", "car,c", "ship,d"], "class,coarse", "fewer groups than the 4 classes, got 4"),
        (["cat,a"], "class,group", "groups.csv has no column 'coarse': its columns are class, group"),
        (["cat,"], "class,coarse", "line 2: the column coarse is empty for the class 'cat'"),
    ],
)
def test_a_grouping_that_does_not_match_raises(tmp_path, rows, header, message):
    file = write(tmp_path / "groups.csv", *rows, header=header)
    with pytest.raises(ValueError, match=message):
        read_grouping(file, ANIMALS)


def test_an_unknown_grouping_raises(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.csv does not exist: check the path"):
        read_grouping(str(tmp_path / "none.csv"), ANIMALS)
    with pytest.raises(ValueError, match=r"names a class .* which the data do not have"):
        read_grouping("digits-parity", ANIMALS)
    with pytest.raises(ValueError, match="did you mean 'cifar10-animals'"):
        check_grouping("cifar-animals")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"held_out_classes": 3}, "held_out_classes must be 0 and transfer_data None, got 3 and None"),
        ({"transfer_data": "cifar10"}, "transfer_data None, got 0 and cifar10"),
        (
            {"source": "imagefolder:x", "labels": "a.csv:b"},
            "got coarse digits-parity and labels a.csv:b: remove coarse",
        ),
    ],
)
def test_coarse_labels_contradict_other_transfer_sets_and_labels(options, message):
    with pytest.raises(ValueError, match=message):
        DataConfig(**options, coarse="digits-parity")


def test_coarse_labels_change_the_hash_of_a_run():
    base = recipe_module(next(path for path in RECIPES if path.stem == "long_tail")).BASE
    plain, coarse = (
        replace(base, data=replace(base.data, held_out_classes=0, coarse=name)) for name in (None, "digits-parity")
    )
    assert encode(coarse)["data"]["coarse"] == "digits-parity"
    assert run_hash(plain) != run_hash(coarse)
