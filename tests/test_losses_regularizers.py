"""Losses that act for or against collapse, against loops over scalars."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.feature_batches import D, K, Rows, batch_of, linear_head, rows_and_labels, value_of
from support.scalar_math import dot, norm, unit
from support.two_processes import in_two_processes
from torch import Tensor

from nc_tools.heads import CosineHead, ETFHead, LinearHead
from nc_tools.losses import (
    ClassAlignmentLoss,
    ClassCenters,
    ClassCompactnessLoss,
    ClassSpreadLoss,
    CodingRateLoss,
    FeatureDecayLoss,
    FeatureEntropyLoss,
    LossTerm,
    PickAllLabelLoss,
    class_spread,
    coding_rate_gain,
    feature_entropy,
)


def minus(a: list[float], b: list[float]) -> list[float]:
    return [x - y for x, y in zip(a, b, strict=True)]


def mean(rows: Rows) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def reference_centers(batches: list[tuple[Rows, list[int]]], momentum: float) -> dict[int, list[float]]:
    centers: dict[int, list[float]] = {}
    for rows, labels in batches:
        for k in set(labels):
            new = mean([r for r, y in zip(rows, labels, strict=True) if y == k])
            old = centers.get(k, new)
            centers[k] = [momentum * a + (1 - momentum) * b for a, b in zip(old, new, strict=True)]
    return centers


def reference_compactness(rows: Rows, labels: list[int], centers: dict[int, list[float]]) -> float:
    total = 0.0
    for k in set(labels):
        squares = [norm(minus(r, centers[k])) ** 2 for r, y in zip(rows, labels, strict=True) if y == k]
        total += sum(squares) / len(squares)
    return total / K


def reference_spread(centers: dict[int, list[float]]) -> float:
    middle = mean(list(centers.values()))
    moved = {k: unit(minus(c, middle)) for k, c in centers.items()}
    nearest = [min(math.acos(dot(a, b)) for j, b in moved.items() if j != k) for k, a in moved.items()]
    return -sum(nearest) / len(nearest)


def reference_alignment(weight: Rows, centers: dict[int, list[float]]) -> float:
    middle = mean(list(centers.values()))
    return sum(1 - dot(unit(weight[k]), unit(minus(c, middle))) for k, c in centers.items()) / len(centers)


def reference_entropy(rows: Rows, eps: float) -> float:
    z, total = [unit(r) for r in rows], 0.0
    for i in range(len(z)):
        total -= math.log(min(norm(minus(z[i], z[j])) for j in range(len(z)) if j != i) + eps)
    return total / len(z)


def reference_logdet(rows: Rows, scale: float) -> float:
    """log det(I + scale Z^T Z) by elimination."""
    m = [[float(i == j) + scale * sum(r[i] * r[j] for r in rows) for j in range(D)] for i in range(D)]
    result = 0.0
    for i in range(D):
        result += math.log(m[i][i])
        for j in range(i + 1, D):
            factor = m[j][i] / m[i][i]
            m[j] = [a - factor * b for a, b in zip(m[j], m[i], strict=True)]
    return result


def reference_gain(rows: Rows, labels: list[int], distortion: float) -> float:
    z = [unit(r) for r in rows]
    n = len(z)
    gain = 0.5 * reference_logdet(z, D / (n * distortion))
    for k in set(labels):
        own = [r for r, y in zip(z, labels, strict=True) if y == k]
        gain -= len(own) / (2 * n) * reference_logdet(own, D / (len(own) * distortion))
    return gain


@given(st.lists(rows_and_labels, min_size=1, max_size=3), st.sampled_from([0.0, 0.5, 0.9]))
@settings(max_examples=60, deadline=None)
def test_regularizers_of_class_centers(batches: list[tuple[Rows, list[int]]], momentum: float) -> None:
    rows, labels = batches[-1]
    centers = reference_centers(batches, momentum)
    linear = linear_head()
    for cls in (ClassCompactnessLoss, ClassSpreadLoss, ClassAlignmentLoss):
        loss = cls(D, K, momentum).double()
        for h, y in batches[:-1]:
            value_of(loss, h, y)
        result = value_of(loss, rows, labels, linear)
        assert loss.centers.initialized.tolist() == [k in centers for k in range(K)]
        for k, center in centers.items():
            assert loss.centers.means[k].tolist() == pytest.approx(center, abs=1e-9)
        if cls is ClassCompactnessLoss:
            assert result == pytest.approx(reference_compactness(rows, labels, centers), abs=1e-9)
        elif len(centers) < 2:
            assert result == 0.0
        elif min(norm(minus(c, mean(list(centers.values())))) for c in centers.values()) > 1e-3:
            if cls is ClassAlignmentLoss:
                weight = linear.weight.tolist()
                assert result == pytest.approx(reference_alignment(weight, centers), abs=1e-6)
            elif reference_guarded(centers):
                assert result == pytest.approx(reference_spread(centers), abs=1e-6)


def reference_guarded(centers: dict[int, list[float]]) -> bool:
    """Whether all cosines keep away from +-1, where the angle is cut."""
    middle = mean(list(centers.values()))
    moved = [unit(minus(c, middle)) for c in centers.values()]
    return all(abs(dot(a, b)) < 1 - 1e-5 for i, a in enumerate(moved) for b in moved[:i])


@given(rows_and_labels, st.floats(0.1, 2))
@settings(max_examples=60, deadline=None)
def test_regularizers_of_one_batch(batch: tuple[Rows, list[int]], distortion: float) -> None:
    rows, labels = batch
    assert value_of(FeatureDecayLoss(), rows, labels) == pytest.approx(sum(norm(r) ** 2 for r in rows) / len(rows) / 2)
    assert value_of(CodingRateLoss(distortion), rows, labels) == pytest.approx(
        -reference_gain(rows, labels, distortion), abs=1e-9
    )
    z = [unit(r) for r in rows]
    if min(norm(minus(a, b)) for i, a in enumerate(z) for b in z[:i]) > 1e-6:  # or it is rounding that decides
        assert value_of(FeatureEntropyLoss(1e-3), rows, labels) == pytest.approx(
            reference_entropy(rows, 1e-3), abs=1e-5
        )


def test_the_coding_rate_of_many_samples_takes_the_small_matrix() -> None:
    h, y = torch.randn(50, D, dtype=torch.float64), torch.arange(50) % K
    assert float(coding_rate_gain(h, y)) == pytest.approx(reference_gain(h.tolist(), y.tolist(), 0.5))


def test_the_default_of_entropy_is_that_of_public_code() -> None:
    assert FeatureEntropyLoss().eps == 1e-8
    assert value_of(FeatureEntropyLoss(), [[1.0, 0.0, 0.0]] * 2, [0, 0]) == pytest.approx(-math.log(1e-8))
    assert feature_entropy(torch.ones(1, D)).tolist() == [0.0]
    assert feature_entropy(torch.eye(3, D), kept=torch.tensor([False, True, False])).tolist() == [0.0] * 3


def test_gradients_stay_finite_where_features_or_centers_coincide() -> None:
    h = torch.ones(6, D, requires_grad=True)
    labels = torch.arange(6) % K
    losses = [
        ClassCompactnessLoss(D, K),
        ClassSpreadLoss(D, K),
        ClassAlignmentLoss(D, K),
        FeatureEntropyLoss(),
        CodingRateLoss(),
    ]
    for loss in losses:
        result = loss(LinearHead(D, K).outputs(h), batch_of(labels))
        (gradient,) = torch.autograd.grad(result, h)
        assert torch.isfinite(result)
        assert torch.isfinite(gradient).all(), loss


def test_the_angle_has_a_slope_where_centers_lie_on_a_line() -> None:
    """Directions that agree have a cosine of 1, where the arc cosine alone has a gradient without bound."""
    centers = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-2.0, 0.0]], requires_grad=True)
    result = class_spread(centers, torch.ones(3, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(result, centers)
    assert result.item() == pytest.approx(-math.pi / 3, abs=5e-3)
    assert torch.isfinite(gradient).all()


def test_nothing_moves_in_eval_mode_and_a_class_keeps_its_center() -> None:
    centers = ClassCenters(K, D, momentum=0.5)
    first = torch.ones(1, D)
    centers(first, torch.tensor([1]))
    centers.eval()
    means, has_center, counts = centers(3 * first, torch.tensor([1]))
    assert means[1].tolist() == [2.0] * D
    assert centers.means[1].tolist() == [1.0] * D
    assert has_center.tolist() == [False, True, False, False]
    assert counts.tolist() == [0, 1, 0, 0]
    centers.train()
    centers(9 * first, torch.tensor([0]))
    assert centers.means[:2].tolist() == [[9.0] * D, [1.0] * D]


def test_the_simplex_has_the_widest_angles() -> None:
    simplex = torch.eye(K, dtype=torch.float64)
    all_classes = torch.ones(K, dtype=torch.bool)
    assert float(class_spread(simplex, all_classes)) == pytest.approx(-math.acos(-1 / (K - 1)))
    for _ in range(5):
        assert float(class_spread(simplex + 0.2 * torch.randn(K, K, dtype=torch.float64), all_classes)) > -math.acos(
            -1 / (K - 1)
        )


@pytest.mark.parametrize("cls", [ClassSpreadLoss, ClassCompactnessLoss, FeatureEntropyLoss])
def test_gradient_steps_change_collapse(cls: type[LossTerm]) -> None:
    """Features alone, optimized freely: classes part, shrink, or their samples part."""
    torch.manual_seed(0)
    labels = torch.arange(24) % K
    h = torch.randn(24, K, dtype=torch.float64, requires_grad=True)
    loss = (cls() if cls is FeatureEntropyLoss else cls(K, K)).double()  # type: ignore[call-arg]
    linear = LinearHead(K, K).double()
    optimizer = torch.optim.SGD([h], lr=0.5)
    before = float(loss(linear.outputs(h), batch_of(labels)).detach())
    for _ in range(50):
        optimizer.zero_grad()
        torch.autograd.backward(loss(linear.outputs(h), batch_of(labels)))
        optimizer.step()
    assert float(loss(linear.outputs(h), batch_of(labels)).detach()) < before - 0.1


def test_alignment_compares_behind_the_heads_own_map() -> None:
    h, y = torch.randn(8, 6), torch.arange(8) % K
    projected = ETFHead(6, K, projection=True, generator=torch.Generator().manual_seed(0))
    loss = ClassAlignmentLoss(6, K)
    result = loss(projected.outputs(h), batch_of(y))
    means = torch.stack([h[y == k].mean(0) for k in range(K)])
    embedded = projected.embed(means).tolist()
    expected = reference_alignment(projected.weight.tolist(), dict(enumerate(embedded)))
    assert float(result.detach()) == pytest.approx(expected, abs=1e-5)
    torch.autograd.backward(result)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in projected.parameters())


def test_features_are_those_before_the_heads_normalization() -> None:
    h, y = torch.randn(6, D, dtype=torch.float64), torch.arange(6) % K
    for loss in (FeatureDecayLoss(), ClassCompactnessLoss(D, K)):
        cosine = CosineHead(D, K).double()
        outputs = cosine.outputs(h)
        twice = cosine.outputs(2 * h)
        losses = [float(loss(o, batch_of(y)).detach()) for o in (outputs, twice)]
        assert losses[0] != pytest.approx(losses[1])


def test_bad_arguments_and_widths() -> None:
    for cls in (ClassCompactnessLoss, ClassSpreadLoss, ClassAlignmentLoss):
        with pytest.raises(ValueError, match=r"momentum must lie in \[0, 1\), got 1"):
            cls(D, K, momentum=1.0)
        with pytest.raises(ValueError, match=r"for features of width 5, got width 3\. Build it with feature_dim=3"):
            value_of(cls(5, K).double(), [[1.0] * D], [0])
    with pytest.raises(ValueError, match="eps must be positive and finite, got 0"):
        FeatureEntropyLoss(0.0)
    with pytest.raises(ValueError, match="squared_distortion must be positive and finite, got -1"):
        CodingRateLoss(-1.0)
    with pytest.raises(ValueError, match=r"decay must be finite and not negative, got -0\.1"):
        PickAllLabelLoss(-0.1)


def draw(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(12, D, generator=generator, dtype=torch.float64), torch.arange(12) % 3


LOSSES = (ClassCompactnessLoss, ClassSpreadLoss, ClassAlignmentLoss)


def trained(rows: slice) -> list[tuple[float, Tensor, Tensor]]:
    """Value, gradient by the features and centers of each loss, on the second of two batches."""
    result = []
    for cls in LOSSES:
        loss, linear = cls(D, K).double(), linear_head()
        loss(linear.outputs(draw(0)[0][rows]), batch_of(draw(0)[1][rows]))
        h = draw(1)[0][rows].requires_grad_()
        loss_value = loss(linear.outputs(h), batch_of(draw(1)[1][rows]))
        (gradient,) = torch.autograd.grad(loss_value, h)
        result.append((float(loss_value.detach()), gradient, loss.centers.means))
    return result


def _worker(rank: int, folder: str) -> None:
    parts = trained(slice(rank * 5, 5 + rank * 7))  # 5 samples and 7: shares of a class differ
    for cls, (loss_value, gradient, centers) in zip(LOSSES, parts, strict=True):
        np.savez(Path(folder) / f"{cls.__name__}{rank}.npz", loss_value=loss_value, gradient=gradient, centers=centers)


@pytest.mark.slow
def test_two_processes_are_one(tmp_path: Path) -> None:
    """Values and gradients are averaged over processes, as DistributedDataParallel averages them."""
    in_two_processes(_worker, str(tmp_path))
    for cls, (loss_value, gradient, centers) in zip(LOSSES, trained(slice(None)), strict=True):
        parts = [np.load(tmp_path / f"{cls.__name__}{rank}.npz") for rank in range(2)]
        assert np.mean([part["loss_value"] for part in parts]) == pytest.approx(loss_value)
        np.testing.assert_allclose(np.concatenate([p["gradient"] for p in parts]) / 2, gradient, atol=1e-9)
        for part in parts:
            np.testing.assert_allclose(part["centers"], centers, atol=1e-9)
