"""Image folders: all formats and sizes, damaged files, stray files, missing classes."""

import numpy as np
import pytest
import torch
from PIL import Image
from support.image_folders import add_damaged_files, config, make_tree, save

from nc_tools.data.folder import list_folder
from nc_tools.data.image_set import ImageFiles, ImageSet
from nc_tools.data.load_data import load_data
from nc_tools.decoding.image_file import UnreadableImageError, decode_image


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path / "birds")


@pytest.fixture
def damaged(tree):
    return add_damaged_files(tree)


def color(path, channels=3, size=8):
    pixels = decode_image(path, size, channels)
    assert pixels.shape == (channels, size, size)
    assert pixels.dtype == np.uint8
    return [int(c) for c in pixels[:, size // 2, size // 2]]


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "gif", "webp", "ppm", "tga", "PNG"])
def test_every_common_format_is_read(tmp_path, suffix):
    save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    assert color(tmp_path / f"a.{suffix}") == [200, 30, 60]


def test_a_wrong_suffix_does_not_matter(tmp_path):
    save(tmp_path / "a.jpg", format="PNG")
    assert color(tmp_path / "a.jpg") == [200, 30, 60]


def test_gray_palette_bilevel_and_cmyk(tmp_path):
    save(tmp_path / "gray.png", mode="L", color=(90, 90, 90))
    save(tmp_path / "palette.png", mode="P", color=(255, 0, 0))
    save(tmp_path / "bilevel.png", mode="1", color=(255, 255, 255))
    save(tmp_path / "cmyk.tiff", mode="CMYK", color=(255, 0, 0))
    assert color(tmp_path / "gray.png") == [90, 90, 90]
    assert color(tmp_path / "gray.png", channels=1) == [90]
    assert color(tmp_path / "palette.png") == [255, 0, 0]
    assert color(tmp_path / "bilevel.png") == [255, 255, 255]
    assert color(tmp_path / "cmyk.tiff") == [255, 0, 0]


