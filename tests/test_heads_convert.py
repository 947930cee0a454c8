"""Class vectors from features, and heads turned into something else."""

import copy
import io
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nc_tools.heads import (
    LEARNED,
    CosineHead,
    ETFHead,
    FrozenRandomHead,
    Head,
    LinearHead,
    ProxyHead,
    align_to,
    default_scale,
    imprint,
    least_squares_init,
    tau_normalise,
    to_linear,
    unit,
)
from nc_tools.heads.imprint import spherical_kmeans

D, K, N = 12, 4, 90


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sample(seed: int = 0, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    """Features of unequal classes (40, 30, 15, 5), off the origin."""
    labels = torch.tensor([0] * 40 + [1] * 30 + [2] * 15 + [3] * 5)[torch.randperm(N, generator=seeded(seed))]
    means = torch.randn(K, D, generator=seeded(seed + 1))
    return 0.5 + means[labels] + spread * torch.randn(N, D, generator=seeded(seed + 2)), labels


# Imprinting.


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
    tau_normalise(nn.Linear(D, K, device="meta").to_empty(device="cpu"), 0.5)
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(a, ProxyHead)
    assert isinstance(b, ProxyHead)
    assert torch.equal(a.proxies, b.proxies)


def mean_cosine(features: Tensor, labels: Tensor, centres: Tensor) -> float:
    own = torch.einsum("nd,nmd->nm", unit(features), centres[labels])
    return float(own.amax(1).mean())


def test_proxies_reach_what_scikit_learn_reaches_in_each_class_alone() -> None:
    """Spherical against Euclidean k-means (best of 10 starts), both measured by the cosine to the nearest centre."""
    from sklearn.cluster import KMeans

    groups = torch.randn(K * 3, D, generator=seeded(0))
    labels = torch.arange(K).repeat_interleave(60)
    features = groups[labels * 3 + torch.arange(len(labels)) % 3]
    features = features + 0.3 * torch.randn(features.shape, generator=seeded(1))
    head = imprint(features, labels, K, 3, generator=seeded(2))
    assert isinstance(head, ProxyHead)
    reached = [
        unit(
            torch.tensor(KMeans(3, n_init=10, random_state=0).fit(unit(features[labels == k]).numpy()).cluster_centers_)
        )
        for k in range(K)
    ]
    ours = mean_cosine(features, labels, head.proxies.detach())
    theirs = mean_cosine(features, labels, torch.stack(reached))
    assert ours > theirs - 0.01
    assert ours > mean_cosine(features, labels, imprint(features, labels, K).weight.detach()[:, None]) + 0.1


def slow_lloyd(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Spherical Lloyd iterations on one class from given centres, sample by sample."""
    for _ in range(100):
        best = [max(range(len(centres)), key=lambda j: float(row @ centres[j])) for row in rows]
        new = centres.copy()
        for j in range(len(centres)):
            members = [row for row, b in zip(rows, best, strict=True) if b == j]
            if members:
                total = np.sum(members, axis=0)
                new[j] = total / np.linalg.norm(total)
        if np.allclose(new, centres, atol=1e-12):
            return new
        centres = new
    return centres


def test_kmeans_stands_still_where_a_slow_one_does() -> None:
    """What comes back is a fixed point of Lloyd's two steps in each class, written as loops."""
    features, labels = sample(3)
    directions = unit(features.double())
    centres = spherical_kmeans(directions, labels, K, 3, seeded(0))
    for k in range(K):
        slow = slow_lloyd(directions[labels == k].numpy(), centres[k].numpy())
        assert np.allclose(slow, centres[k].numpy(), atol=1e-9)
    assert torch.allclose(centres.norm(dim=2), torch.ones(K, 3, dtype=torch.float64))


def test_first_centres_are_samples_of_the_class_drawn_by_distance() -> None:
    """Of {a, a, a, b} the second centre is the other direction, whichever the first was."""
    directions = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [-1.0, 0.0]])
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    for seed in range(20):
        found = spherical_kmeans(directions, labels, 2, 2, seeded(seed))
        assert sorted(found[0].tolist()) == [[0.0, 1.0], [1.0, 0.0]]
        assert sorted(found[1].tolist()) == [[-1.0, 0.0], [0.0, 1.0]]
        three = spherical_kmeans(torch.eye(3).repeat(4, 1), torch.zeros(12, dtype=torch.long), 1, 3, seeded(seed))
        assert sorted(three[0].tolist()) == [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]


