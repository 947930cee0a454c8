"""Batches with outliers: what they hold, that arms stay paired, and which losses get them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.outlier_runs import EXPOSED, config_of, noise_pictures

from nc_tools.data import BatchOptions, BlendedOutliers, DataConfig, Loader, WithOutliers, augment_for, load_data
from nc_tools.data.outlier_batches import other_class
from nc_tools.experiment.build import build_loss
from nc_tools.experiment.run_data import facts_of, open_data
from nc_tools.losses import CrossEntropyLoss, OrthogonalOutliersLoss, OutlierExposureLoss, WeightedSumLoss, term
from nc_tools.seeds import stream_seed

CPU = torch.device("cpu")


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40))
@settings(max_examples=100, deadline=None)
def test_partners_are_of_another_class_and_spread_evenly(labels):
    partners = other_class(torch.tensor(labels)).tolist()
    assert len(partners) == len(labels)
    if len(set(labels)) == 1:
        assert all(0 <= position < len(labels) for position in partners)
        return
    assert all(labels[i] != labels[j] for i, j in enumerate(partners))
    for k in set(labels):
        of_class = [j for i, j in enumerate(partners) if labels[i] == k]
        uses = [of_class.count(j) for j in range(len(labels)) if labels[j] != k]
        assert max(uses) - min(uses) <= 1


def digits_loader():
    digits = load_data(DataConfig(held_out_classes=3))
    options = BatchOptions(batch_size=64, mean=digits.mean, std=digits.std, augment=augment_for(DataConfig(), 8))
    return Loader(digits.train, torch.arange(len(digits.train)), options)


def test_blended_outliers_are_averages_of_the_batch_and_leave_it_alone():
    plain, blended = list(digits_loader().epoch(2)), list(BlendedOutliers(digits_loader()).epoch(2))
    assert len(plain) == len(blended) == len(BlendedOutliers(digits_loader())) > 5
    for one, other in zip(plain, blended, strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.labels, other.labels)
        for i, j in enumerate(other_class(one.labels).tolist()):
            assert torch.allclose(other.outliers[i], 0.5 * one.inputs[i] + 0.5 * one.inputs[j])
    late = list(BlendedOutliers(digits_loader()).epoch(2, start=4))
    for one, other in zip(blended[4:], late, strict=True):
        assert torch.equal(one.outliers, other.outliers)


def batches_of(config, root, seed=0):
    data = open_data(config, seed=seed, device=CPU, cache=root / "cache")
    loss = build_loss(config, facts_of(data.sources, data.sources.train.labels), 32)
    return data, data.batches_for(loss, data.subsets.fit)


@pytest.mark.parametrize("named", ["blended", "folder", pytest.param("streamed", marks=pytest.mark.slow)])
def test_arms_stay_paired_and_only_losses_that_need_outliers_get_them(tmp_path, named):
    outliers = "blended" if named == "blended" else noise_pictures(tmp_path / "noise")
    more = {"memory_gb": 0.0} if named == "streamed" else {}
    by_arm = {}
    for arm in ("linear", *sorted(EXPOSED)):
        _, batches = batches_of(config_of(arm, outliers=outliers, **more), tmp_path)
        by_arm[arm] = [batch for epoch in (0, 1) for batch in batches.epoch(epoch)]
    plain = by_arm.pop("linear")
    assert all(batch.outliers is None for batch in plain)
    for arm, batches in by_arm.items():
        for one, other, first in zip(batches, plain, by_arm["linear_oe"], strict=True):
            assert torch.equal(one.inputs, other.inputs), arm
            assert torch.equal(one.labels, other.labels)
            assert torch.equal(one.index, other.index)
            assert one.outliers.shape[1:] == one.inputs.shape[1:]
            assert torch.equal(one.outliers, first.outliers)


def test_outliers_of_a_set_are_cut_as_training_images_are_in_an_order_of_their_own(tmp_path):
    config = config_of("linear_oe", outliers=noise_pictures(tmp_path / "noise"), crop_padding=2, flip=True)
    data, batches = batches_of(config, tmp_path, seed=3)
    assert isinstance(batches, WithOutliers)
    sources = data.sources
    options = BatchOptions(
        batch_size=50, mean=sources.mean, std=sources.std, augment=augment_for(config.data, 8),
        seed=stream_seed(3, "outliers"),
    )  # fmt: skip
    direct = Loader(sources.outliers, torch.arange(40), options)
    assert augment_for(config.data, 8).flip
    of_run = [batch.outliers for epoch in (0, 1) for batch in batches.epoch(epoch)]
    for step, outliers in enumerate(of_run):  # 40 images in one batch: each step is a round
        assert torch.equal(outliers, next(direct.epoch(step)).inputs)
    other = [batch.outliers for batch in batches_of(config, tmp_path, seed=4)[1].epoch(0)]
    assert not torch.equal(of_run[0], other[0])


def test_a_loss_without_outliers_never_opens_a_loader_of_them(tmp_path, monkeypatch):
    from nc_tools.experiment import run_data

    opened, make = [], run_data.make_loader

    def make_loader(images, indices, options):
        opened.append(images)
        return make(images, indices, options)

    monkeypatch.setattr(run_data, "make_loader", make_loader)
    outliers = noise_pictures(tmp_path / "noise")
    data, _ = batches_of(config_of("etf", outliers=outliers), tmp_path)
    assert [images is data.sources.train for images in opened] == [True]
    data, _ = batches_of(config_of("etf_ortho", outliers=outliers), tmp_path)
    assert [images is data.sources.outliers for images in opened] == [False, False, True]


def test_a_sum_needs_what_a_part_needs():
    parts = [CrossEntropyLoss(), WeightedSumLoss([term(1.0, OutlierExposureLoss())]), OrthogonalOutliersLoss()]
    assert [part.needs_outliers for part in parts] == [False, True, True]
    assert WeightedSumLoss([term(1.0, parts[0]), term(0.1, parts[1])]).needs_outliers
    assert not WeightedSumLoss([term(1.0, parts[0])]).needs_outliers
