"""Outliers to train against: where they come from, and that no other set contains them."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.ood_runs import left_out, pictures

from nc_tools.data import DataConfig, load_data
from nc_tools.data.outlier_source import check_apart
from nc_tools.experiment.serialize import encode


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"outliers": "blnded"}, "must be a data source or 'blended', got 'blnded'"),
        ({"outliers": "scrambled"}, "must be a data source or 'blended', got 'scrambled'"),
        ({"outliers": "digit"}, "did you mean 'digits'"),
        ({"outliers": "imagefolder:"}, "needs its path"),
        (
            {"outliers": "digits"},
            "another set than source, .* but both are digits: set outliers to another source, or to 'blended'",
        ),
        ({"outliers": "imagefolder:a", "ood_near": "imagefolder:b/../a"}, "another set than ood_near"),
        ({"outliers": "imagefolder:a", "ood_far": "imagefolder:a"}, "another set than ood_far"),
        ({"outliers": "cifar10:a", "transfer_data": "cifar10:b"}, "another set than transfer_data"),
        ({"outliers_exclude": "a.csv"}, "leaves classes out of outliers, .* got None"),
        ({"outliers_exclude": "a.csv", "outliers": "blended"}, "got blended"),
    ],
)
def test_bad_configurations_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        DataConfig(**arguments)


def test_folders_at_two_paths_are_two_sets():
    for near in ("imagefolder:b", "scrambled", "cifar10:a"):
        assert DataConfig(outliers="imagefolder:a", ood_near=near, ood_far="scrambled").outliers == "imagefolder:a"


def test_outliers_are_part_of_the_record():
    assert encode(DataConfig(outliers="blended"))["outliers"] == "blended"


def test_the_training_part_is_used_and_of_a_set_without_one_all(tmp_path):
    own = pictures(tmp_path / "own", {"train": 4, "val": 2})
    unsplit = pictures(tmp_path / "unsplit", {"test": 5}, size=12)
    sources = load_data(DataConfig(outliers=own))
    assert sorted({path.split("/")[0] for path in sources.outliers.paths}) == ["train"]
    assert len(sources.outliers) == 12
    assert sources.outliers.shape == sources.train.shape == (1, 8, 8)
    assert sources.ood == {}
    assert len(load_data(DataConfig(outliers=unsplit)).outliers) == 15
    colors = load_data(DataConfig(source=own, outliers="digits"))
    assert colors.outliers.shape == (3, 10, 10)
    assert len(colors.outliers) == len(load_data(DataConfig()).train)  # its training half
    assert load_data(DataConfig()).outliers is None
    assert load_data(DataConfig(outliers="blended")).outliers is None


def test_outliers_change_the_fingerprint_and_only_they(tmp_path):
    plain, blended = load_data(DataConfig()), load_data(DataConfig(outliers="blended"))
    assert blended.fingerprint == plain.fingerprint  # blended from the training images
    against = load_data(DataConfig(outliers=pictures(tmp_path / "a", {"train": 5, "test": 2})))
    assert against.fingerprint != plain.fingerprint
    assert torch.equal(against.train.images, plain.train.images)
    assert torch.equal(against.mean, plain.mean)


def test_classes_and_unreadable_files_are_left_out(tmp_path):
    outliers = pictures(tmp_path / "out", {"train": 3, "test": 2})
    (tmp_path / "out" / "train" / "cat" / "0.png").write_bytes(b"no image")
    config = DataConfig(outliers=outliers, outliers_exclude=left_out(tmp_path, "dog"), skip_unreadable=True)
    sources = load_data(config)
    assert sorted(Path(path).parts[1] for path in sources.outliers.paths) == ["cat", "cat", "owl", "owl", "owl"]
    assert sources.skipped == ("train/cat/0.png",)
    with pytest.raises(ValueError, match=r"the class 'dgo' to leave out is not in .*; did you mean 'dog'"):
        load_data(replace(config, outliers_exclude=left_out(tmp_path, "dgo")))
    source = pictures(tmp_path / "in", {"train": 2, "test": 1})
    with pytest.raises(ValueError, match="outliers=digits has no images left: list fewer classes in outliers_exclude"):
        load_data(DataConfig(source, outliers="digits", outliers_exclude=left_out(tmp_path, *"0123456789")))


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
def test_outliers_that_are_in_another_set_raise(tmp_path, part, arguments, name):
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
    assert len(load_data(config).outliers) == 8
    folder = far if any("far" in str(v) for v in arguments.values()) else home
    image = sorted((folder / part).rglob("*.png"))[-1]
    shutil.copy(image, tmp_path / "out" / "train" / "n" / "again.png")
    with pytest.raises(
        ValueError, match=rf"1 of 9 outliers are {name} images too, such as train/n/again\.png\. .* remove these images"
    ):
        load_data(config)


def shade(path, value):
    """Give an image a single color, so that it is the same at every size and unlike all others."""
    from PIL import Image

    with Image.open(path) as image:
        size = image.size
    Image.new("RGB", size, (value, 255 - value, 7)).save(path)


def test_streamed_sets_are_compared_too(tmp_path):
    outliers = pictures(tmp_path / "out", {"train": 3, "test": 2})
    near = pictures(tmp_path / "near", {"test": 3})
    for gigabytes in (None, 0.0):
        with pytest.raises(ValueError, match="9 of 9 outliers are near out-of-distribution images too"):
            load_data(DataConfig(outliers=outliers, ood_near=near, memory_gb=gigabytes))


def test_sets_without_files_are_named_without_a_path():
    digits = load_data(DataConfig())
    with pytest.raises(ValueError, match=r"2 of 2 outliers are test images too\. Outliers"):
        check_apart(digits.test.subset(torch.tensor([3, 5])), {"training": digits.train, "test": digits.test})