def test_the_race_draws_in_proportion_to_the_distance() -> None:
    """From (1, 0), directions at distances 1 and 1.8 are drawn in the ratio 1 : 1.8 where the first centre is known."""
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-0.8, -0.6]]).repeat(4000, 1)
    labels = torch.arange(4000).repeat_interleave(3)
    from nc_tools.heads.imprint import _first_centres

    first, second = _first_centres(directions, labels, 4000, 2, seeded(0)).unbind(1)
    started = (first == torch.tensor([1.0, 0.0])).all(1)
    assert 0.3 < float(started.float().mean()) < 0.37
    far = (second[started][:, 0] < 0).float().mean()
    assert float(far) == pytest.approx(1.8 / 2.8, abs=0.05)


def test_fewer_samples_than_proxies_and_dead_features_stay_finite() -> None:
    features = torch.tensor([[1.0, 2.0], [0.0, 0.0], [0.0, 0.0], [3.0, 1.0], [3.0, 1.0]])
    head = imprint(features, torch.tensor([0, 1, 1, 2, 2]), 3, 4, generator=seeded(0))
    logits = head(features)
    assert torch.isfinite(logits).all()
    assert torch.allclose(unit(head.get_parameter("proxies"))[0], unit(features[:1]).expand(4, 2), atol=1e-6)
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


def test_proxies_tell_classes_of_two_clusters_apart_where_one_mean_cannot() -> None:
    corners = torch.tensor([[1.0, 0.0, 0.1], [-1.0, 0.0, 0.1], [0.0, 1.0, 0.1], [0.0, -1.0, 0.1]])
    labels = torch.tensor([0, 0, 1, 1]).repeat(50)
    features = corners.repeat(50, 1) + 0.05 * torch.randn(200, 3, generator=seeded(0))
    right = [float((imprint(features, labels, 2, m, generator=seeded(1))(features).argmax(1) == labels).float().mean())
             for m in (1, 2)]  # fmt: skip
    assert right[0] < 0.8
    assert right[1] == 1.0


