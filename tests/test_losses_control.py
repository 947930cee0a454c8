"""Losses that turn collapse up or down, several labels and outliers, against loops over scalars."""

import math
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nc_tools.data import BatchOptions, DataConfig, ImageSet, Loader, WithOutliers, load_data, side_by_side
from nc_tools.heads import CosineHead, ETFHead, LinearHead
from nc_tools.losses import (
    ClassAlignmentLoss,
    ClassCenters,
    ClassCompactnessLoss,
    ClassSpreadLoss,
    CodingRateLoss,
    CrossEntropyLoss,
    FeatureDecayLoss,
    FeatureEntropyLoss,
    LossTerm,
    OrthogonalOutliersLoss,
    OutlierExposureLoss,
    PickAllLabelLoss,
    WeightedSumLoss,
    class_spread,
    coding_rate_gain,
    feature_entropy,
    outlier_exposure,
    term,
)
from nc_tools.models.classifier import Classifier
from nc_tools.records import Batch, Outputs
from nc_tools.training import OptimConfig, TrainConfig, fit

K, D = 4, 3
Rows = list[list[float]]


def norm(row: list[float]) -> float:
    return math.sqrt(sum(x * x for x in row))


def unit(row: list[float]) -> list[float]:
    return [x / norm(row) for x in row]


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


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
    found = 0.0
    for i in range(D):
        found += math.log(m[i][i])
        for j in range(i + 1, D):
            factor = m[j][i] / m[i][i]
            m[j] = [a - factor * b for a, b in zip(m[j], m[i], strict=True)]
    return found


def reference_gain(rows: Rows, labels: list[int], distortion: float) -> float:
    z = [unit(r) for r in rows]
    n = len(z)
    gain = 0.5 * reference_logdet(z, D / (n * distortion))
    for k in set(labels):
        own = [r for r, y in zip(z, labels, strict=True) if y == k]
        gain -= len(own) / (2 * n) * reference_logdet(own, D / (len(own) * distortion))
    return gain


number = st.floats(-2, 2).map(lambda x: round(x, 3))
row = st.lists(number, min_size=D, max_size=D).filter(lambda r: math.hypot(*r) > 0.1)
some_rows = st.integers(2, 8).flatmap(
    lambda n: st.tuples(st.lists(row, min_size=n, max_size=n), st.lists(st.integers(0, K - 1), min_size=n, max_size=n))
)


def head(kind: type[LinearHead] = LinearHead) -> LinearHead:
    return kind(D, K, generator=torch.Generator().manual_seed(0)).double()


def batch_of(labels: list[int] | Tensor) -> Batch:
    y = torch.as_tensor(labels)
    return Batch(torch.zeros(len(y), 1), y, torch.arange(len(y)))


def value(loss: LossTerm, rows: Rows | Tensor, labels: list[int] | Tensor, of: LinearHead | None = None) -> float:
    h = torch.as_tensor(rows, dtype=torch.float64)
    return float(loss((head() if of is None else of).outputs(h), batch_of(labels)).detach())


@given(st.lists(some_rows, min_size=1, max_size=3), st.sampled_from([0.0, 0.5, 0.9]))
@settings(max_examples=60, deadline=None)
def test_regularizers_of_class_centers(batches: list[tuple[Rows, list[int]]], momentum: float) -> None:
    rows, labels = batches[-1]
    centers = reference_centers(batches, momentum)
    linear = head()
    for cls in (ClassCompactnessLoss, ClassSpreadLoss, ClassAlignmentLoss):
        loss = cls(D, K, momentum).double()
        for h, y in batches[:-1]:
            value(loss, h, y)
        found = value(loss, rows, labels, linear)
        assert loss.centers.seen.tolist() == [k in centers for k in range(K)]
        for k, center in centers.items():
            assert loss.centers.means[k].tolist() == pytest.approx(center, abs=1e-9)
        if cls is ClassCompactnessLoss:
            assert found == pytest.approx(reference_compactness(rows, labels, centers), abs=1e-9)
        elif len(centers) < 2:
            assert found == 0.0
        elif min(norm(minus(c, mean(list(centers.values())))) for c in centers.values()) > 1e-3:
            if cls is ClassAlignmentLoss:
                weight = linear.weight.tolist()
                assert found == pytest.approx(reference_alignment(weight, centers), abs=1e-6)
            elif reference_guarded(centers):
                assert found == pytest.approx(reference_spread(centers), abs=1e-6)


