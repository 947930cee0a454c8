"""Several cached views of each training image: what they are, what they cost, and which of them training sees."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.head_plans import arms_of, base_of, plan_of, run_plan_of
from test_features_extract import TINY, backbone

from nc_tools.data import Augment, BalancedSampling, ColorJitter, Cutout, DataConfig, RandAugment
from nc_tools.data.image_set import ImageSet
from nc_tools.experiment import load_run
from nc_tools.experiment.build import build_head, build_loss
from nc_tools.experiment.on_features import head_samples
from nc_tools.experiment.on_features.data_settings import plain_data, refuse_unused_settings, with_augmentation
from nc_tools.experiment.on_features.feature_data import open_feature_data
from nc_tools.experiment.on_features.feature_sources import (
    SETS_FILE,
    FeatureSources,
    open_feature_sources,
    write_feature_sources,
)
from nc_tools.features import FeatureLoader, FeatureSet, ImageViews, extract_features
from nc_tools.features.feature_cache import RowsFile
from nc_tools.models.classifier import Classifier
from nc_tools.records import Batch
from nc_tools.run_records import read_runs
from nc_tools.seeds import stream, stream_seed
from nc_tools.training import fit

AUGMENT = Augment(padding=2, flip=True)
FURTHER = Augment(2, True, RandAugment(2, 9), ColorJitter(0.4), Cutout(4))


def images(count=10, side=9):
    pixels = torch.randint(0, 255, (count, 3, side, side), generator=torch.Generator().manual_seed(0)).byte()
    return ImageSet(pixels, torch.arange(count) % 2, ("a", "b"), "noise")


def of_view(features, view):
    """The features of one view of all samples, float32."""
    return features.take(torch.arange(len(features)), torch.full((len(features),), view))


def by_numpy(image, digest, view, padding, seed=0):
    """Crop and flip of one view of one image by NumPy's padding and slices."""
    own = stream_seed(seed, "augment", view, int.from_bytes(digest.numpy().tobytes()[:8], "big"))
    shifts = 2 * padding + 1
    number = int(torch.randint(2 * shifts**2, (1,), generator=stream(own, "augment")))
    flipped, top, left = number // shifts**2, number // shifts % shifts, number % shifts
    pixels = image.numpy()[:, :, ::-1] if flipped else image.numpy()
    padded = np.pad(pixels, ((0, 0), (padding, padding), (padding, padding)))
    side = image.shape[1]
    return torch.from_numpy(padded[:, top : top + side, left : left + side].copy())


def test_views_are_the_image_and_crops_and_flips_that_it_alone_decides(tmp_path):
    data, model = images(), backbone()
    result = extract_features(data, model, tmp_path, views=ImageViews(3, AUGMENT))
    assert (result.computed, result.features.views) == (30, 3)
    for view in range(3):
        for row, image, digest in zip(of_view(result.features, view), data.images, data.digests(), strict=True):
            pixels = image if view == 0 else by_numpy(image, digest, view, 2)
            with torch.no_grad():
                expected = model.module.eval()(TINY(pixels[None]))[0]
            assert torch.allclose(row, expected, atol=2e-3)
    assert torch.equal(result.features.take(torch.arange(10)), of_view(result.features, 0))


@pytest.mark.parametrize("augment", [AUGMENT, FURTHER])
def test_a_view_depends_on_neither_order_nor_batch(augment):
    views, data = ImageViews(4, augment), images(12)
    digests, view = data.digests(), torch.arange(12) % 4
    whole = views.pixels(data.images, digests, view)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    assert torch.equal(views.pixels(data.images[order], digests[order], view[order]), whole[order])
    assert torch.equal(whole[view == 0], data.images[view == 0])
    inputs = torch.rand(12, 3, 8, 8)
    finished = views.inputs(inputs, digests, view)
    alone = [views.inputs(inputs[i : i + 1], digests[i : i + 1], view[i : i + 1]) for i in range(12)]
    assert torch.equal(finished, torch.cat(alone))
    erased = [bool((finished[i] != inputs[i]).any()) for i in range(12)]
    assert erased == [augment.cutout is not None and number > 0 for number in view.tolist()]
    assert not torch.equal(ImageViews(4, augment, seed=1).pixels(data.images, digests, view), whole)


def test_a_cache_serves_for_more_and_for_fewer_views(tmp_path):
    data = images()
    plain = extract_features(data, backbone(), tmp_path)
    four = extract_features(data, backbone(), tmp_path, views=ImageViews(4, AUGMENT))
    assert (plain.computed, four.computed) == (10, 30)
    assert four.notes == ("10 of 40 views of images have cached features; the others are new or have changed",)
    assert torch.equal(of_view(four.features, 0), plain.features.take(torch.arange(10)))
    two = extract_features(data, backbone(), tmp_path, views=ImageViews(2, AUGMENT))
    assert two.computed == 0
    assert torch.equal(of_view(two.features, 1), of_view(four.features, 1))
    assert extract_features(data, backbone(), tmp_path).computed == 0
    for other in (ImageViews(4, replace(AUGMENT, flip=False)), ImageViews(4, AUGMENT, seed=1)):
        assert extract_features(data, backbone(), tmp_path, views=other).computed == 30, "view 0 is the same"