def test_transparency_is_composited_on_white(tmp_path):
    Image.new("RGBA", (8, 8), (200, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("RGBA", (8, 8), (200, 0, 0, 102)).save(tmp_path / "half.png")
    Image.new("LA", (8, 8), (0, 0)).save(tmp_path / "gray.png")
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([10, 20, 30])
    palette.save(tmp_path / "palette.png", transparency=0)
    assert color(tmp_path / "clear.png") == [255, 255, 255]
    assert color(tmp_path / "half.png") == [233, 153, 153]  # 0.4 of the color and 0.6 of white
    assert color(tmp_path / "gray.png") == [255, 255, 255]
    assert color(tmp_path / "palette.png") == [255, 255, 255]


def test_sixteen_bits_are_scaled_and_floats_raise(tmp_path):
    values = np.full((8, 8), 256 * 200, dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    Image.fromarray(values).save(tmp_path / "deep.tiff")
    Image.fromarray(np.full((8, 8), 0.5, dtype=np.float32)).save(tmp_path / "float.tiff")
    assert color(tmp_path / "deep.png") == color(tmp_path / "deep.tiff") == [199, 199, 199]
    with pytest.raises(UnreadableImageError, match="32-bit image"):
        decode_image(tmp_path / "float.tiff", 8, 3)


def test_the_camera_orientation_is_applied(tmp_path):
    upright = Image.new("RGB", (8, 8))
    upright.paste((255, 255, 255), (0, 0, 8, 4))  # the upper half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: what lies above comes to the right
    upright.save(tmp_path / "turned.png", exif=exif)
    pixels = decode_image(tmp_path / "turned.png", 8, 3)
    assert pixels[:, :, 5:].min() == 255
    assert pixels[:, :, :3].max() == 0


def test_the_center_is_kept(tmp_path):
    wide = Image.new("RGB", (40, 16), (255, 0, 0))
    wide.paste((0, 255, 0), (12, 0, 28, 16))  # the central square is green
    wide.save(tmp_path / "wide.png")
    wide.rotate(90, expand=True).save(tmp_path / "tall.png")
    for name in ("wide.png", "tall.png"):
        for size in (4, 16, 20):
            pixels = decode_image(tmp_path / name, size, 3)
            assert pixels.shape == (3, size, size)
            assert (pixels[:, 1:-1, 1:-1] == np.array([0, 255, 0]).reshape(3, 1, 1)).all()


@pytest.mark.parametrize("size", [4, 8, 20])
def test_it_is_resizing_the_shorter_side_and_cropping(tmp_path, size):
    noise = np.random.default_rng(0).integers(0, 256, (40, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    length = size * 40 // 16
    resized = np.asarray(Image.fromarray(noise).resize((size, length), Image.Resampling.BILINEAR)).astype(int)
    top = (length - size) // 2
    ours = decode_image(tmp_path / "a.png", size, 3).transpose(1, 2, 0)
    assert abs(ours - resized[top : top + size]).max() <= 1


def test_shrinking_is_antialiased(tmp_path):
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "board.png")
    assert abs(decode_image(tmp_path / "board.png", 8, 1)[0, 2:6, 2:6].astype(int) - 127).max() <= 2


def test_an_extreme_strip_takes_no_memory(tmp_path):
    save(tmp_path / "strip.png", size=(20000, 1))
    assert color(tmp_path / "strip.png", size=64) == [200, 30, 60]


def test_uneven_folders_get_the_median_of_the_shorter_sides(tree):
    sizes = {
        "a": (30, 12),
        "b": (11, 60),
        "c": (14, 14),
        "d": (500, 400),
        "e": (90, 13),
        "f": (12, 12),
        "g": (70, 99),
    }
    for name, size in sizes.items():
        save(tree / "train" / "crow" / f"{name}.png", size=size)
    # Shorter sides of the 13 training images: 8 x 6, 11, 12, 12, 13, 14, 70, 400.
    assert load_data(config(tree)).train.shape == (3, 11, 11)
    assert load_data(config(tree, image_size=5)).test.shape == (3, 5, 5)


def test_a_large_default_is_capped(tmp_path):
    for split in ("train", "test"):
        for name in ("a", "b"):
            save(tmp_path / split / name / "0.png", size=(400, 300))
    assert load_data(config(tmp_path)).train.shape == (3, 224, 224)
    assert load_data(config(tmp_path, image_size=300)).train.shape == (3, 300, 300)


def test_images_labels_and_paths_belong_together(tree):
    train = load_data(config(tree)).train
    assert isinstance(train, ImageSet)
    assert train.classes == ("crow", "owl")
    assert train.paths == tuple(f"train/{name}/{i}.png" for name in ("crow", "owl") for i in range(3))
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert train.images[:, :, 0, 0].tolist() == [[40 * i, 100 * k, 7] for k in range(2) for i in range(3)]
    assert train.name == "birds"


def test_stray_files_are_ignored_and_nested_ones_listed(tree):
    save(tree / "train" / "owl" / "deep" / "er" / "9.png")
    for stray in ("train/owl/.hidden.png", "train/.cache/0.png", "train/owl/.git/0.png", "__MACOSX/0.png"):
        save(tree / stray)
    (tree / "train" / "owl" / "Thumbs.db").write_bytes(b"x")
    (tree / "train" / "notes.txt").write_text("x")
    (tree / "words.txt").write_text("x")
    assert [p for p in load_data(config(tree)).train.paths if "owl" in p][-1] == "train/owl/deep/er/9.png"
    assert len(list_folder(tree).train.paths) == 7


def test_val_is_used_if_there_is_no_test(tree):
    (tree / "test").rename(tree / "val")
    assert list_folder(tree).test.split == "val"
    save(tree / "test" / "crow" / "0.png")
    save(tree / "test" / "owl" / "0.png")
    assert list_folder(tree).test.paths == ("test/crow/0.png", "test/owl/0.png")


@pytest.mark.parametrize("below", [".", "train", "test"])
def test_one_tree_is_split_by_class_in_the_same_way_each_time(tmp_path, below):
    for name, count in (("a", 20), ("b", 5), ("c", 2)):
        for i in range(count):
            save(tmp_path / below / name / f"{i:02d}.png", color=(i, 0, 0))
    first, second = list_folder(tmp_path), list_folder(tmp_path)
    assert first.train.paths == second.train.paths
    assert sorted(first.train.paths + first.test.paths) == sorted(
        path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")
    )
    # c has 2 images: a class of up to 4 is trained on whole.
    assert first.test.labels.bincount(minlength=3).tolist() == [4, 1, 0]
    assert load_data(config(tmp_path)).train.labels.bincount().tolist() == [16, 4, 2]
    assert "classes of up to 4 images are trained on whole: c (2)" in " ".join(first.reading.sentences)


def test_bad_folders_raise(tree, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist: check the path"):
        list_folder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="one folder of images for each class, but no images were found"):
        list_folder(tmp_path / "empty")
    save(tmp_path / "loose" / "0.png")
    with pytest.raises(ValueError, match="but its images are in no class folder"):
        list_folder(tmp_path / "loose")
    save(tmp_path / "single" / "a" / "0.png")
    with pytest.raises(ValueError, match=r"images of at least two classes, but .*single has only a: give a folder"):
        list_folder(tmp_path / "single")
    for name in "abc":
        save(tmp_path / "singles" / name / "0.png")
    with pytest.raises(
        ValueError, match=r"test images, but none can be taken from .*singles, because every class has only"
    ):
        list_folder(tmp_path / "singles")
    assert len(list_folder(tmp_path / "singles", check=False).train.paths) == 3
    save(tmp_path / "singles" / "b" / "1.png")
    assert list_folder(tmp_path / "singles").test.labels.tolist() == [1]
    (tree / "train" / "lynx").mkdir()
    with pytest.raises(ValueError, match="there is none in lynx"):
        list_folder(tree)


def test_a_class_without_test_images_is_trained_on_and_one_without_training_images_stops(tree):
    save(tree / "train" / "lynx" / "0.png")
    listed = list_folder(tree)
    assert listed.classes == ("crow", "lynx", "owl")
    assert listed.test.labels.tolist() == [0, 0, 2, 2]
    save(tree / "test" / "wolf" / "0.png")
    with pytest.raises(ValueError, match=r"wolf of .* has test images only: .* with --skip-missing"):
        list_folder(tree)
    listed = list_folder(tree, skip_missing=True)
    assert listed.test.labels.tolist() == [0, 0, 2, 2]
    assert "test images of wolf are left out: nothing is trained on them" in listed.reading.sentences


@pytest.mark.parametrize("memory_gb", [None, 0])
def test_damaged_files_are_all_reported_and_can_be_skipped(damaged, memory_gb):
    with pytest.raises(UnreadableImageError) as caught:
        load_data(config(damaged, memory_gb=memory_gb))
    named = ("3 of 13 images", "train/crow/note.jpg (no image)", "train/owl/cut.png", "test/owl/empty.png")
    for part in (*named, "--skip-unreadable"):  # of both parts, in one message
        assert part in str(caught.value)
    sources = load_data(config(damaged, memory_gb=memory_gb, skip_unreadable=True))
    assert sources.skipped == ("train/crow/note.jpg", "train/owl/cut.png", "test/owl/empty.png")
    assert sources.train.paths == tuple(f"train/{name}/{i}.png" for name in ("crow", "owl") for i in range(3))
    assert sources.train.take(torch.arange(6))[:, 1, 0, 0].tolist() == [0, 0, 0, 100, 100, 100]
    assert sources.test.labels.tolist() == [0, 0, 1, 1]


def test_a_class_of_only_damaged_files_is_named(tree):
    for i in range(3):
        (tree / "train" / "owl" / f"{i}.png").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"train part of .* has none of owl"):
        load_data(config(tree, skip_unreadable=True))


def test_a_folder_without_a_readable_image_raises(tree):
    for path in tree.rglob("*.png"):
        path.write_bytes(b"x")
    with pytest.raises(UnreadableImageError, match=r"none of the files under .* can be read as an image"):
        load_data(config(tree))


def test_streaming_holds_paths_and_has_the_same_statistics_and_fingerprint(tree):
    memory, files = load_data(config(tree)), load_data(config(tree, memory_gb=0))
    assert isinstance(memory.train, ImageSet)
    assert isinstance(files.train, ImageFiles)
    assert memory.fingerprint == files.fingerprint
    assert torch.equal(memory.mean, files.mean)
    assert torch.equal(memory.std, files.std)
    assert memory.train.shape == files.train.shape
    assert torch.equal(memory.train.images, files.train.take(torch.arange(6)))
    part = torch.tensor([4, 1])
    assert torch.equal(memory.train.subset(part).images, files.train.subset(part).take(torch.arange(2)))
    assert files.train.subset(part).labels.tolist() == memory.train.subset(part).labels.tolist() == [1, 0]


def test_progress_is_reported(tree):
    calls = []
    load_data(config(tree), progress=lambda done, total: calls.append((done, total)))
    assert calls == [(6, 6), (4, 4)]


def test_damaged_files_of_all_sets_are_in_one_message(tmp_path):
    sets = [make_tree(tmp_path / name) for name in ("birds", "other", "near", "against")]
    for i, (root, part) in enumerate(zip(sets, ("train", "train", "test", "train"), strict=True)):
        for name in ("crow", "owl"):
            for path in (root / part / name).glob("*.png"):
                save(path, color=(60 * i, 90, len(path.name)), size=(8, 9 + i))
        (root / part / "owl" / f"bad{i}.png").write_bytes(b"x")
    birds, other, near, against = (f"imagefolder:{root}" for root in sets)
    with pytest.raises(UnreadableImageError) as caught:
        load_data(config(sets[0], transfer_data=other, ood_near=near, outliers=against))
    assert all(f"bad{i}.png" in str(caught.value) for i in range(4))
    assert birds != other


def test_a_set_of_nothing_but_damaged_files_is_named_too(tree, tmp_path):
    near = make_tree(tmp_path / "near")
    for path in near.rglob("*.png"):
        path.write_bytes(b"x")
    with pytest.raises(UnreadableImageError, match="4 of 14 images cannot be read"):
        load_data(config(tree, ood_near=f"imagefolder:{near}"))


def test_what_was_converted_is_told_and_recorded(tree):
    save(tree / "train" / "owl" / "gray.png", mode="L")
    Image.new("RGBA", (8, 8), (9, 9, 9, 50)).save(tree / "train" / "owl" / "clear.png")
    Image.fromarray(np.full((8, 8), 300, dtype=np.uint16)).save(tree / "test" / "owl" / "deep.png")
    Image.fromarray(np.full((8, 8), 60000, dtype=np.uint16)).save(tree / "test" / "owl" / "bright.png")
    reading = load_data(config(tree)).reading
    told = (
        "converted to the form of the others: 1 16-bit (divided by 257), 1 16-bit and nearly black (divided by 257; "
        "give them their full range if they are not meant to be dark), 1 gray, 1 transparent (put on white)"
    )
    assert told in reading.sentences
    assert reading.choices["converted"] == "1 16-bit, 1 16-bit and nearly black, 1 gray, 1 transparent"
    cached = [load_data(config(tree), cache=tree.parent / "cache").reading for _ in range(2)]
    assert cached[0] == cached[1] == reading
