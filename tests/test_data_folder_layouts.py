"""The layouts in which image folders come: splits by any word, parts, masks, super folders, links, odd files."""

import os
import threading
from collections import Counter

import pytest
from support.image_folders import config, save

from nc_tools.data import DataConfig
from nc_tools.data.folder import list_folder
from nc_tools.data.load_data import load_data
from nc_tools.data.split_words import split_role, split_role_and_rest
from nc_tools.decoding.image_file import UnreadableImageError


def make(root, *folders, count=3):
    """Save pictures, all different, in each folder."""
    for k, folder in enumerate(folders):
        for i in range(count):
            save(root / folder / f"{i}.png", color=(20 * k % 256, 40 * i % 256, k))
    return root


def counted(listed):
    """Images by class in the training and in the test part."""
    return [dict(Counter(listed.classes[k] for k in part.labels.tolist())) for part in (listed.train, listed.test)]


SPLITS = [
    ("train", "test"), ("train", "val"), ("Training", "Testing"), ("Train", "Test"), ("TRAIN", "VALID"),
    ("train", "validation"), ("training", "dev"), ("trainset", "eval"), ("train2017", "val2017"),
    ("seg_train", "seg_test"), ("train_images", "test_images"), ("seg_train/seg_train", "seg_test/seg_test"),
    ("archive/train", "archive/test"), ("archive/data/Training", "archive/data/Testing"),
]  # fmt: skip


@pytest.mark.parametrize(("first", "second"), SPLITS)
def test_a_split_is_found_by_any_of_its_words(tmp_path, first, second):
    for part, count in ((first, 3), (second, 2)):
        make(tmp_path, f"{part}/crow", f"{part}/owl", count=count)
    listed = list_folder(tmp_path)
    assert counted(listed) == [{"crow": 3, "owl": 3}, {"crow": 2, "owl": 2}]
    assert listed.train.paths[0] == f"{first}/crow/0.png"
    assert f"split: {first}/ is for training, {second}/ for testing" in listed.reading.sentences
    assert listed.divided
    assert len(load_data(config(tmp_path)).test) == 4


def test_a_third_part_and_other_folders_are_named_as_not_used(tmp_path):
    for part in ("train", "valid", "test"):
        make(tmp_path, f"{part}/crow", f"{part}/owl")
    make(tmp_path, "docs/figures")
    said = " ".join(list_folder(tmp_path).reading.sentences)
    assert "split: train/ is for training, test/ for testing" in said
    assert "not used: docs/, valid/ (a run draws its own hold-out from the training images)" in said


def test_a_test_folder_without_classes_gives_way_to_val(tmp_path):
    for part in ("train", "val"):
        make(tmp_path, f"{part}/crow", f"{part}/owl")
    make(tmp_path, "test")
    listed = list_folder(tmp_path)
    assert listed.test.paths[0] == "val/crow/0.png"
    assert "not used: test/; test has no class folders" in listed.reading.sentences


def test_a_split_inside_each_class_is_found(tmp_path):
    make(tmp_path, "crow/train", "owl/train", count=4)
    make(tmp_path, "crow/test", "owl/test", count=2)
    assert counted(list_folder(tmp_path)) == [{"crow": 4, "owl": 4}, {"crow": 2, "owl": 2}]


def test_classes_that_sound_like_parts_are_classes_next_to_others(tmp_path):
    make(tmp_path, "bus", "car", "train", count=5)
    assert list_folder(tmp_path).classes == ("bus", "car", "train")
    make(tmp_path / "tubes", "test_tube", "beaker", count=5)
    assert list_folder(tmp_path / "tubes").classes == ("beaker", "test_tube")


def test_a_part_beside_other_images_stops(tmp_path):
    make(tmp_path, "train/crow", "train/owl", "extra")
    with pytest.raises(
        ValueError, match=r"train/ looks like one part .* images in extra beside it too: give .*train, or"
    ):
        list_folder(tmp_path)