@pytest.mark.parametrize(
    ("features", "labels", "classes", "proxies", "said"),
    [
        (torch.ones(3, 2), torch.tensor([0, 0, 2]), 4, 1, r"2 of 4 have none \(1, 3\): give samples"),
        (torch.ones(3, 2), torch.tensor([0, 1, 2]), 2, 1, r"labels must lie in \[0, 2\), but 1 of them"),
        (torch.full((2, 2), math.nan), torch.tensor([0, 1]), 2, 1, "features must be finite, but 2 samples"),
        (torch.ones(2, 2), torch.tensor([0, 1]), 2, 0, "at least 1 proxy for each class, got num_proxies=0"),
        (torch.ones(2, 2, 2), torch.tensor([0, 1]), 2, 1, r"shape \(N, D\)"),
        (torch.ones(2, 2), torch.tensor([0, 0]), 1, 1, "at least 2 classes, got 1"),
    ],
)
def test_what_cannot_be_imprinted_is_said(
    features: Tensor, labels: Tensor, classes: int, proxies: int, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        imprint(features, labels, classes, proxies)
    with pytest.raises(ValueError, match="at least 1 proxy"):
        ProxyHead(4, 3, num_proxies=0)


# Least squares.


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("ridge", [0.01, 1.0, 30.0])
def test_least_squares_is_ridge_regression_on_one_hot_targets(bias: bool, ridge: float) -> None:
    """scikit-learn's Ridge, with its (unpenalised) intercept or without; it adds errors up where we average them."""
    from sklearn.linear_model import Ridge

    features, labels = sample()
    head = least_squares_init(features.double(), labels, K, ridge, bias=bias, target=3.0)
    targets = 3.0 * torch.nn.functional.one_hot(labels, K).double()
    reference = Ridge(alpha=N * ridge, fit_intercept=bias, solver="svd").fit(features.double().numpy(), targets.numpy())
    assert np.allclose(head.weight.detach().numpy(), reference.coef_, atol=1e-9)
    if bias:
        assert np.allclose(head.bias.detach().numpy(), reference.intercept_, atol=1e-9)  # type: ignore[union-attr]
    else:
        assert head.bias is None


def test_on_balanced_data_it_is_the_published_form_and_on_others_it_is_not() -> None:
    def published(h: Tensor, y: Tensor, ridge: float) -> Tensor:
        means = torch.stack([h[y == k].mean(0) for k in range(K)])
        centre = h.mean(0)
        total = (h - centre).T @ (h - centre) / len(h)
        inverse = torch.linalg.inv(total + torch.outer(centre, centre) + ridge * torch.eye(D, dtype=h.dtype))
        return means @ inverse / K

    features, labels = sample()
    features = features.double()
    balanced = torch.cat([(labels == k).nonzero().flatten()[:5] for k in range(K)])
    h, y = features[balanced], labels[balanced]
    assert torch.allclose(least_squares_init(h, y, K, 0.1, bias=False).weight, published(h, y, 0.1), atol=1e-10)
    assert not torch.allclose(
        least_squares_init(features, labels, K, 0.1, bias=False).weight, published(features, labels, 0.1), atol=0.05
    )


def test_an_absent_class_gets_zeros_and_float32_far_from_the_origin_is_as_good() -> None:
    features, labels = sample()
    head = least_squares_init(features, labels, K + 2, 0.1)
    assert not head.weight[K:].any()
    assert not head.bias[K:].any()  # type: ignore[index]
    far = least_squares_init(features + 1000, labels, K, 0.1)
    exact = least_squares_init((features + 1000).double(), labels, K, 0.1)
    assert torch.allclose(far.weight.double(), exact.weight, atol=1e-3)
    assert far.weight.dtype == torch.float32


def test_the_start_has_no_spike_of_the_loss() -> None:
    features, labels = sample(spread=0.3)
    loss = nn.functional.cross_entropy
    started = loss(least_squares_init(features, labels, K, 0.01, target=default_scale(K))(features), labels)
    drawn = loss(LinearHead(D, K, generator=seeded(0))(features), labels)
    assert started.item() < 0.1 < drawn.item()


@pytest.mark.parametrize(("ridge", "target"), [(0.0, 1.0), (-1.0, 1.0), (math.nan, 1.0), (0.1, 0.0)])
def test_a_ridge_or_target_that_is_none_is_refused(ridge: float, target: float) -> None:
    with pytest.raises(ValueError, match="must be positive and finite"):
        least_squares_init(*sample(), K, ridge, target=target)
    with pytest.raises(ValueError, match=r"\(N, D\) with N >= 1, got \(0, 3\)"):
        least_squares_init(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), K, 1.0)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 2\)"):
        least_squares_init(*sample(), 2, 1.0)


# Tau-normalisation.


@given(tau=st.floats(0, 2), seed=st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_norms_become_their_power_and_directions_stay(tau: float, seed: int) -> None:
    weight = torch.randn(K, D, generator=seeded(seed), dtype=torch.float64)
    got = tau_normalise(weight, tau)
    for k in range(K):
        row = weight[k].tolist()
        norm = math.sqrt(sum(v * v for v in row))
        assert got[k].tolist() == pytest.approx([v / norm**tau for v in row], rel=1e-12)


def test_a_head_comes_back_without_its_bias_and_is_left_as_it_was() -> None:
    for trained in (LinearHead(D, K), nn.Linear(D, K)):
        before = copy.deepcopy(trained.state_dict())
        head = tau_normalise(trained.eval(), 1.0)
        assert isinstance(head, LinearHead)
        assert head.bias is None
        assert not head.training
        assert torch.allclose(head.weight.norm(dim=1), torch.ones(K))
        assert all(torch.equal(v, before[k]) for k, v in trained.state_dict().items())


def test_rows_of_zeros_half_precision_and_bad_input() -> None:
    weight = torch.randn(K, D)
    weight[1] = 0
    assert not tau_normalise(weight, 1.0)[1].any()
    half = tau_normalise(weight.half(), 1.0)
    assert half.dtype == torch.float16
    assert torch.isfinite(half).all()
    for tau in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="tau must be at least 0 and finite"):
            tau_normalise(weight, tau)
    with pytest.raises(TypeError, match=r"LinearHead, an nn\.Linear or a weight \(K, D\), got CosineHead"):
        tau_normalise(CosineHead(D, K), 1.0)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match=r"shape \(K, D\), got \(12,\)"):
        tau_normalise(weight[0], 1.0)


