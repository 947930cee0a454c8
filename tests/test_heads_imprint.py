"""Class vectors from features: directions of means, and several proxies a class."""

import math

import numpy as np
import pytest
import torch
from support.unequal_classes import D, K, N, sample, seeded
from torch import Tensor, nn

from nc_tools.heads import (
    CosineHead,
    ProxyHead,
    imprint,
    least_squares_init,
    normalize,
    tau_normalize,
)
from nc_tools.heads.imprint import spherical_kmeans


def test_one_proxy_is_the_direction_of_the_mean_of_unit_features() -> None:
    features, labels = sample()
    head = imprint(features, labels, K, scale=7.0)
    assert isinstance(head, CosineHead)
    for k in range(K):
        total = [0.0] * D
        for row, label in zip(features.tolist(), labels.tolist(), strict=True):
            if label == k:
                length = math.sqrt(sum(v * v for v in row))
                total = [t + v / length for t, v in zip(total, row, strict=True)]
        length = math.sqrt(sum(t * t for t in total))
        assert head.weight[k].tolist() == pytest.approx([t / length for t in total], abs=1e-6)
    assert head.scale == 7.0
    assert all(p.requires_grad for p in head.parameters())


def test_imprinting_ignores_the_length_of_features_and_the_order_of_samples() -> None:
    features, labels = sample()
    lengths = 10 ** torch.randn(N, 1, generator=seeded(5))
    order = torch.randperm(N, generator=seeded(6))
    head = imprint(features, labels, K)
    assert torch.allclose(imprint(features * lengths, labels, K).weight, head.weight, atol=1e-6)
    assert torch.allclose(imprint(features[order], labels[order], K).weight, head.weight, atol=1e-6)


def test_imprinting_draws_from_no_stream_but_the_one_given() -> None:
    features, labels = sample()
    state = torch.get_rng_state()
    a, b = (imprint(features, labels, K, 3, generator=seeded(4)) for _ in range(2))
    imprint(features, labels, K)
    least_squares_init(features, labels, K, 0.1)
    tau_normalize(nn.Linear(D, K, device="meta").to_empty(device="cpu"), 0.5)
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(a, ProxyHead)
    assert isinstance(b, ProxyHead)
    assert torch.equal(a.proxies, b.proxies)


def mean_cosine(features: Tensor, labels: Tensor, centers: Tensor) -> float:
    own = torch.einsum("nd,nmd->nm", normalize(features), centers[labels])
    return float(own.amax(1).mean())


def test_proxies_reach_what_scikit_learn_reaches_in_each_class_alone() -> None:
    """Spherical against Euclidean k-means (best of 10 starts), both measured by the cosine to the nearest center."""
    from sklearn.cluster import KMeans

    groups = torch.randn(K * 3, D, generator=seeded(0))
    labels = torch.arange(K).repeat_interleave(60)
    features = groups[labels * 3 + torch.arange(len(labels)) % 3]
    features = features + 0.3 * torch.randn(features.shape, generator=seeded(1))
    head = imprint(features, labels, K, 3, generator=seeded(2))
    assert isinstance(head, ProxyHead)
    sklearn_centers = [
        normalize(
            torch.tensor(
                KMeans(3, n_init=10, random_state=0).fit(normalize(features[labels == k]).numpy()).cluster_centers_
            )
        )
        for k in range(K)
    ]
    ours = mean_cosine(features, labels, head.proxies.detach())
    theirs = mean_cosine(features, labels, torch.stack(sklearn_centers))
    assert ours > theirs - 0.01
    assert ours > mean_cosine(features, labels, imprint(features, labels, K).weight.detach()[:, None]) + 0.1


def slow_lloyd(rows: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Spherical Lloyd iterations on one class from given centers, sample by sample."""
    for _ in range(100):
        best = [max(range(len(centers)), key=lambda j: float(row @ centers[j])) for row in rows]
        new = centers.copy()
        for j in range(len(centers)):
            members = [row for row, b in zip(rows, best, strict=True) if b == j]
            if members:
                total = np.sum(members, axis=0)
                new[j] = total / np.linalg.norm(total)
        if np.allclose(new, centers, atol=1e-12):
            return new
        centers = new
    return centers


def test_kmeans_stops_at_a_fixed_point_of_slow_loops() -> None:
    """What comes back is a fixed point of Lloyd's two steps in each class, written as loops."""
    features, labels = sample(3)
    directions = normalize(features.double())
    centers = spherical_kmeans(directions, labels, K, 3, seeded(0))
    for k in range(K):
        slow = slow_lloyd(directions[labels == k].numpy(), centers[k].numpy())
        assert np.allclose(slow, centers[k].numpy(), atol=1e-9)
    assert torch.allclose(centers.norm(dim=2), torch.ones(K, 3, dtype=torch.float64))


def test_first_centers_are_samples_of_the_class_drawn_by_distance() -> None:
    """Of {a, a, a, b} the second center is the other direction, whichever the first was."""
    directions = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [-1.0, 0.0]])
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    for seed in range(20):
        centers = spherical_kmeans(directions, labels, 2, 2, seeded(seed))
        assert sorted(centers[0].tolist()) == [[0.0, 1.0], [1.0, 0.0]]
        assert sorted(centers[1].tolist()) == [[-1.0, 0.0], [0.0, 1.0]]
        three = spherical_kmeans(torch.eye(3).repeat(4, 1), torch.zeros(12, dtype=torch.long), 1, 3, seeded(seed))
        assert sorted(three[0].tolist()) == [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]