def test_two_folders_for_the_same_part_stop(tmp_path):
    make(tmp_path, "train/crow", "train/owl", "test/crow", "test/owl", "testing/crow", "testing/owl")
    with pytest.raises(ValueError, match="two folders of test images, test and testing: rename or remove"):
        list_folder(tmp_path)


NO_CLASSES = {
    "parts": ("HAM10000_images_part_1", "HAM10000_images_part_2"),
    "numbered": ("images_001", "images_002", "images_003"),
    "batches": ("batch1", "batch2"),
    "folds": ("fold_0", "fold_1"),
    "masks": ("images", "masks"),
    "trimaps": ("images", "annotations/trimaps"),
    "split without classes": ("train", "test"),
    "capital split without classes": ("Training", "Testing"),
}


@pytest.mark.parametrize("folders", NO_CLASSES.values(), ids=NO_CLASSES)
def test_folders_that_are_no_classes_are_refused(tmp_path, folders):
    make(tmp_path, *folders, count=6)
    with pytest.raises(ValueError, match="as a table, table:FILE@"):
        list_folder(tmp_path)


@pytest.mark.parametrize("names", [("1", "2", "3"), ("c0", "c1", "c10"), ("class_1", "class_2"), ("mask", "no_mask")])
def test_names_that_look_numbered_may_be_classes(tmp_path, names):
    make(tmp_path, *names, count=5)
    assert list_folder(tmp_path).classes == names


def test_masks_beside_the_images_of_a_class_are_left_out(tmp_path):
    for name in ("covid", "normal"):
        make(tmp_path, f"{name}/images", f"{name}/masks", count=10)
    listed = list_folder(tmp_path)
    assert counted(listed) == [{"covid": 8, "normal": 8}, {"covid": 2, "normal": 2}]
    assert all("/images/" in path for path in listed.train.paths + listed.test.paths)
    assert "folders inside a class that hold no images of it are left out: masks/ (2 times)" in listed.reading.sentences


def test_super_folders_ask_which_folders_are_the_classes(tmp_path):
    make(tmp_path, "birds/12", "birds/13", "mammals/21", "mammals/22", count=5)
    with pytest.raises(ValueError, match=r"2 such as birds, mammals, or 4 such as 12, 13 .*data.class_folder=last"):
        list_folder(tmp_path)
    assert list_folder(tmp_path, "first").classes == ("birds", "mammals")
    assert list_folder(tmp_path, "last").classes == ("12", "13", "21", "22")
    assert load_data(config(tmp_path, class_folder="last")).num_classes == 4


def test_folders_that_repeat_in_every_class_are_no_classes(tmp_path):
    make(tmp_path, "crow/day1", "crow/day2", "owl/day1", "owl/day2")
    assert list_folder(tmp_path).classes == ("crow", "owl")


def test_loose_images_and_similar_names_are_told(tmp_path):
    make(tmp_path, "Cat", "cat", "dog", count=5)
    save(tmp_path / "cover.png")
    said = list_folder(tmp_path).reading.sentences
    assert "1 images beside the class folders are left out" in said
    assert "classes that differ only in case or blanks: 'Cat' and 'cat'" in said


def test_a_table_near_flat_images_is_named(tmp_path):
    make(tmp_path, "train_images", count=4)
    (tmp_path / "train.csv").write_text("id,label\n")
    with pytest.raises(ValueError, match=r"in no class folder: give their labels .* \(there is .*train.csv\)"):
        list_folder(tmp_path / "train_images")


def test_a_file_instead_of_a_folder_is_called_one(tmp_path):
    (tmp_path / "x.tar").write_text("")
    with pytest.raises(ValueError, match=r"x\.tar is a file and no folder: unpack the archive"):
        list_folder(tmp_path / "x.tar")
    with pytest.raises(ValueError, match=r"got 'x\.zip': unpack the archive, and give its folder"):
        DataConfig("x.zip")
    (tmp_path / "x.csv").write_text("")
    with pytest.raises(ValueError, match=r"x\.csv is a file and no folder: .* 'table:.*x\.csv'"):
        list_folder(tmp_path / "x.csv")