# Plain layers.


# Defined when they are asked for: the contract tests take up every subclass that is there when they are collected.


def users_head(own_embed: bool = False, lying: bool = False) -> Head:
    """A head as a user would write it, with a scale for each class."""

    class Users(Head):
        def __init__(self) -> None:
            super().__init__(D, K)
            self.weight = nn.Parameter(torch.randn(K, D))
            self.bias = nn.Parameter(torch.randn(K))
            self.scale = torch.arange(1.0, K + 1)

    class Embedding(Users):
        def embed(self, features: Tensor) -> Tensor:
            return nn.functional.gelu(features)

    class Lying(Users):
        def compute_logits(self, embedded: Tensor) -> Tensor:
            return super().compute_logits(embedded).square()

    return Lying() if lying else Embedding() if own_embed else Users()


AFFINE = {
    "linear": lambda: LinearHead(D, K),
    "linear without bias": lambda: LinearHead(D, K, bias=False),
    "cosine": lambda: CosineHead(D, K),
    "ETF": lambda: ETFHead(D, K),
    "ETF, learned scale and projection": lambda: ETFHead(D, K, projection=9, scale=LEARNED),
    "ETF, projection alone": lambda: ETFHead(D, K, projection=True, normalise=False),
    "ETF on raw features": lambda: ETFHead(D, K, normalise=False, scale=2.0),
    "random": lambda: FrozenRandomHead(D, K),
    "a user's": users_head,
}
LAYERS = {
    "cosine": ["RMSNorm", "Linear"],
    "ETF": ["RMSNorm", "Linear"],
    "random": ["RMSNorm", "Linear"],
    "ETF, learned scale and projection": ["Linear", "RMSNorm", "Linear"],
}


@pytest.mark.parametrize("name", AFFINE)
@pytest.mark.parametrize("size", [1.0, 1e-6, 1e6])
def test_plain_layers_score_as_the_head_does(name: str, size: float) -> None:
    state = torch.get_rng_state()
    torch.manual_seed(0)
    head, features = AFFINE[name](), size * sample()[0]
    before = torch.get_rng_state()
    plain = to_linear(head)
    assert torch.equal(torch.get_rng_state(), before)
    torch.set_rng_state(state)
    assert torch.allclose(plain(features), head(features), rtol=1e-4, atol=1e-5 * max(size, 1))
    kinds = [type(m).__name__ for m in plain.modules() if not isinstance(m, nn.Sequential)]
    assert kinds == LAYERS.get(name, ["Linear"])
    assert torch.equal(torch.isfinite(plain(torch.zeros(2, D))), torch.ones(2, K, dtype=torch.bool))


@pytest.mark.parametrize("name", [n for n in AFFINE if n != "a user's"])
def test_plain_layers_pickle_without_a_trace_of_nc_tools(name: str) -> None:
    plain = to_linear(AFFINE[name]())
    assert all(type(m).__module__.startswith("torch.nn.modules") for m in plain.modules())
    assert b"nc_tools" not in pickle.dumps(plain)


