"""Pick-all-label against loops over scalars, and training on pairs of digits."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.feature_batches import K, Rows, linear_head, rows_and_labels, value_of
from support.scalar_math import norm

from nc_tools.data import BatchOptions, DataConfig, Loader, load_data, side_by_side
from nc_tools.heads import LinearHead
from nc_tools.losses import (
    CrossEntropyLoss,
    PickAllLabelLoss,
)
from nc_tools.models.classifier import Classifier
from nc_tools.records import Batch
from nc_tools.training import OptimConfig, TrainConfig, fit


@given(rows_and_labels, st.data(), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_pick_all_label(batch: tuple[Rows, list[int]], data: st.DataObject, decay: float) -> None:
    rows, labels = batch
    tags = data.draw(st.lists(st.lists(st.booleans(), min_size=K, max_size=K), min_size=len(rows), max_size=len(rows)))
    linear = linear_head()
    h = torch.tensor(rows, dtype=torch.float64)
    total = 0.0
    for z, present, r in zip(linear(h).tolist(), tags, rows, strict=True):
        norm_z = math.log(sum(math.exp(x) for x in z))
        total += sum(norm_z - x for x, there in zip(z, present, strict=True) if there) + decay * norm(r) ** 2
    tagged = Batch(h, torch.tensor(labels), torch.arange(len(rows)), tags=torch.tensor(tags))
    assert float(PickAllLabelLoss(decay)(linear.outputs(h), tagged).detach()) == pytest.approx(
        total / len(rows), abs=1e-9
    )
    assert value_of(PickAllLabelLoss(), rows, labels) == pytest.approx(value_of(CrossEntropyLoss(), rows, labels))


@pytest.mark.slow
def test_pairs_of_digits_are_learned() -> None:
    digits = load_data(DataConfig()).train
    pairs, tags = side_by_side(digits, 600, torch.Generator().manual_seed(0))
    assert pairs.shape == (1, 16, 16)
    assert tags.shape == (600, 10)
    assert set(tags.sum(1).tolist()) == {1, 2}
    assert bool(tags[torch.arange(600), pairs.labels].all())
    left = pairs.images[:, :, 4:12, :8]
    assert not pairs.images[:, :, :4].any()
    assert not pairs.images[:, :, 12:].any()
    label_of = {image.numpy().tobytes(): int(y) for image, y in zip(digits.images, digits.labels, strict=True)}
    assert [label_of[image.numpy().tobytes()] for image in left] == pairs.labels.tolist()
    right = [label_of[image.contiguous().numpy().tobytes()] for image in pairs.images[:, :, 4:12, 8:]]
    assert bool(tags[torch.arange(600), torch.tensor(right)].all())
    loader = Loader(pairs, torch.arange(0, 600, 2), BatchOptions(batch_size=50, mean=[0.3], std=[0.4], tags=tags))
    for batch in loader.epoch(0):
        assert batch.tags is not None
        assert torch.equal(batch.tags, tags[batch.index])
    torch.manual_seed(0)
    body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 64), torch.nn.ReLU())
    model = Classifier(body, LinearHead(64, 10))
    fit(model, PickAllLabelLoss(), loader, TrainConfig(epochs=30), OptimConfig(lr=0.05))
    hits = []
    for batch in loader.epoch(40):
        assert batch.tags is not None
        both = batch.tags.sum(1) == 2
        hits += batch.tags.gather(1, model(batch.inputs).topk(2).indices)[both].all(1).tolist()
    assert sum(hits) / len(hits) > 0.9
    with pytest.raises(ValueError, match=r"tags must be bool with a row for each of the 600 images, got .*int64"):
        Loader(pairs, torch.arange(6), BatchOptions(batch_size=2, mean=[0.3], std=[0.4], tags=tags.long()))
    with pytest.raises(ValueError, match="count, the number of pairs, must be at least 1, got 0"):
        side_by_side(digits, 0, torch.Generator())