def reference_guarded(centers: dict[int, list[float]]) -> bool:
    """Whether all cosines keep away from +-1, where the angle is cut."""
    middle = mean(list(centers.values()))
    moved = [unit(minus(c, middle)) for c in centers.values()]
    return all(abs(dot(a, b)) < 1 - 1e-5 for i, a in enumerate(moved) for b in moved[:i])


@given(some_rows, st.floats(0.1, 2))
@settings(max_examples=60, deadline=None)
def test_regularizers_of_one_batch(batch: tuple[Rows, list[int]], distortion: float) -> None:
    rows, labels = batch
    assert value(FeatureDecayLoss(), rows, labels) == pytest.approx(sum(norm(r) ** 2 for r in rows) / len(rows) / 2)
    assert value(CodingRateLoss(distortion), rows, labels) == pytest.approx(
        -reference_gain(rows, labels, distortion), abs=1e-9
    )
    z = [unit(r) for r in rows]
    if min(norm(minus(a, b)) for i, a in enumerate(z) for b in z[:i]) > 1e-6:  # or it is rounding that decides
        assert value(FeatureEntropyLoss(1e-3), rows, labels) == pytest.approx(reference_entropy(rows, 1e-3), abs=1e-5)


def test_the_coding_rate_of_many_samples_takes_the_small_matrix() -> None:
    h, y = torch.randn(50, D, dtype=torch.float64), torch.arange(50) % K
    assert float(coding_rate_gain(h, y)) == pytest.approx(reference_gain(h.tolist(), y.tolist(), 0.5))


def test_the_default_of_entropy_is_that_of_public_code() -> None:
    assert FeatureEntropyLoss().eps == 1e-8
    assert value(FeatureEntropyLoss(), [[1.0, 0.0, 0.0]] * 2, [0, 0]) == pytest.approx(-math.log(1e-8))
    assert feature_entropy(torch.ones(1, D)).tolist() == [0.0]


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
        found = loss(LinearHead(D, K).outputs(h), batch_of(labels))
        (gradient,) = torch.autograd.grad(found, h)
        assert torch.isfinite(found)
        assert torch.isfinite(gradient).all(), loss


