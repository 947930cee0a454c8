"""The same picture twice: in training and test, or in training under two labels."""

import shutil

import pytest
from support.image_folders import config, save

from nc_tools.data.load_data import load_data


@pytest.fixture
def birds(tmp_path):
    for k, name in enumerate(("crow", "owl")):
        for i in range(6):
            save(tmp_path / "birds" / "train" / name / f"{i}.png", color=(20 * i, 90 * k, 9))
        for i in range(3):
            save(tmp_path / "birds" / "test" / name / f"{i}.png", color=(20 * i, 90 * k, 200))
    return tmp_path / "birds"


def said(sources):
    return " | ".join(sources.reading.sentences)


@pytest.mark.parametrize("memory_gb", [None, 0])
def test_test_images_that_are_trained_on_are_told_and_dropped(birds, memory_gb):
    assert "copies" not in said(load_data(config(birds, memory_gb=memory_gb)))
    shutil.copy(birds / "test" / "crow" / "0.png", birds / "train" / "crow" / "again.png")
    shutil.copy(birds / "test" / "owl" / "1.png", birds / "train" / "crow" / "other.png")
    shutil.copy(birds / "test" / "owl" / "1.png", birds / "train" / "crow" / "third.png")
    sources = load_data(config(birds, memory_gb=memory_gb))
    assert len(sources.train) == 15
    assert (
        "CAUTION: 2 of 6 test images are training images too, such as train/crow/again.png, so test results are too "
        "good: leave their training copies out with --drop-duplicates" in said(sources)
    )
    assert "1 training images are copies of others, such as train/crow/third.png; 0 of them have another" in said(
        sources
    )
    dropped = load_data(config(birds, memory_gb=memory_gb, drop_duplicates=True))
    assert len(dropped.train) == 12
    assert len(dropped.test) == 6
    assert "3 training images that are test images too are left out, such as train/crow/again.png" in said(dropped)
    assert dropped.fingerprint != sources.fingerprint
    again = said(load_data(config(birds, memory_gb=memory_gb, resplit=0.3)))
    assert "3 training images are test images too, such as train/crow/again.png: in every split, copies" in again
    assert "CAUTION" not in again


def test_a_picture_with_two_labels_is_told(birds):
    shutil.copy(birds / "train" / "crow" / "0.png", birds / "train" / "owl" / "mine.png")
    assert "1 training images are copies of others, such as train/owl/mine.png; 1 of them have another label" in said(
        load_data(config(birds))
    )


def test_a_class_of_nothing_but_test_images_stops(birds):
    shutil.rmtree(birds / "train" / "owl")
    shutil.copytree(birds / "test" / "owl", birds / "train" / "owl")
    with pytest.raises(ValueError, match="every training image of owl is a test image too, so that --drop-duplicates"):
        load_data(config(birds, drop_duplicates=True))


def test_a_linked_file_in_training_and_test_is_told(birds):
    (birds / "train" / "crow" / "link.png").symlink_to(birds / "test" / "crow" / "0.png")
    assert "CAUTION: 1 of 6 test images are training images too" in said(load_data(config(birds)))