def test_views_go_on_after_the_last_chunk_that_was_written(tmp_path, monkeypatch):
    monkeypatch.setattr("nc_tools.features.extract.BATCH", 4)
    monkeypatch.setattr("nc_tools.features.extract.CHUNK_BATCHES", 2)
    data, views = images(), ImageViews(3, FURTHER)

    def stop(done, total):
        if done == 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_features(data, backbone(), tmp_path / "stopped", views=views, progress=stop)
    again = extract_features(data, backbone(), tmp_path / "stopped", views=views)
    whole = extract_features(data, backbone(), tmp_path / "whole", views=views)
    assert (again.computed, whole.computed) == (14, 30)
    for view in range(3):
        assert torch.allclose(of_view(again.features, view), of_view(whole.features, view), atol=2e-3)


def test_views_of_another_augmentation_code_are_computed_again(tmp_path, monkeypatch):
    data, views = images(), ImageViews(2, AUGMENT)
    extract_features(data, backbone(), tmp_path, views=views)
    monkeypatch.setattr(Augment, "pixels", lambda *arguments: arguments[1] // 2)
    result = extract_features(data, backbone(), tmp_path, views=views)
    assert result.computed == 20
    assert result.notes == ("the cached features are not those that the backbone computes now: all are computed again",)


def numbered(samples, views):
    """A set whose features say which sample and view they are of."""
    pool = torch.cartesian_prod(torch.arange(views), torch.arange(samples)).flip(1).float()
    rows = torch.arange(views * samples).view(views, samples)
    return FeatureSet(pool, torch.arange(samples) % 2, ("a", "b"), "numbered", rows=rows[0], further_rows=rows[1:])


@pytest.mark.parametrize("sampling", [None, BalancedSampling()])
def test_every_epoch_takes_one_view_of_each_sample(sampling):
    part, indices = numbered(40, 4), torch.arange(3, 40)
    plain = FeatureSet(part.features[:40], part.labels, part.classes, "one view")
    loader, other, one = (
        FeatureLoader(p, indices, batch_size=size, seed=5, sampling=sampling, epochs=50)
        for p, size in ((part, 10), (part, 37), (plain, 10))
    )
    counts = torch.zeros(4)
    for epoch in range(50):
        batches = list(loader.epoch(epoch))
        inputs = torch.cat([batch.inputs for batch in batches])
        index = torch.cat([batch.index for batch in batches])
        assert torch.equal(inputs[:, 0].long(), index)
        assert torch.equal(torch.cat([batch.index for batch in one.epoch(epoch)]), index), "the order is the same"
        assert torch.equal(torch.cat([batch.inputs for batch in other.epoch(epoch)]), inputs), "at any batch size"
        assert torch.equal(next(iter(loader.epoch(epoch, start=2))).inputs, batches[2].inputs)
        counts += inputs[:, 1].long().bincount(minlength=4)
    assert counts.sum() == 50 * 37
    assert (counts / counts.sum() - 0.25).abs().max() < 0.05  # five standard deviations


def test_subsets_keep_their_views():
    part = numbered(6, 3).subset(torch.tensor([4, 1]))
    assert (len(part), part.views) == (2, 3)
    assert part.take(torch.tensor([1, 0]), torch.tensor([2, 1])).tolist() == [[1.0, 2.0], [4.0, 1.0]]
    with pytest.raises(ValueError, match=r"further views need a row for each of the 2 samples"):
        replace(part, further_rows=torch.zeros(2, 5, dtype=torch.int64))


def feature_sets(root, views=3, dim=6, counts=(24, 12, 9)):
    """The file of feature sets that a comparison reads, with random features in place of those of a backbone."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(3).repeat_interleave(torch.tensor(counts))
    count = len(labels)
    pool = 2 * torch.eye(3, dim)[labels].repeat(views + 1, 1)
    pool += torch.randn(pool.shape, generator=generator)
    root.mkdir(exist_ok=True)
    pool.numpy().tofile(root / "rows.bin")
    rows = torch.arange(len(pool)).view(views + 1, count)
    train = FeatureSet(pool, labels, ("a", "b", "c"), "train", rows=rows[0], further_rows=rows[1:views])
    test = FeatureSet(pool, labels.clone(), ("a", "b", "c"), "test", rows=rows[views])
    sources = FeatureSources(
        train, test, image_shape=(dim, 1, 1), mean=(0.0,) * dim, std=(1.0,) * dim, fingerprint="f"
    )  # fmt: skip
    file = RowsFile(str(root / "rows.bin"), "float32", dim, len(pool))
    path = (root / f"{SETS_FILE}.safetensors").resolve()
    write_feature_sources(sources, {"train": file, "test": file}, path)
    return path, sources


class ByHand:
    """Training batches of views, drawn here."""

    def __init__(self, pool, labels, indices, batch_size, seed):
        self.pool, self.labels, self.indices, self.size, self.seed = pool, labels, indices, batch_size, seed

    def __len__(self):
        return (len(self.indices) + self.size - 1) // self.size

    def epoch(self, epoch, start=0):
        count = len(self.indices)
        order = self.indices[torch.randperm(count, generator=stream(self.seed, "order", epoch))]
        view = torch.randint(len(self.pool), (count,), generator=stream(self.seed, "augment", epoch))
        bounds = [step * count // len(self) for step in range(len(self) + 1)]
        for a, b in zip(bounds[start:], bounds[start + 1 :], strict=False):
            yield Batch(self.pool[view[a:b], order[a:b]], self.labels[order[a:b]], order[a:b])


@pytest.mark.parametrize("scaled_at_once", [2**24, pytest.param(0, marks=pytest.mark.slow)])
def test_heads_are_trained_on_views_and_evaluated_on_the_samples_themselves(tmp_path, monkeypatch, scaled_at_once):
    """Packed and alone, with features that are scaled before training and without, against the ordinary loop."""
    monkeypatch.setattr(head_samples, "_SCALED_AT_ONCE", scaled_at_once)
    path, sources = feature_sets(tmp_path / "sets")
    read = open_feature_sources(path).train
    assert torch.equal(read.further_rows, sources.train.further_rows)
    base = base_of("x")
    arms = {name: arm for name, arm in arms_of(base).items() if name in ("linear", "proxies", "means")}
    result, _ = run_plan_of(plan_of(arms, seeds=(0,), rates=(0.1,)), path, tmp_path)
    assert result == "FINISHED"
    data = open_feature_data(base, path, seed=0, device=torch.device("cpu"))
    indices, facts = data.subsets.train, data.facts(data.subsets.train)
    pool = torch.stack([of_view(sources.train, view) for view in range(3)])
    mean, spread = pool[0, indices].mean(0), pool[0, indices].std(0, unbiased=False)
    for run in read_runs(tmp_path):
        trained = load_run(run.path)
        config, model = trained.config, trained.model
        assert torch.allclose(model.backbone[1].mean, mean, atol=1e-5)
        assert torch.allclose(model.backbone[1].spread, spread, atol=1e-5)
        with torch.no_grad():
            logits = model(pool[0, indices])
        accuracy = (logits.argmax(1) == sources.train.labels[indices]).double().mean()
        assert run.final["train/gen/accuracy"] == pytest.approx(float(accuracy))
        if config.is_closed_form:
            units = torch.nn.functional.normalize((pool[0, indices] - mean) / spread)
            means = torch.stack([units[sources.train.labels[indices] == k].mean(0) for k in range(3)])
            cosine = torch.nn.functional.cosine_similarity(model.head.weight, means)
            assert torch.allclose(cosine, torch.ones(3), atol=1e-5)
            continue
        head = build_head(config, facts, 6, generator=stream(0, "head"), frame_seed=run.identity.frame_seed)
        expected = Classifier(model.backbone, head)
        batches = ByHand(pool, sources.train.labels, indices, config.training.batch_size, 0)
        fit(expected, build_loss(config, facts, 6), batches, config.training, config.optim, seed=0)
        with torch.no_grad():
            assert torch.allclose(logits, expected(pool[0, indices]), atol=1e-4), run.identity.arm


@pytest.mark.parametrize(
    ("change", "embeddings", "message"),
    [
        ({"views": 4}, True, "an embedding file has no images, got 4 views: leave --views and data.views out"),
        ({"views": 4, "flip": False, "crop_padding": 0}, False, "4 views of an image need random augmentation"),
        ({"views": 1, "flip": True}, False, "cache several views of each image with --views 4"),
        ({"views": 4, "outliers": "blended"}, False, "data.outliers is not used by runs on fixed features"),
    ],
)
def test_views_that_cannot_be_are_refused(change, embeddings, message):
    data = plain_data("imagefolder:x") if change["views"] == 1 else with_augmentation(plain_data("imagefolder:x"))
    with pytest.raises(ValueError, match=message):
        refuse_unused_settings(replace(data, **change), embeddings=embeddings)


def test_augmentation_of_views_can_be_set():
    data = replace(with_augmentation(plain_data("imagefolder:x")), views=2, rand_augment=RandAugment(), flip=False)
    refuse_unused_settings(data, embeddings=False)


@pytest.mark.parametrize("count", [0, -1])
def test_the_number_of_views_is_checked(count):
    with pytest.raises(ValueError, match="must be at least 1, got"):
        DataConfig(views=count)
    with pytest.raises(ValueError, match="must be at least 1 view"):
        ImageViews(count, AUGMENT)


def test_views_in_words():
    assert str(ImageViews()) == "the image itself"
    words = "the image itself and 1 view with random crop (padding 2) and flip"
    assert str(ImageViews(2, AUGMENT)) == words
    assert str(ImageViews(4, replace(AUGMENT, cutout=Cutout(4)))) == (
        "the image itself and 3 views with random crop (padding 2), flip and Cutout(size=4)"
    )