def test_the_angle_has_a_slope_where_centers_lie_on_a_line() -> None:
    """Directions that agree have a cosine of 1, where the arc cosine alone has a gradient without bound."""
    centers = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-2.0, 0.0]], requires_grad=True)
    found = class_spread(centers, torch.ones(3, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(found, centers)
    assert found.item() == pytest.approx(-math.pi / 3, abs=5e-3)
    assert torch.isfinite(gradient).all()


def test_nothing_moves_in_eval_mode_and_a_class_keeps_its_center() -> None:
    centers = ClassCenters(K, D, momentum=0.5)
    first = torch.ones(1, D)
    centers(first, torch.tensor([1]))
    centers.eval()
    found, known, counts = centers(3 * first, torch.tensor([1]))
    assert found[1].tolist() == [2.0] * D
    assert centers.means[1].tolist() == [1.0] * D
    assert known.tolist() == [False, True, False, False]
    assert counts.tolist() == [0, 1, 0, 0]
    centers.train()
    centers(9 * first, torch.tensor([0]))
    assert centers.means[:2].tolist() == [[9.0] * D, [1.0] * D]


def test_the_simplex_has_the_widest_angles() -> None:
    simplex = torch.eye(K, dtype=torch.float64)
    known = torch.ones(K, dtype=torch.bool)
    assert float(class_spread(simplex, known)) == pytest.approx(-math.acos(-1 / (K - 1)))
    for _ in range(5):
        assert float(class_spread(simplex + 0.2 * torch.randn(K, K, dtype=torch.float64), known)) > -math.acos(
            -1 / (K - 1)
        )


@pytest.mark.parametrize("cls", [ClassSpreadLoss, ClassCompactnessLoss, FeatureEntropyLoss])
def test_a_step_against_the_gradient_turns_the_dial(cls: type[LossTerm]) -> None:
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
    found = loss(projected.outputs(h), batch_of(y))
    means = torch.stack([h[y == k].mean(0) for k in range(K)])
    embedded = projected.embed(means).tolist()
    expected = reference_alignment(projected.weight.tolist(), dict(enumerate(embedded)))
    assert float(found.detach()) == pytest.approx(expected, abs=1e-5)
    torch.autograd.backward(found)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in projected.parameters())


def test_features_before_the_heads_normalization_are_meant() -> None:
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
        with pytest.raises(ValueError, match="width 5 met features of width 3: build the loss with feature_dim=3"):
            value(cls(5, K).double(), [[1.0] * D], [0])
    with pytest.raises(ValueError, match="eps must be positive and finite, got 0"):
        FeatureEntropyLoss(0.0)
    with pytest.raises(ValueError, match="squared_distortion must be positive and finite, got -1"):
        CodingRateLoss(-1.0)
    with pytest.raises(ValueError, match=r"decay must not be negative, got -0\.1"):
        PickAllLabelLoss(-0.1)


def draw(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(12, D, generator=generator, dtype=torch.float64), torch.arange(12) % 3


LOSSES = (ClassCompactnessLoss, ClassSpreadLoss, ClassAlignmentLoss)


def trained(rows: slice) -> list[tuple[float, Tensor, Tensor]]:
    """Value, gradient by the features and centers of each loss, on the second of two batches."""
    found = []
    for cls in LOSSES:
        loss, linear = cls(D, K).double(), head()
        loss(linear.outputs(draw(0)[0][rows]), batch_of(draw(0)[1][rows]))
        h = draw(1)[0][rows].requires_grad_()
        made = loss(linear.outputs(h), batch_of(draw(1)[1][rows]))
        (gradient,) = torch.autograd.grad(made, h)
        found.append((float(made.detach()), gradient, loss.centers.means))
    return found


def _worker(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    parts = trained(slice(rank * 5, 5 + rank * 7))  # 5 samples and 7: shares of a class differ
    for cls, (made, gradient, centers) in zip(LOSSES, parts, strict=True):
        np.savez(Path(folder) / f"{cls.__name__}{rank}.npz", made=made, gradient=gradient, centers=centers)
    dist.destroy_process_group()


def test_two_processes_are_one(tmp_path: Path) -> None:
    """Values and gradients are averaged over processes, as DistributedDataParallel averages them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(_worker, args=(port, str(tmp_path)), nprocs=2)  # type: ignore[no-untyped-call]
    for cls, (made, gradient, centers) in zip(LOSSES, trained(slice(None)), strict=True):
        parts = [np.load(tmp_path / f"{cls.__name__}{rank}.npz") for rank in range(2)]
        assert np.mean([part["made"] for part in parts]) == pytest.approx(made)
        np.testing.assert_allclose(np.concatenate([p["gradient"] for p in parts]) / 2, gradient, atol=1e-9)
        for part in parts:
            np.testing.assert_allclose(part["centers"], centers, atol=1e-9)


@given(some_rows, st.data(), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_pick_all_label(batch: tuple[Rows, list[int]], data: st.DataObject, decay: float) -> None:
    rows, labels = batch
    tags = data.draw(st.lists(st.lists(st.booleans(), min_size=K, max_size=K), min_size=len(rows), max_size=len(rows)))
    linear = head()
    h = torch.tensor(rows, dtype=torch.float64)
    total = 0.0
    for z, present, r in zip(linear(h).tolist(), tags, rows, strict=True):
        norm_z = math.log(sum(math.exp(x) for x in z))
        total += sum(norm_z - x for x, there in zip(z, present, strict=True) if there) + decay * norm(r) ** 2
    tagged = Batch(h, torch.tensor(labels), torch.arange(len(rows)), tags=torch.tensor(tags))
    assert float(PickAllLabelLoss(decay)(linear.outputs(h), tagged).detach()) == pytest.approx(
        total / len(rows), abs=1e-9
    )
    assert value(PickAllLabelLoss(), rows, labels) == pytest.approx(value(CrossEntropyLoss(), rows, labels))


@given(some_rows)
@settings(max_examples=40, deadline=None)
def test_orthogonal_outliers(batch: tuple[Rows, list[int]]) -> None:
    rows, labels = batch
    linear = head()
    outputs: Outputs = linear.outputs(torch.ones(len(rows), D, dtype=torch.float64))
    with pytest.raises(ValueError, match="OrthogonalOutliers needs images of no class and got none: wrap the loader"):
        OrthogonalOutliersLoss()(outputs, batch_of(labels))
    outputs.outliers = linear.outputs(torch.tensor(rows, dtype=torch.float64))
    weight = linear.weight.tolist()
    cosines = [abs(dot(unit(r), unit(w))) for r in rows for w in weight]
    found = OrthogonalOutliersLoss()(outputs, batch_of(labels))
    assert float(found.detach()) == pytest.approx(sum(cosines) / len(cosines))


@given(some_rows)
@settings(max_examples=40, deadline=None)
def test_outlier_exposure(batch: tuple[Rows, list[int]]) -> None:
    rows, labels = batch
    linear = head()
    outputs: Outputs = linear.outputs(torch.ones(len(rows), D, dtype=torch.float64))
    with pytest.raises(ValueError, match="OutlierExposure needs images of no class and got none: wrap the loader"):
        OutlierExposureLoss()(outputs, batch_of(labels))
    outputs.outliers = linear.outputs(torch.tensor(rows, dtype=torch.float64))
    total = 0.0
    for z in linear(torch.tensor(rows, dtype=torch.float64)).tolist():
        whole = sum(math.exp(x) for x in z)
        total -= sum(math.log(math.exp(x) / whole) for x in z) / K
    found = OutlierExposureLoss()(outputs, batch_of(labels))
    assert float(found.detach()) == pytest.approx(total / len(rows))


def test_outlier_exposure_is_least_where_all_logits_are_the_same() -> None:
    logits = torch.zeros(2, K, dtype=torch.float64, requires_grad=True)
    value = outlier_exposure(logits)
    assert value.tolist() == pytest.approx([math.log(K)] * 2)
    (slope,) = torch.autograd.grad(value.sum(), logits)
    assert slope.abs().max() < 1e-12
    assert float(outlier_exposure(logits.detach() + torch.eye(2, K, dtype=torch.float64)).min()) > math.log(K)
    uniform = torch.full((3, K), 1 / K)
    others = torch.randn(3, K)
    torch.testing.assert_close(outlier_exposure(others).mean(), torch.nn.functional.cross_entropy(others, uniform))


def test_outliers_come_with_every_batch_and_resume_where_they_were() -> None:
    pixels = torch.arange(40, dtype=torch.uint8).view(40, 1, 1, 1)
    images = ImageSet(pixels, torch.arange(40) % K, tuple("abcd"), "steps")

    def loader() -> WithOutliers:
        inside, outside = (
            Loader(images, of, BatchOptions(batch_size=4, mean=[0.0], std=[1.0]))
            for of in (torch.arange(20), torch.arange(20, 32))
        )
        return WithOutliers(inside, outside)

    whole = [batch for epoch in range(3) for batch in loader().epoch(epoch)]
    assert len(loader()) == 5
    seen = torch.stack([b.outliers.flatten() for b in whole if b.outliers is not None]).mul(255).round().long()
    assert [sorted(seen[i : i + 3].flatten().tolist()) for i in range(0, 15, 3)] == [list(range(20, 32))] * 5
    assert seen[:3].flatten().tolist() != seen[3:6].flatten().tolist()
    rest = list(loader().epoch(1, start=3))
    for left, right in zip(whole[8:10], rest, strict=True):
        assert left.outliers is not None
        assert right.outliers is not None
        assert torch.equal(left.outliers, right.outliers)
        assert torch.equal(left.inputs, right.inputs)


def test_training_against_outliers_sends_them_to_the_side() -> None:
    digits = load_data(DataConfig(held_out_classes=5))
    assert digits.transfer_train is not None
    options = BatchOptions(batch_size=64, mean=digits.mean, std=digits.std)
    inside = Loader(digits.train, torch.arange(len(digits.train)), options)
    outside = Loader(digits.transfer_train, torch.arange(len(digits.transfer_train)), options)
    found = {}
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU())
        model = Classifier(body, LinearHead(32, 5))
        loss = WeightedSumLoss([term(1.0, CrossEntropyLoss()), term(weight, OrthogonalOutliersLoss())])
        fit(model, loss, WithOutliers(inside, outside), TrainConfig(epochs=4), OptimConfig(lr=0.05))
        batch = next(WithOutliers(inside, outside).epoch(9))
        assert batch.outliers is not None
        cosines = (
            torch.nn.functional.normalize(model.backbone(batch.outliers))
            @ torch.nn.functional.normalize(model.head.weight).T
        )
        accuracy = (model(batch.inputs).argmax(1) == batch.labels).float().mean()
        found[weight] = float(cosines.abs().mean().detach())
        assert float(accuracy) > 0.9
    assert found[1.0] < 0.75 * found[0.0]


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
    whole = {image.numpy().tobytes(): int(y) for image, y in zip(digits.images, digits.labels, strict=True)}
    assert [whole[image.numpy().tobytes()] for image in left] == pairs.labels.tolist()
    right = [whole[image.contiguous().numpy().tobytes()] for image in pairs.images[:, :, 4:12, 8:]]
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
