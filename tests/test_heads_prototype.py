"""The prototype head: its way from class means to vertices."""

import pytest
import torch
from support.feature_rows import D, K, N, features, unit
from support.small_training import Batches, small

from nc_tools.heads import ETFHead, PrototypeHead
from nc_tools.losses import CrossEntropyLoss
from nc_tools.training import OptimConfig, TrainConfig, fit


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_prototypes_go_to_the_vertices(progress):
    head, h = PrototypeHead(D, K, momentum=0.0), features()
    labels = torch.arange(N) % (K - 1)  # the last class has not come yet
    head.observe(head.outputs(h), labels, progress)
    for k in range(K):
        vertex = head.frame[k].tolist()
        rows = [unit(row.tolist()) for row, y in zip(h, labels, strict=True) if int(y) == k]
        mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)] if rows else vertex
        way = [(1 - progress) * p + progress * m for p, m in zip(unit(mean), vertex, strict=True)]
        assert head.weight[k].tolist() == pytest.approx(unit(way), abs=1e-6)


def test_before_a_step_and_after_the_last_the_head_is_an_etf_head():
    head, fixed = PrototypeHead(D, K, frame_seed=3), ETFHead(D, K, frame_seed=3)
    assert torch.allclose(head(features()), fixed(features()), atol=1e-5)
    for progress in (0.5, 1.0):
        head.observe(head.outputs(features()), torch.arange(N) % K, progress)
    assert torch.allclose(head(features()), fixed(features()), atol=1e-5)
    assert head.class_means.observed.tolist() == [1.0] * K


def test_training_takes_prototypes_all_the_way():
    model, halfway = small(PrototypeHead(6, 3)), []
    training, optim = TrainConfig(epochs=4), OptimConfig(lr=0.01)
    fit(
        model,
        CrossEntropyLoss(),
        Batches(),
        training,
        optim,
        epoch_end=lambda *_: halfway.append(float(model.head.progress)),
    )
    assert halfway == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert torch.allclose(model.head.weight, model.head.frame, atol=1e-6)