def test_plain_layers_load_where_nc_tools_is_not(tmp_path: Path) -> None:
    head, features = ETFHead(D, K, projection=9, scale=LEARNED), sample()[0]
    torch.save(to_linear(head), tmp_path / "plain.pt")
    torch.save((features, head(features).detach()), tmp_path / "expected.pt")
    code = (
        "import sys, torch\n"
        "sys.modules['nc_tools'] = None\n"  # an import of it is an ImportError
        "features, expected = torch.load('expected.pt')\n"
        "plain = torch.load('plain.pt', weights_only=False)\n"
        "assert torch.allclose(plain(features), expected, atol=1e-5)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)


def test_plain_layers_are_copies_on_the_heads_device_and_of_its_type() -> None:
    head = LinearHead(D, K).to(torch.bfloat16).eval()
    plain = to_linear(head)
    assert isinstance(plain, nn.Linear)
    assert not plain.training
    assert plain.weight.dtype == torch.bfloat16
    assert torch.equal(plain.weight, head.weight)
    with torch.no_grad():
        head.weight.zero_()
    assert plain.weight.any()
    with torch.device("meta"):
        meta = ETFHead(D, K, projection=9)
    assert {p.device.type for p in to_linear(meta).parameters()} == {"meta"}
    assert to_linear(CosineHead(D, K).double())(torch.randn(2, D).double()).dtype == torch.float64


def test_an_embedding_of_the_users_is_given_as_layers_and_checked() -> None:
    head, features = users_head(own_embed=True), sample()[0]
    with pytest.raises(TypeError, match=r"Embedding embeds features in a way of its own.*embed=nn\.Sequential"):
        to_linear(head)
    assert torch.allclose(to_linear(head, embed=nn.GELU())(features), head(features), atol=1e-5)
    with pytest.raises(ValueError, match=r"Embedding must score scale \* embed\(features\) @ weight\.T \+ bias.*off"):
        to_linear(head, embed=nn.ReLU())


def test_heads_that_are_not_affine_or_only_say_so_are_refused() -> None:
    with pytest.raises(TypeError, match=r"ProxyHead is not affine.*Export it as it is"):
        to_linear(ProxyHead(D, K))
    with pytest.raises(ValueError, match="Lying must score"):
        to_linear(users_head(lying=True))
    with pytest.raises(TypeError, match="to_linear takes a Head, got Linear"):
        to_linear(nn.Linear(D, K))  # type: ignore[arg-type]


def test_a_swapped_model_is_served_with_plain_layers() -> None:
    from nc_tools.heads import spec, swap_head

    model = nn.Sequential(nn.Linear(5, D), nn.ReLU(), nn.Linear(D, K))
    swap_head(model, spec(ETFHead, projection=9))
    x = torch.randn(3, 5)
    expected = model(x)
    model[2] = to_linear(model[2])  # type: ignore[arg-type]
    assert torch.allclose(model(x), expected, atol=1e-5)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    assert b"nc_tools" not in buffer.getvalue()


# Alignment.


@pytest.mark.parametrize("cls", [ETFHead, FrozenRandomHead])
@pytest.mark.parametrize("width", [K - 1, K, D])
def test_the_aligned_frame_is_scipys_procrustes_solution(cls: type[ETFHead], width: int) -> None:
    from scipy.linalg import orthogonal_procrustes

    head, weight = cls(width, K).double(), torch.randn(K, width, generator=seeded(1), dtype=torch.float64)
    rotation, _ = orthogonal_procrustes(head.frame.numpy(), weight.numpy())
    expected = torch.from_numpy(head.frame.numpy() @ rotation)
    assert align_to(head, weight) is head
    # The frame in double was rounded to float32 when it was made: that is what scipy was given.
    assert torch.allclose(head.frame, expected, atol=1e-6)


def test_no_rotation_lies_nearer() -> None:
    """Brute force in the plane: every angle, with and without a reflection."""
    weight = torch.randn(3, 2, generator=seeded(2), dtype=torch.float64)
    head = ETFHead(2, 3).double()
    frame = head.frame.clone()
    best = float((align_to(head, weight).frame * weight).sum())
    tried = []
    for step in range(3600):
        angle = 2 * math.pi * step / 3600
        c, s = math.cos(angle), math.sin(angle)
        for mirror in (1.0, -1.0):
            turned = frame @ torch.tensor([[c, s], [-s * mirror, c * mirror]], dtype=torch.float64)
            tried.append(float((turned * weight).sum()))
    assert best == pytest.approx(max(tried), abs=1e-5)
    assert best >= max(tried) - 1e-6


def test_an_aligned_frame_is_as_exact_an_etf_as_a_fresh_one_however_often_it_is_turned() -> None:
    head = ETFHead(D, K)
    gram = torch.full((K, K), -1 / (K - 1), dtype=torch.float64).fill_diagonal_(1)
    fresh = float((head.frame.double() @ head.frame.double().T - gram).abs().max())
    for seed in range(20):
        align_to(head, torch.randn(K, D, generator=seeded(seed)))
    turned = float((head.frame.double() @ head.frame.double().T - gram).abs().max())
    assert turned < 3 * fresh + 1e-7
    other = ETFHead(D, K)
    other.load_state_dict(head.state_dict())
    assert torch.equal(other.frame, head.frame)


def test_a_turned_random_frame_keeps_its_angles() -> None:
    head = FrozenRandomHead(D, K).double()
    before = head.frame @ head.frame.T
    align_to(head, torch.randn(K, D))
    assert torch.allclose(head.frame @ head.frame.T, before, atol=1e-12)


@given(scale=st.floats(0.01, 100), seed=st.integers(0, 20))
@settings(max_examples=20, deadline=None)
def test_alignment_sees_neither_scale_nor_a_common_shift_and_comes_home(scale: float, seed: int) -> None:
    weight = torch.randn(K, D, generator=seeded(seed), dtype=torch.float64)
    shift = torch.randn(1, D, generator=seeded(seed + 100), dtype=torch.float64)
    found = align_to(ETFHead(D, K).double(), weight).frame
    assert torch.allclose(align_to(ETFHead(D, K).double(), scale * weight + shift).frame, found, atol=1e-8)
    start = ETFHead(D, K, frame_seed=seed + 1)
    assert torch.allclose(align_to(ETFHead(D, K), start.frame).frame, start.frame, atol=1e-6)


def test_alignment_keeps_what_a_trained_classifier_says() -> None:
    """A linear head near collapse, goes on telling the classes with the aligned frame, not with a fresh one."""
    means = 3 * ETFHead(D, K, frame_seed=9).frame
    labels = torch.arange(400) % K
    features = means[labels] + 0.3 * torch.randn(400, D, generator=seeded(0))
    trained = least_squares_init(features, labels, K, 0.01)

    def accuracy(head: Head) -> float:
        return float((head(features).argmax(1) == labels).float().mean())

    assert accuracy(align_to(ETFHead(D, K), trained.weight)) > 0.99
    assert accuracy(ETFHead(D, K)) < 0.9


def test_what_cannot_be_aligned_is_said() -> None:
    weight = torch.randn(K, D)
    with pytest.raises(TypeError, match="align_to turns a fixed frame, got CosineHead"):
        align_to(CosineHead(D, K), weight)  # type: ignore[type-var]
    with pytest.raises(ValueError, match="has a projection before its frame"):
        align_to(ETFHead(D, K, projection=D), weight)
    with pytest.raises(ValueError, match=r"frame's shape \(4, 12\), got \(4, 11\)"):
        align_to(ETFHead(D, K), weight[:, 1:])
    with pytest.raises(ValueError, match="weight must be finite"):
        align_to(ETFHead(D, K), weight / 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_all_of_it_works_where_the_features_are() -> None:
    features, labels = sample()
    there, named = features.cuda(), labels.cuda()
    for proxies in (1, 3):
        head = imprint(there, named, K, proxies, generator=seeded(0))
        plain = imprint(features, labels, K, proxies, generator=seeded(0))
        assert torch.allclose(head(there).cpu(), plain(features), atol=1e-3)
    solved = least_squares_init(there, named, K, 0.1)
    assert torch.allclose(solved.weight.cpu(), least_squares_init(features, labels, K, 0.1).weight, atol=1e-4)
    frame = align_to(ETFHead(D, K).cuda(), solved.weight.detach())
    assert torch.allclose(to_linear(frame)(there), frame(there), atol=1e-3)
    assert tau_normalise(solved, 1.0).weight.is_cuda
