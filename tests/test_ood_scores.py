"""Out-of-distribution scores against scikit-learn, cases worked by hand, and slow loops from the papers."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import torch
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from support.ood_samples import CLASSES, WIDTH, fitted, generator, make, queries

from nc_tools.ood import (
    FDBD,
    GEN,
    GROOD,
    KNN,
    MSP,
    NCI,
    NECO,
    RMDS,
    Energy,
    Mahalanobis,
    MaxLogit,
    ViM,
)
from nc_tools.ood.vim import default_dims


def rows(tensor):
    return [[float(v) for v in row] for row in tensor]


def softmax(z):
    top = max(z)
    e = [math.exp(v - top) for v in z]
    return [v / sum(e) for v in e]


def norm(v):
    return math.sqrt(sum(x * x for x in v))


def minus(a, b):
    return [x - y for x, y in zip(a, b, strict=True)]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def mean(vectors):
    return [sum(column) / len(vectors) for column in zip(*vectors, strict=True)]


def close(actual, expected, rtol=1e-9):
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=actual.dtype), rtol=rtol, atol=1e-9)


# Scores of the logits alone


def test_scores_of_logits_equal_their_definitions():
    x, z = queries()
    p = [softmax(row) for row in rows(z)]
    close(fitted(MSP()).score_samples(x, z), [math.log(max(q) / (1 - max(q))) for q in p])
    close(fitted(MaxLogit()).score_samples(x, z), [max(row) for row in rows(z)])
    for t in (1.0, 2.5):
        expected = [t * math.log(sum(math.exp(v / t) for v in row)) for row in rows(z)]
        close(fitted(Energy(t)).score_samples(x, z), expected)
    for g, m in ((0.1, 100), (0.5, 2), (0.3, 1)):
        expected = [-sum((q**g) * ((1 - q) ** g) for q in sorted(row)[-m:]) for row in p]
        close(fitted(GEN(g, m)).score_samples(x, z), expected)


def test_saturated_softmax_is_resolved_in_float32():
    x = torch.zeros(4, WIDTH)
    gaps = torch.tensor([10.0, 20.0, 40.0, 200.0])
    z = torch.zeros(4, CLASSES)
    z[:, 1] = gaps
    features, logits = (part.float() for part in make()[:2])
    labels = make()[2]
    for score in (MSP(), GEN()):
        values = score.fit(features, logits, labels).score_samples(x, z)
        assert bool((values.diff() > 0).all()), values
    assert MSP().fit(features, logits, labels).score_samples(x, z).tolist() == pytest.approx(
        (gaps - math.log(3)).tolist()
    )
    # three terms of p = e^-20 and the first's 1 - p = 3 e^-20: (3 + 3^.1) e^-2
    assert GEN().fit(features, logits, labels).score_samples(x, z)[1].item() == pytest.approx(
        -(3 + 3**0.1) * math.exp(-2), rel=1e-5
    )


# Scores of the features


def test_knn_is_scikit_learns_distance_to_the_kth_neighbor():
    x, z = queries()
    train = make()[0]
    unit = [(part / part.norm(dim=1, keepdim=True)).numpy() for part in (train, x)]
    for k in (1, 5, 90, 400):
        used = min(k, 90)
        distances = NearestNeighbors(n_neighbors=used).fit(unit[0]).kneighbors(unit[1])[0][:, -1]
        close(fitted(KNN(k)).score_samples(x, z), (-distances).tolist(), rtol=1e-7)


def test_mahalanobis_and_rmds_are_those_of_scikit_learns_covariance():
    features, _, labels, *_ = make()
    x, z = queries()
    present = [k for k in range(CLASSES) if (labels == k).any()]
    assert len(present) == 3
    centers = {k: features[labels == k].mean(0) for k in present}
    residuals = features - torch.stack([centers[int(k)] for k in labels])
    shared = EmpiricalCovariance(assume_centered=True).fit(residuals.numpy()).precision_
    all_samples = EmpiricalCovariance().fit(features.numpy())

    def distance(v, center):
        d = (v - center).numpy()
        return float(d @ shared @ d)

    nearest = [min(distance(v, center) for center in centers.values()) for v in x]
    close(fitted(Mahalanobis()).score_samples(x, z), [-v for v in nearest])
    background = all_samples.mahalanobis(x.numpy())
    expected = [b - v for b, v in zip(background, nearest, strict=True)]
    close(fitted(RMDS()).score_samples(x, z), expected)


def test_directions_without_spread_count_nothing():
    features, logits, labels, *_ = make()
    flat = torch.cat([features, torch.full((len(features), 1), 4.0)], dim=1)
    x, z = queries()
    beyond = torch.cat([x, torch.full((len(x), 1), 9.0)], dim=1)
    plain = Mahalanobis().fit(features, logits, labels).score_samples(x, z)
    torch.testing.assert_close(Mahalanobis().fit(flat, logits, labels).score_samples(beyond, z), plain)


def test_directions_of_rounding_count_nothing():
    features, logits, labels, *_ = make()
    x, z = queries()
    plain = Mahalanobis().fit(features, logits, labels).score_samples(x, z)
    # The same features rotated in a wider space and rounded there: three directions hold only rounding errors.
    turn = torch.linalg.qr(torch.randn(WIDTH + 3, WIDTH + 3, generator=generator(6), dtype=torch.float64)).Q
    wide = Mahalanobis().fit((features @ turn[:WIDTH]).float(), logits.float(), labels)
    outside = x @ turn[:WIDTH] + turn[-1]  # a step outside the space of the features, which must not count
    torch.testing.assert_close(wide.score_samples(outside.float(), z.float()).double(), plain, rtol=1e-3, atol=1e-3)


def test_vim_does_not_divide_by_what_rounding_left_of_a_direction():
    """Class vectors that sum to zero up to float32 rounding: the pseudo-inverse must leave out that direction."""
    features, logits, labels, weight, _ = make()
    centered = (weight.double() - weight.double().mean(0)).float()
    bias = torch.linspace(-1, 1, len(weight)) + 0.5  # does not sum to zero
    fitted = ViM(2).fit(features.float(), logits.float(), labels, centered, bias)
    exact = centered.double() - centered.double().mean(0)
    origin = -np.linalg.pinv(exact.numpy()) @ bias.double().numpy()
    assert fitted._origin.tolist() == pytest.approx(origin.tolist(), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dims", [0, 2, None])
def test_vim_is_the_published_recipe_in_numpy(dims, bias):
    features, logits, labels, weight, offset = make(bias=bias)
    x, z = queries(bias=bias)
    used = WIDTH // 2 if dims is None else dims
    origin = -np.linalg.pinv(weight.numpy()) @ offset.numpy() if bias else np.zeros(WIDTH)
    shifted = features.numpy() - origin
    values, vectors = np.linalg.eigh(shifted.T @ shifted / len(shifted))
    residual = vectors[:, np.argsort(-values)[used:]]
    alpha = logits.numpy().max(1).mean() / np.linalg.norm(shifted @ residual, axis=1).mean()
    lengths = np.linalg.norm((x.numpy() - origin) @ residual, axis=1)
    expected = np.log(np.exp(z.numpy()).sum(1)) - alpha * lengths
    close(ViM(dims).fit(features, logits, labels, weight, offset).score_samples(x, z), expected.tolist())
    assert [default_dims(d) for d in (100, 767, 768, 2047, 2048)] == [50, 383, 512, 512, 1000]


@pytest.mark.parametrize("dims", [1, 3, None])
def test_neco_is_scikit_learns_scaler_and_components(dims):
    features, *_ = make()
    x, z = queries()
    scaler = StandardScaler().fit(features.numpy())
    components = PCA(2 if dims is None else dims).fit(scaler.transform(features.numpy()))
    scaled = scaler.transform(x.numpy())
    expected = np.linalg.norm(components.transform(scaled), axis=1) / np.linalg.norm(scaled, axis=1)
    close(fitted(NECO(dims)).score_samples(x, z), expected.tolist())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_neco_takes_a_constant_feature_as_the_scaler_does(dtype):
    features, logits, labels, *_ = make(n=3000, dtype=dtype)
    features[:, 3] = 0.1  # not a binary fraction: its mean has a rounding error
    x, z = queries(dtype)
    scaler = StandardScaler().fit(features.numpy())
    components = PCA(2).fit(scaler.transform(features.numpy()))
    scaled = scaler.transform(x.numpy())
    expected = np.linalg.norm(components.transform(scaled), axis=1) / np.linalg.norm(scaled, axis=1)
    rtol = 1e-7 if dtype == torch.float64 else 1e-4
    close(NECO().fit(features, logits, labels).score_samples(x, z), expected.tolist(), rtol=rtol)


def test_nci_is_a_loop():
    features, _, _, weight, _ = make()
    x, z = queries()
    center = mean(rows(features))
    for alpha in (0.0, 0.01):
        expected = []
        for h, scores in zip(rows(x), rows(z), strict=True):
            away = minus(h, center)
            own = rows(weight)[scores.index(max(scores))]
            expected.append(dot(own, away) / norm(away) + alpha * sum(abs(v) for v in h))
        close(fitted(NCI(alpha)).score_samples(x, z), expected)


def test_fdbd_is_a_loop_and_the_distance_to_hyperplanes():
    features, _, _, weight, offset = make()
    x, z = queries()
    center = mean(rows(features))
    expected, w = [], rows(weight)
    for h, scores in zip(rows(x), rows(z), strict=True):
        y = scores.index(max(scores))
        gaps = [(scores[y] - scores[j]) / norm(minus(w[y], w[j])) for j in range(CLASSES) if j != y]
        expected.append(sum(gaps) / (CLASSES - 1) / norm(minus(h, center)))
    close(fitted(FDBD()).score_samples(x, z), expected)
    # Moving that far towards a class brings the sample onto the boundary with it.
    h, scores = x[0], z[0]
    y, j = scores.topk(2).indices.tolist()
    across = weight[j] - weight[y]
    there = h + across / across.norm() * ((scores[y] - scores[j]) / across.norm())
    moved = weight @ there + offset + 8
    assert moved[y].item() == pytest.approx(moved[j].item())


def test_classes_with_one_vector_have_no_boundary():
    features, _, labels, weight, _ = make(bias=False, classes=40)
    weight[1::2] = weight[::2]
    z = torch.randn(90, 40, generator=generator(1), dtype=torch.float64)
    values = FDBD().fit(features, z, labels, weight).score_samples(features, z)
    w, center, expected = rows(weight), mean(rows(features)), []
    for h, scores in zip(rows(features), rows(z), strict=True):
        y = scores.index(max(scores))
        gaps = [(scores[y] - scores[j]) / norm(minus(w[y], w[j])) for j in range(40) if j // 2 != y // 2]
        expected.append(sum(gaps) / 39 / norm(minus(h, center)))
    close(values, expected, rtol=1e-7)


def grood_gradient(h, prototypes, outlier, y):
    """The gradient of the loss of class y with respect to the outliers' prototype, by automatic differentiation."""
    o = torch.tensor(outlier, dtype=torch.float64, requires_grad=True)
    h = torch.tensor(h, dtype=torch.float64)
    every = torch.cat([torch.tensor(prototypes, dtype=torch.float64), o[None]])
    scores = -(h - every).norm(dim=1)
    loss = -(scores[y] - torch.logsumexp(scores, 0))
    return torch.autograd.grad(loss, o)[0].tolist()


