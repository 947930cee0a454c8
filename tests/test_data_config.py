import math
from pathlib import Path

import pytest

from nc_tools.data.augment import Augment, augment_for
from nc_tools.data.data_config import DataConfig
from nc_tools.data.source_names import parse_labels, parse_source


def test_a_drive_letter_stays_with_its_path():
    assert parse_source(r"imagefolder:C:\data\birds") == ("imagefolder", Path(r"C:\data\birds"))
    assert parse_labels(r"C:\data\labels.csv:worse") == (Path(r"C:\data\labels.csv"), "worse")
    assert parse_labels("labels.csv:random1") == (Path("labels.csv"), "random1")


@pytest.mark.parametrize("text", ["labels.csv", r"C:\labels.csv", "labels.csv:", ":worse", "/data/labels.csv"])
def test_labels_without_file_or_column_raise(text):
    with pytest.raises(ValueError, match="FILE:COLUMN"):
        parse_labels(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "digit"}, "did you mean 'digits'"),
        ({"source": "/data/birds"}, "imagefolder:PATH"),
        ({"source": "imagefolder:"}, "needs its path, as in 'imagefolder:PATH', got 'imagefolder:'"),
        ({"source": "imagefolder"}, "needs its path"),
        ({"source": "digits:here"}, "the source 'digits' takes no path, got 'digits:here'"),
        ({"transfer_data": "cifar1"}, "did you mean 'cifar10"),
        ({"imbalance": 0.01}, "did you mean 100"),
        ({"imbalance": 0.0}, "at least 1"),
        ({"imbalance": float("nan")}, "at least 1"),
        ({"imbalance": float("inf")}, "at least 1"),
        ({"profile": "exp"}, "exponential, step"),
        ({"protocol": "random"}, "seeded, ldam"),
        ({"holdout": 0.0}, "between 0 and 1"),
        ({"holdout": 1.0}, "between 0 and 1"),
        ({"held_out_classes": 1}, "at least 2"),
        ({"held_out_classes": -2}, "at least 2"),
        ({"held_out_classes": 3, "transfer_data": "cifar10"}, "each define a transfer set, got 3 and cifar10"),
        ({"image_size": 0}, "image_size"),
        ({"crop_padding": -1}, "crop_padding"),
        ({"memory_gb": -1.0}, "memory_gb"),
        ({"memory_gb": math.nan}, "memory_gb must not be negative, got nan"),
        ({"labels": "labels.csv:worse"}, "imagefolder"),
        ({"source": "imagefolder:x", "labels": "labels.csv"}, "FILE:COLUMN"),
        ({"source": "imagefolder:x", "labels": "l.csv:a", "held_out_classes": 2}, "transfer_data"),
    ],
)
def test_bad_configurations_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        DataConfig(**arguments)


def test_augmentation_follows_size_and_source_unless_it_is_set():
    folder = DataConfig(source="imagefolder:x")
    assert augment_for(DataConfig(), 8) == Augment(padding=1, flip=False)
    assert augment_for(folder, 32) == Augment(padding=4, flip=True)
    assert augment_for(folder, 64) == Augment(padding=8, flip=True)
    assert augment_for(folder, 4) == Augment(padding=1, flip=True)
    explicit = DataConfig(source="imagefolder:x", crop_padding=0, flip=False)
    assert augment_for(explicit, 32) == Augment(padding=0, flip=False)
    assert augment_for(DataConfig(flip=True), 8).flip