def test_first_centers_are_drawn_in_proportion_to_the_distance() -> None:
    """From (1, 0), directions at distances 1 and 1.8 are drawn in the ratio 1 : 1.8 where the first center is known."""
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-0.8, -0.6]]).repeat(4000, 1)
    labels = torch.arange(4000).repeat_interleave(3)
    from nc_tools.heads.imprint import _first_centers

    first, second = _first_centers(directions, labels, 4000, 2, seeded(0)).unbind(1)
    started = (first == torch.tensor([1.0, 0.0])).all(1)
    assert 0.3 < float(started.float().mean()) < 0.37
    far = (second[started][:, 0] < 0).float().mean()
    assert float(far) == pytest.approx(1.8 / 2.8, abs=0.05)


def test_fewer_samples_than_proxies_and_dead_features_stay_finite() -> None:
    features = torch.tensor([[1.0, 2.0], [0.0, 0.0], [0.0, 0.0], [3.0, 1.0], [3.0, 1.0]])
    head = imprint(features, torch.tensor([0, 1, 1, 2, 2]), 3, 4, generator=seeded(0))
    logits = head(features)
    assert torch.isfinite(logits).all()
    assert torch.allclose(normalize(head.get_parameter("proxies"))[0], normalize(features[:1]).expand(4, 2), atol=1e-6)
    assert not logits[:, 1].any()


def test_one_proxy_of_a_proxy_head_scores_as_the_cosine_head() -> None:
    features, labels = sample()
    cosine = imprint(features, labels, K, scale=3.0)
    head = ProxyHead(D, K, num_proxies=1, scale=3.0)
    head.proxies.data.copy_(cosine.weight[:, None])
    assert torch.allclose(head(features), cosine(features), atol=1e-5)
    assert torch.allclose(head.weight, cosine.weight, atol=1e-6)


def test_a_class_scores_by_its_nearest_proxy() -> None:
    head, features = ProxyHead(D, K, num_proxies=3, scale=2.5, generator=seeded(0)), sample()[0][:5]
    for n in range(5):
        for k in range(K):
            cosines = []
            for m in range(3):
                p, h = head.proxies[k, m].tolist(), features[n].tolist()
                lengths = math.sqrt(sum(v * v for v in p)) * math.sqrt(sum(v * v for v in h))
                cosines.append(sum(a * b for a, b in zip(p, h, strict=True)) / lengths)
            assert float(head(features)[n, k].detach()) == pytest.approx(2.5 * max(cosines), abs=1e-5)


def test_proxies_separate_classes_of_two_clusters_where_one_mean_cannot() -> None:
    corners = torch.tensor([[1.0, 0.0, 0.1], [-1.0, 0.0, 0.1], [0.0, 1.0, 0.1], [0.0, -1.0, 0.1]])
    labels = torch.tensor([0, 0, 1, 1]).repeat(50)
    features = corners.repeat(50, 1) + 0.05 * torch.randn(200, 3, generator=seeded(0))
    right = [float((imprint(features, labels, 2, m, generator=seeded(1))(features).argmax(1) == labels).float().mean())
             for m in (1, 2)]  # fmt: skip
    assert right[0] < 0.8
    assert right[1] == 1.0


@pytest.mark.parametrize(
    ("features", "labels", "classes", "proxies", "message"),
    [
        (torch.ones(3, 2), torch.tensor([0, 0, 2]), 4, 1, r"got none for 2 of 4 classes \(1, 3\): add samples"),
        (torch.ones(3, 2), torch.tensor([0, 1, 2]), 2, 1, r"labels must lie in \[0, 2\), got other labels in 1 sample"),
        (
            torch.full((2, 2), math.nan),
            torch.tensor([0, 1]),
            2,
            1,
            "features must be finite, got NaN or inf in 2 samples",
        ),
        (torch.ones(2, 2), torch.tensor([0, 1]), 2, 0, "at least 1 proxy per class, got num_proxies=0"),
        (torch.ones(2, 2, 2), torch.tensor([0, 1]), 2, 1, r"shape \(N, D\)"),
        (torch.ones(2, 2), torch.tensor([0, 0]), 1, 1, "at least 2 classes, got 1"),
    ],
)
def test_bad_arguments_raise(features: Tensor, labels: Tensor, classes: int, proxies: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        imprint(features, labels, classes, proxies)
    with pytest.raises(ValueError, match="at least 1 proxy"):
        ProxyHead(4, 3, num_proxies=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_imprinting_works_where_the_features_are() -> None:
    features, labels = sample()
    features_cuda, labels_cuda = features.cuda(), labels.cuda()
    for proxies in (1, 3):
        head = imprint(features_cuda, labels_cuda, K, proxies, generator=seeded(0))
        plain = imprint(features, labels, K, proxies, generator=seeded(0))
        assert torch.allclose(head(features_cuda).cpu(), plain(features), atol=1e-3)
