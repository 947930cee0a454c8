"""Features are computed once: the cache knows images by their content, survives a kill, and tells what it did."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from nc_tools.data import DataConfig
from nc_tools.data.image_set import ImageSet
from nc_tools.data.load_data import load_data
from nc_tools.decoding.image_file import UnreadableImageError, decode_image
from nc_tools.features import extract_features
from nc_tools.features.feature_cache import FeatureCache
from nc_tools.models import BackboneIdentity, ImagePreprocessing, PretrainedBackbone

SIDE = 12
TINY = ImagePreprocessing(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.2), size=8, resize_size=10, interpolation="bicubic")


class Counting(nn.Module):
    """Mean color and a linear map of the pixels; counts the images that it has seen."""

    def __init__(self, seed=0, factor=1.0):
        super().__init__()
        torch.manual_seed(seed)
        self.linear = nn.Linear(3 * 8 * 8, 5)
        self.norm = nn.BatchNorm1d(5)
        self.dropout = nn.Dropout(0.5)
        self.factor, self.seen = factor, 0

    def forward(self, images):
        self.seen += len(images)
        return self.factor * self.dropout(self.norm(self.linear(images.flatten(1))))


def backbone(seed=0, factor=1.0, sha=None, preprocessing=TINY):
    identity = BackboneIdentity("test:counting", "random", None, sha or f"sha{seed}", None, "")
    return PretrainedBackbone(Counting(seed, factor).train(), 5, preprocessing, identity)


def rows_of(result):
    """The features of an extraction, float32, in the order of the images."""
    return result.features.take(torch.arange(len(result.features)))


def folder(root, sizes=((12, 9), (9, 12), (8, 8), (20, 30)), classes=("ape", "bee")):
    """Images of different sizes, one folder a class, in train and test."""
    random = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for i, (height, width) in enumerate(sizes):
                pixels = random.integers(0, 255, (height, width, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{i}.png")
    return root


def sources(root):
    return load_data(DataConfig(f"imagefolder:{root}", image_size=SIDE, memory_gb=0))


def by_hand(model, path):
    """The features of one file, by the decoder, the preprocessing and the module, without batches or cache."""
    pixels = torch.from_numpy(decode_image(path, SIDE, 3).copy())[None]
    with torch.no_grad():
        return model.module.eval()(model.preprocessing(pixels))[0]


def test_features_are_those_of_each_image_alone(tmp_path):
    images, model = sources(folder(tmp_path / "photos")).train, backbone()
    result = extract_features(images, model, tmp_path / "cache")
    assert (result.computed, result.notes) == (8, ())
    assert result.features.classes == ("ape", "bee")
    assert result.features.features.dtype == torch.float16
    for row, path in zip(rows_of(result), images.paths, strict=True):
        assert torch.allclose(row, by_hand(model, images.root / path), atol=2e-3)


def test_what_was_computed_is_not_computed_again(tmp_path):
    data = sources(folder(tmp_path / "photos"))
    first = extract_features(data.train, backbone(), tmp_path / "cache")
    model = backbone()
    again = extract_features(data.train, model, tmp_path / "cache")
    assert again.computed == 0
    assert model.module.seen == 8, "only the few images with which the cache is tested"
    assert torch.equal(rows_of(again), rows_of(first))
    assert extract_features(data.test, model, tmp_path / "cache").computed == 8


def test_images_in_memory_and_labels(tmp_path):
    pixels = torch.randint(0, 255, (6, 1, 8, 8), dtype=torch.uint8)
    pixels[5] = pixels[0]
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    images = ImageSet(pixels, labels, ("a", "b"), "noise", clean_labels=labels.flip(0), paths=tuple("uvwxyz"))
    result = extract_features(images, backbone(), tmp_path)
    assert result.computed == 5, "equal images are computed once"
    own = result.features
    assert (own.name, own.paths, own.clean_labels.tolist()) == ("noise", tuple("uvwxyz"), [1, 0, 1, 0, 1, 0])
    assert torch.equal(rows_of(result)[5], rows_of(result)[0])
    subset = extract_features(images.subset(torch.tensor([3, 1])), backbone(), tmp_path)
    assert torch.equal(rows_of(subset), rows_of(result)[[3, 1]])
    assert torch.equal(own.subset(torch.tensor([3, 1])).digests(), subset.features.digests())


def test_changed_and_new_images_are_computed_and_renamed_ones_are_not(tmp_path):
    root = folder(tmp_path / "photos")
    extract_features(sources(root).train, backbone(), tmp_path / "cache")
    ape = root / "train" / "ape"
    (ape / "0.png").rename(ape / "9.png")
    Image.new("RGB", (9, 9), (1, 2, 3)).save(ape / "1.png")
    Image.new("RGB", (9, 9), (3, 2, 1)).save(ape / "new.png")
    images, model = sources(root).train, backbone()
    result = extract_features(images, model, tmp_path / "cache")
    assert result.computed == 2
    assert result.notes == ("7 of 9 images have cached features; the others are new or have changed",)
    for row, path in zip(rows_of(result), images.paths, strict=True):
        assert torch.allclose(row, by_hand(model, root / path), atol=2e-3)


@pytest.mark.parametrize(
    ("other", "changed"),
    [
        (backbone(seed=1), "weights"),
        (backbone(preprocessing=dataclasses.replace(TINY, interpolation="bilinear")), "preprocessing"),
    ],
    ids=["other weights", "other preprocessing"],
)
def test_another_model_or_preprocessing_has_a_cache_of_its_own(tmp_path, other, changed):
    images = sources(folder(tmp_path / "photos")).train
    first = extract_features(images, backbone(), tmp_path / "cache")
    second = extract_features(images, other, tmp_path / "cache")
    assert second.computed == 8
    assert second.notes == (
        f"the cached features of these images were computed with other {changed}: they are not used",
    )
    assert not torch.allclose(rows_of(second), rows_of(first))
    assert extract_features(images, backbone(), tmp_path / "cache").computed == 0


def test_a_cache_that_the_backbone_does_not_reproduce_is_discarded(tmp_path):
    images = sources(folder(tmp_path / "photos")).train
    extract_features(images, backbone(), tmp_path / "cache")
    model = backbone(factor=1.1)  # the same weights, but the module computes something else
    result = extract_features(images, model, tmp_path / "cache")
    assert result.computed == 8
    assert result.notes == ("the cached features are not those that the backbone computes now: all are computed again",)
    assert torch.allclose(rows_of(result)[0], by_hand(model, images.root / images.paths[0]), atol=2e-3)


def test_features_beyond_float16_are_stored_in_float32(tmp_path):
    images = sources(folder(tmp_path / "photos")).train
    result = extract_features(images, backbone(factor=1e6), tmp_path / "cache")
    assert result.features.features.dtype == torch.float32
    assert result.features.features.abs().max() > 65504
    assert "stored in float32" in result.notes[-1]


def test_features_that_are_not_finite_are_refused(tmp_path):
    images = sources(folder(tmp_path / "photos")).train
    with pytest.raises(ValueError, match="features that are not finite"):
        extract_features(images, backbone(factor=float("inf")), tmp_path / "cache")


def test_the_recipe_says_how_features_were_computed(tmp_path):
    extract_features(sources(folder(tmp_path / "photos")).train, backbone(), tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*/recipe.json")
    recipe = json.loads(path.read_text())
    assert recipe["key"]["weights"] == "sha0"
    assert recipe["key"]["preprocessing"]["interpolation"] == "bicubic"
    assert (recipe["dtype"], recipe["width"]) == ("float16", 5)
    assert {"torch", "numpy", "pillow"} <= set(recipe["computed"]["versions"])


def test_progress_counts_what_has_to_be_computed(tmp_path):
    seen = []
    images = sources(folder(tmp_path / "photos")).train
    for _ in range(2):
        extract_features(
            images, backbone(), tmp_path / "cache", progress=lambda done, total: seen.append((done, total))
        )
    assert seen == [(8, 8)]


def test_a_file_that_becomes_unreadable_is_named(tmp_path):
    images = sources(folder(tmp_path / "photos")).train
    (images.root / images.paths[3]).write_bytes(b"no image")
    with pytest.raises(UnreadableImageError, match=r"3\.png"):
        extract_features(images, backbone(), tmp_path / "cache")


def rows(number, seed=0):
    generator = torch.Generator().manual_seed(seed)
    digests = torch.randint(0, 255, (number, 32), dtype=torch.uint8, generator=generator)
    return digests, torch.randn(number, 5, generator=generator)


def filled(root):
    """A cache with two chunks; return its folder and what it holds."""
    first, second = rows(3, 1), rows(4, 2)
    with FeatureCache(root, {"model": "m"}, width=5) as cache:
        cache.append(*first)
        cache.append(*second)
    return cache.folder, torch.cat([first[0], second[0]]), torch.cat([first[1], second[1]]).half()


@pytest.mark.parametrize("cut", ["rows.bin", "digests.bin", "chunks.jsonl"])
def test_a_half_written_chunk_is_cut_off_and_written_again(tmp_path, cut):
    path, digests, features = filled(tmp_path)
    content = (path / cut).read_bytes()
    (path / cut).write_bytes(content[:-3])
    with FeatureCache(tmp_path, {"model": "m"}, width=5) as cache:
        assert cache.rows_of(digests).tolist() == [0, 1, 2, -1, -1, -1, -1]
        assert torch.equal(cache.features(), features[:3])
        cache.append(digests[3:], features[3:])
        assert torch.equal(cache.features(), features)
    with FeatureCache(tmp_path, {"model": "m"}, width=5) as cache:
        assert cache.rows_of(digests).tolist() == list(range(7))


def test_rows_behind_the_last_complete_chunk_are_cut_off(tmp_path):
    path, _, features = filled(tmp_path)
    for name in ("rows.bin", "digests.bin"):
        with (path / name).open("ab") as file:
            file.write(b"x" * 77)
    with FeatureCache(tmp_path, {"model": "m"}, width=5) as cache:
        assert torch.equal(cache.features(), features)
    assert (path / "rows.bin").stat().st_size == 7 * 5 * 2


def test_a_flipped_bit_is_found(tmp_path):
    path, _, _ = filled(tmp_path)
    content = bytearray((path / "rows.bin").read_bytes())
    content[40] ^= 1  # in the second chunk
    (path / "rows.bin").write_bytes(content)
    with FeatureCache(tmp_path, {"model": "m"}, width=5) as cache:
        assert len(cache) == 3


def test_a_full_disk_keeps_the_chunks_before(tmp_path, monkeypatch):
    _, digests, features = filled(tmp_path)
    more = rows(2, 3)

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with FeatureCache(tmp_path, {"model": "m"}, width=5) as cache:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space left"):
                cache.append(*more)
        assert torch.equal(cache.features(), features)
        cache.append(*more)  # space was made
    with FeatureCache(tmp_path, {"model": "m"}, width=5) as cache:
        assert cache.rows_of(torch.cat([digests, more[0]])).tolist() == list(range(9))
        assert torch.equal(cache.features()[7:], more[1].half())


KILLED = """
import sys, torch
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_features_extract import backbone, sources
from nc_tools.features import extract, extract_features
extract.BATCH, extract.CHUNK_BATCHES = 1, 1
root = Path({root!r})
extract_features(sources(root / "photos").train, backbone(), root / "cache",
                 progress=lambda done, total: (print(done, flush=True), done == 3 and __import__("time").sleep(60)))
"""


@pytest.mark.slow
def test_a_killed_process_loses_only_the_chunk_in_progress(tmp_path):
    folder(tmp_path / "photos")
    code = KILLED.format(tests=str(Path(__file__).parent), root=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.strip() == "3":
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    images, model = sources(tmp_path / "photos").train, backbone()
    started = time.monotonic()
    result = extract_features(images, model, tmp_path / "cache")
    assert time.monotonic() - started < 30, "the lock of a dead process is free"
    assert result.computed == 5
    for row, path in zip(rows_of(result), images.paths, strict=True):
        assert torch.allclose(row, by_hand(model, images.root / path), atol=2e-3)
