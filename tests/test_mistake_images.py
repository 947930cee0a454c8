"""Which pictures a final run keeps of the images that it is most wrongly sure of."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from support.experiment_runs import PROTOCOL, job_of, make

from nc_tools.data import ImageSet, Sources
from nc_tools.experiment.evaluate.mistake_images import keep_mistakes
from nc_tools.features import FeatureSet
from nc_tools.records import Collected
from nc_tools.run_records.mistake_pictures import MISTAKES, read_mistake_pictures

LABELS = torch.tensor([0, 1, 1])
LOGITS = torch.tensor([[2.0, 0.0], [9.0, 0.0], [5.0, 0.0]])
CLASSES = ("cat", "dog")
PATHS = ("a.png", "b.png", "c.png")


def outputs_of(logits=LOGITS):
    features = torch.zeros(len(logits), 1)
    return Collected(features=features, embedded=features, logits=logits, labels=LABELS)


def sources_of(test, root=None):
    return Sources(train=test, test=test, transfer_train=None, transfer_test=None, mean=torch.zeros(3),
                   std=torch.ones(3), fingerprint="", skipped=(), ood={}, root=root)  # fmt: skip


def images(size=8, channels=3):
    pixels = torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1) * 100
    return ImageSet(pixels.expand(3, channels, size, size).contiguous(), LABELS, CLASSES, "pets", paths=PATHS)


@pytest.mark.parametrize(("size", "kept"), [(8, 8), (64, 64), (100, 64)])
@pytest.mark.parametrize("channels", [1, 3])
def test_large_images_are_scaled_down_and_small_ones_stay(tmp_path, size, kept, channels):
    keep_mistakes(tmp_path, outputs_of(), sources_of(images(size, channels)))
    found = read_mistake_pictures(tmp_path)
    assert found.index.tolist() == [1, 2]
    assert found.paths == ("b.png", "c.png")
    assert found.images.shape == (2, channels, kept, kept)
    assert found.images.mean(axis=(1, 2, 3)).tolist() == [100, 200]


def test_features_of_images_show_the_images(tmp_path):
    for shade, name in zip((10, 120, 230), PATHS, strict=True):
        Image.new("RGB", (90, 70), (shade,) * 3).save(tmp_path / name)
    features = FeatureSet(torch.zeros(3, 4), LABELS, CLASSES, "pets", paths=PATHS)
    keep_mistakes(tmp_path, outputs_of(), sources_of(features, tmp_path))
    found = read_mistake_pictures(tmp_path)
    assert found.images.shape == (2, 3, 64, 64)
    assert found.images.mean(axis=(1, 2, 3)).tolist() == [120, 230]


@pytest.mark.parametrize("paths", [None, PATHS, ("../a.png",) * 3, ("/a.png",) * 3])
def test_without_readable_images_there_are_ids_or_places(tmp_path, paths):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    inner = tmp_path / "inner"
    inner.mkdir()
    features = FeatureSet(torch.zeros(3, 4), LABELS, CLASSES, "pets", paths=paths)
    keep_mistakes(tmp_path, outputs_of(), sources_of(features, inner))
    found = read_mistake_pictures(tmp_path)
    assert found.images is None
    assert found.index.tolist() == [1, 2]
    assert found.paths == (() if paths is None else paths[1:])


@pytest.mark.parametrize("logits", [torch.eye(2)[LABELS], torch.full((3, 2), torch.nan)])
def test_a_model_without_mistakes_or_without_numbers_leaves_no_file(tmp_path, logits):
    keep_mistakes(tmp_path, outputs_of(logits), sources_of(images()))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_final_run_keeps_them_unless_it_must_not(tmp_path):
    kept = make(job_of(tmp_path, "final", "etf"))[0].run
    found = read_mistake_pictures(kept)
    assert found.images.shape[1:] == (1, 8, 8)
    predictions = np.asarray(found.index)
    assert len(predictions) == 12
    job = job_of(tmp_path / "private", "final", "etf")
    assert not (make(replace(job, protocol=replace(PROTOCOL, keep_mistakes=False)))[0].run / MISTAKES).exists()