@pytest.mark.parametrize("own_outliers", [False, True])
def test_grood_is_autograd_and_the_nearest_gradient(own_outliers):
    features, _, labels, *_ = make()
    x, z = queries()
    logits = torch.randn(90, CLASSES, generator=generator(2), dtype=torch.float64)  # every class is a runner-up
    present = [0, 1, 3]
    means = {k: mean([h for h, y in zip(rows(features), labels.tolist(), strict=True) if y == k]) for k in present}
    mixed = []
    for h, scores in zip(rows(features), rows(logits), strict=True):
        second = sorted(present, key=lambda k, s=scores: s[k])[-2]
        mixed.append([(a + b) / 2 for a, b in zip(h, means[second], strict=True)])
    outliers = torch.randn(6, WIDTH, generator=generator(4), dtype=torch.float64)
    outlier = mean(rows(outliers)) if own_outliers else mean(mixed)
    prototypes = list(means.values())
    right = logits.argmax(1) == labels
    assert 0 < int(right.sum()) < len(right)
    train_gradients = [
        grood_gradient(h, prototypes, outlier, 0) for h, ok in zip(rows(features), right, strict=True) if ok
    ]
    gradients = [grood_gradient(h, prototypes, outlier, 1) for h in rows(x)]
    expected = [-min(norm(minus(g, other)) for other in train_gradients) for g in gradients]
    score = GROOD(outliers if own_outliers else None).fit(features, logits, labels)
    close(score.score_samples(x, z), expected, rtol=1e-6)


def test_grood_keeps_evenly_spaced_samples():
    features, logits, labels, *_ = make()
    right = (logits.argmax(1) == labels).nonzero().flatten()
    few = GROOD(most=10).fit(features, logits, labels)
    step = -(-len(right) // 10)
    own = few.score_samples(features[right[::step]], logits[right[::step]])
    assert float(own.min()) > -1e-12
    assert float(few.score_samples(features[right[1::step]], logits[right[1::step]]).max()) < -1e-6


@pytest.mark.parametrize(
    ("score", "published"),
    [
        (GEN, {"gamma": 0.1, "largest": 100}),  # Liu, Lochman and Zach (2023), released code
        (KNN, {"k": 50}),  # Sun, Ming, Zhu and Li (2022), CIFAR-10
        (NCI, {"alpha": 1e-4}),  # Liu and Qin (2025), released code
        (Energy, {"temperature": 1.0}),  # Liu et al. (2020)
    ],
)
def test_the_defaults_are_those_that_were_published(score, published):
    parameters = inspect.signature(score.__init__).parameters
    assert {name: value.default for name, value in parameters.items() if name != "self"} == published