@pytest.fixture
def linked(tmp_path):
    """16 pictures of two classes, with links to folders above and to the other class."""
    make(tmp_path, "crow", "owl", count=8)
    return tmp_path


def test_links_to_folders_that_are_read_already_are_not_followed(linked):
    (linked / "crow" / "loop").symlink_to(".")
    (linked / "crow" / "up").symlink_to("..")
    (linked / "owl" / "crow").symlink_to("../crow")
    (linked / "owl" / "mine").symlink_to(".")
    listed = list_folder(linked)
    paths = listed.train.paths + listed.test.paths
    assert len(paths) == len({os.path.realpath(linked / path) for path in paths}) == 16
    assert counted(listed) == [{"crow": 6, "owl": 6}, {"crow": 2, "owl": 2}]
    said = " ".join(listed.reading.sentences)
    for text in ("crow/loop (is crow)", "crow/up (is )", "owl/crow (is crow)", "owl/mine (is owl)"):
        assert text.replace("(is )", "(is the folder itself)") in said


def test_a_link_to_images_elsewhere_is_followed_once(tmp_path):
    make(tmp_path / "store", "more", count=4)
    make(tmp_path / "set", "crow", "owl", count=5)
    (tmp_path / "set" / "crow" / "a").symlink_to(tmp_path / "store" / "more")
    (tmp_path / "set" / "crow" / "b").symlink_to(tmp_path / "store" / "more")
    assert sum(part["crow"] for part in counted(list_folder(tmp_path / "set"))) == 9


def test_one_folder_for_training_and_testing_stops(tmp_path):
    make(tmp_path, "train/crow", "train/owl", "test/owl")
    (tmp_path / "test" / "crow").symlink_to(tmp_path / "train" / "crow")
    with pytest.raises(ValueError, match=r"train/crow and test/crow in .* are the same folder, through a link"):
        list_folder(tmp_path)


def test_a_pipe_does_not_hang_and_is_told(linked):
    os.mkfifo(linked / "crow" / "x.png")
    result = []
    thread = threading.Thread(target=lambda: result.append(load_data(config(linked))), daemon=True)
    thread.start()
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert "1 that are no regular files are left out: crow/x.png" in result[0].reading.sentences
    assert len(result[0].train) + len(result[0].test) == 16


def test_a_broken_link_and_a_name_that_is_not_utf_8_are_named_with_the_damaged_files(linked):
    (linked / "crow" / "gone.png").symlink_to("nowhere.png")
    save(linked / "spare.png")
    (linked / "spare.png").rename(linked / "owl" / os.fsdecode(b"caf\xe9.png"))
    (linked / "owl" / "text.png").write_text("no image")
    with pytest.raises(UnreadableImageError) as caught:
        load_data(config(linked), cache=linked.parent / "cache")
    text = str(caught.value)
    text.encode()  # can be printed anywhere
    assert "3 of 19 images cannot be read" in text
    for part in (
        "crow/gone.png (No such file",
        r"owl/caf\xe9.png (its name is not UTF-8: rename it)",
        "owl/text.png (no image)",
    ):
        assert part in text
    sources = load_data(config(linked, skip_unreadable=True), cache=linked.parent / "cache")
    assert len(sources.train) + len(sources.test) == 16
    assert set(sources.skipped) == {"crow/gone.png", r"owl/caf\xe9.png", "owl/text.png"}


def test_a_class_whose_name_is_not_utf_8_is_named(linked):
    (linked / "owl").rename(linked / os.fsdecode(b"ch\xe8vre"))
    with pytest.raises(ValueError, match=r"the name of the class folder ch\\xe8vre in .* is not UTF-8: rename it"):
        list_folder(linked)


def test_words_for_parts():
    assert [split_role(word) for word in ("TRAIN", "Valid", "test 2", "tester", "", "12")] == [
        "train", "val", "test", None, None, None,
    ]  # fmt: skip
    assert split_role_and_rest("train_test") is None
    assert split_role_and_rest("xray-TRAIN") == ("train", "xray")
