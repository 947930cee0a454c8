"""Batches of features come in the order of image batches, and are standardized by the samples trained on."""

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from nc_tools.data import BalancedSampling, BatchOptions
from nc_tools.data.image_set import ImageSet
from nc_tools.data.loader import Loader
from nc_tools.features import FeatureLoader, FeatureSet, feature_batches, fit_standardize

N, D = 53, 7


def feature_set(dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    scales = torch.logspace(-3, 3, D)
    values = torch.randn(N, D, generator=generator) * scales + 5 * scales
    return FeatureSet(values.to(dtype), torch.arange(N) % 3, ("a", "b", "c"), "random")


@pytest.mark.parametrize("sampling", [None, BalancedSampling()])
@pytest.mark.parametrize("batch_size", [7, 16, 100])
def test_samples_come_in_the_order_of_an_image_loader(batch_size, sampling):
    part, indices = feature_set(), torch.arange(2, 50, 2)
    pixels = torch.zeros(N, 1, 2, 2, dtype=torch.uint8)
    images = ImageSet(pixels, part.labels, part.classes, "zeros")
    options = BatchOptions(batch_size=batch_size, mean=[0.0], std=[1.0], seed=5, sampling=sampling, epochs=3)
    expected = Loader(images, indices, options)
    loader = FeatureLoader(part, indices, batch_size=batch_size, seed=5, sampling=sampling, epochs=3)
    assert len(loader) == len(expected)
    for epoch in range(3):
        for own, theirs in zip(loader.epoch(epoch), expected.epoch(epoch), strict=True):
            assert torch.equal(own.index, theirs.index)
            assert torch.equal(own.labels, theirs.labels)
            assert torch.equal(own.inputs, part.features[own.index])


def test_an_epoch_resumes_at_any_step():
    loader = FeatureLoader(feature_set(), torch.arange(N), batch_size=10, seed=0)
    whole = [batch.index for batch in loader.epoch(4)]
    assert all(
        torch.equal(batch.index, index) for batch, index in zip(loader.epoch(4, start=3), whole[3:], strict=True)
    )
    with pytest.raises(ValueError, match="can start at step 0 to 6"):
        loader.epoch(0, start=7)


def test_evaluation_batches_are_in_order():
    part = feature_set(torch.float16)
    batches = list(feature_batches(part, None, 20))
    assert torch.equal(torch.cat([batch.index for batch in batches]), torch.arange(N))
    assert all(batch.inputs.dtype == torch.float32 for batch in batches)
    chosen = torch.tensor([4, 2])
    assert torch.equal(next(feature_batches(part, chosen, 20)).labels, part.labels[chosen])
    assert list(feature_batches(part, torch.empty(0, dtype=torch.int64), 20)) == []


def test_standardization_is_that_of_scikit_learn_on_the_training_samples():
    part, indices = feature_set(), torch.arange(0, N, 2)
    module = fit_standardize(part, indices)
    scaler = StandardScaler().fit(part.features[indices].double().numpy())
    # One dimension is below a thousandth of the mean spread, and is not blown up to variance one.
    spread = np.maximum(scaler.scale_, 1e-3 * scaler.scale_.mean())
    assert (spread > scaler.scale_).any()
    expected = (part.features.double().numpy() - scaler.mean_) / spread
    assert np.allclose(module(part.features).numpy(), expected, atol=1e-5)


def test_constant_features_stay_finite():
    part = FeatureSet(torch.full((4, 3), 2.5), torch.zeros(4).long(), ("a",), "constant")
    assert torch.equal(fit_standardize(part, torch.arange(4))(part.features), torch.zeros(4, 3))
