"""Heads with fixed class vectors: polytopes, the ETF without a matrix, assignment, scales per class."""

import copy
import math

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from nc_tools.geometry import assign_by_means
from nc_tools.heads import (
    LEARNED_PER_CLASS,
    RANDOM,
    CubeHead,
    ETFHead,
    FixedHead,
    FrozenRandomHead,
    HadamardHead,
    LearnedScale,
    OrthoplexHead,
    RandomAssignment,
    SimplexHead,
    StructuredETFHead,
    default_scale,
)

D, K = 24, 7
POLYTOPES = (SimplexHead, OrthoplexHead, CubeHead, HadamardHead)
WIDTHS = {SimplexHead: 6, OrthoplexHead: 4, CubeHead: 3, HadamardHead: 8}


def features(n: int = 5, dim: int = D) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(1)).relu()


def gram(head: FixedHead) -> Tensor:
    w = head.weight.double()
    return w @ w.T


@pytest.mark.parametrize("cls", POLYTOPES)
def test_polytopes_project_to_their_own_width(cls: type[SimplexHead]) -> None:
    head = cls(D, K)
    assert head.weight.shape == (K, WIDTHS[cls])
    assert head.projection is not None
    assert head.projection.weight.shape == (WIDTHS[cls], D)
    assert torch.allclose(head.weight.norm(dim=1), torch.ones(K))


@pytest.mark.parametrize("cls", POLYTOPES)
def test_without_a_projection_the_polytope_is_rotated_and_otherwise_the_same(cls: type[SimplexHead]) -> None:
    straight = cls(WIDTHS[cls], K, projection=False)
    assert straight.projection is None
    assert torch.allclose(gram(straight), gram(cls(D, K)), atol=1e-6)
    assert not torch.allclose(straight.weight, cls(D, K).weight, atol=0.1)
    again, other = (cls(WIDTHS[cls], K, projection=False, frame_seed=seed) for seed in (0, 1))
    assert torch.equal(again.weight, straight.weight)
    assert not torch.allclose(other.weight, straight.weight, atol=0.1)
    straight.load_state_dict(other.state_dict())  # a rotation is not damage


@pytest.mark.parametrize("cls", POLYTOPES)
def test_a_damaged_polytope_is_refused(cls: type[SimplexHead]) -> None:
    head = cls(D, K)
    damaged = head.frame.clone()
    damaged[2] = damaged[3]
    with pytest.raises(RuntimeError, match=f"must be a {head.geometry} frame, but the checkpoint's is off by"):
        head.load_state_dict({**head.state_dict(), "frame": damaged}, strict=False)
    assert head.frame_error(head.frame) < 1e-4
    with pytest.raises(RuntimeError, match=f"fixed {head.geometry} frame, but the checkpoint holds a learned weight"):
        head.load_state_dict(nn.Linear(D, K).state_dict(), strict=False)


@pytest.mark.parametrize("cls", POLYTOPES)
def test_widths_that_do_not_fit_are_refused_with_a_way_out(cls: type[SimplexHead]) -> None:
    with pytest.raises(ValueError, match=rf"{cls.__name__} of {K} classes .*got {D}: leave projection=True .*CodeHead"):
        cls(D, K, projection=False)


def test_hadamard_rows_may_be_longer_than_needed() -> None:
    long = HadamardHead(D, K, projection=64)
    assert long.weight.shape == (K, 64)
    assert torch.allclose(gram(long), torch.eye(K).double(), atol=1e-6)
    assert HadamardHead(32, K, projection=False).weight.shape == (K, 32)
    with pytest.raises(ValueError, match="power of two and at least 7, got 4"):
        HadamardHead(D, K, projection=4)


def test_under_a_softmax_the_hadamard_head_is_an_etf() -> None:
    head = HadamardHead(D, K, scale=5.0)
    u = head.embed(features())
    w = head.weight - head.weight.mean(0)
    w = w / w.norm(dim=1, keepdim=True)
    assert torch.allclose(w @ w.T, (K * torch.eye(K) - 1) / (K - 1), atol=1e-6)
    same = 5.0 * math.sqrt((K - 1) / K) * u @ w.T
    assert torch.allclose(head(features()).softmax(1), same.softmax(1), atol=1e-6)


def test_minimal_simplex_is_the_recursion_of_the_paper_up_to_an_orthogonal_map() -> None:
    """P_1 = [1, -1]; P_k = [[1, -1/k ...], [0, sqrt(1 - 1/k^2) P_{k-1}]]."""
    columns = [[1.0, -1.0]]
    for k in range(2, K):
        shrink = math.sqrt(1 - 1 / k**2)
        columns = [[1.0] + [-1 / k] * k, *([0.0] + [shrink * v for v in row] for row in columns)]
    paper = torch.tensor(columns, dtype=torch.float64).T
    assert paper.shape == (K, K - 1)
    assert torch.allclose(paper @ paper.T, gram(SimplexHead(D, K)), atol=1e-6)


def test_radius_is_the_papers_form() -> None:
    head, h = SimplexHead(D, K, radius=0.1), features()
    assert head.projection is not None
    expected = 0.1 * (h @ head.projection.weight.T) @ head.weight.T
    assert torch.allclose(head(h), expected, atol=1e-6)
    with pytest.raises(ValueError, match="got both"):
        SimplexHead(D, K, radius=0.1, scale=3.0)
    with pytest.raises(ValueError, match="scale must be positive and finite, got -1"):
        SimplexHead(D, K, radius=-1.0)


@pytest.mark.parametrize("cls", [SimplexHead, OrthoplexHead, CubeHead])
def test_two_classes_on_a_line_have_no_gradient_and_are_refused(cls: type[SimplexHead]) -> None:
    with pytest.raises(ValueError, match="one dimension, which leaves their sign and no gradient"):
        cls(D, 2)
    assert cls(D, 2, normalize=False)(features()).shape == (5, 2)


def test_simplex_of_thousands_of_classes() -> None:
    head = SimplexHead(8, 2000)
    assert head.frame_error(head.frame) < 1e-4


SIZES = [(2, 2), (7, 24), (7, 7), (7, 13), (10, 64), (100, 512), (100, 384), (200, 384), (600, 768), (600, 601)]


@pytest.mark.parametrize(("classes", "dim"), SIZES)
@pytest.mark.parametrize("rotated", [True, False])
def test_structured_etf_is_an_etf_and_its_own_dense_head(classes: int, dim: int, rotated: bool) -> None:
    head = StructuredETFHead(dim, classes, rotated=rotated, scale=3.0).double()
    w = head.weight
    expected = (classes * torch.eye(classes, dtype=w.dtype) - 1) / (classes - 1)
    assert float((w @ w.T - expected).abs().max()) < 1e-12
    h = (features(dim=dim).double() + 0.1).requires_grad_()
    dense = 3.0 * normalize(h, dim=1) @ w.T
    assert torch.allclose(head(h), dense, atol=1e-12)
    g = torch.randn(5, classes, dtype=torch.float64)
    (ours,), (theirs,) = (torch.autograd.grad(z, h, g) for z in (head(h), dense))
    assert torch.allclose(ours, theirs, atol=1e-12)


def test_structured_etf_has_first_and_second_derivatives() -> None:
    head = StructuredETFHead(6, 5, assignment=RANDOM).double()
    h = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(head, h)
    assert torch.autograd.gradgradcheck(head, h)


def test_structured_etf_never_forms_its_matrix_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def formed(_: StructuredETFHead) -> Tensor:
        raise AssertionError("the matrix was formed")

    monkeypatch.setattr(StructuredETFHead, "weight", property(formed))
    head, labels = StructuredETFHead(D, K), torch.arange(5)
    h = features().requires_grad_()
    (cross_entropy(head(h), labels) + head.outputs(h).label_scores(labels).sum()).backward()
    assert h.grad is not None
    assert sum(t.numel() for t in [*head.parameters(), *head.buffers()]) == 3 * D + 64 * 64


def test_structured_etf_seeds_draw_different_frames_and_the_slice_has_one() -> None:
    a, b, c = (StructuredETFHead(D, K, frame_seed=seed).weight for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.allclose(a, c, atol=0.1)
    plain = StructuredETFHead(D, K, rotated=False).weight
    assert torch.equal(plain[:, K:], torch.zeros(K, D - K))
    assert float(plain[0, 0]) == pytest.approx(math.sqrt((K - 1) / K))


def test_structured_etf_reaches_relu_features_as_a_haar_frame_does() -> None:
    """The best cosine that non-negative features reach with w is the norm of its positive part: near sqrt(1 / 2)."""
    for dim, classes in ((512, 10), (384, 200), (768, 600)):
        reach = StructuredETFHead(dim, classes).weight.relu().norm(dim=1)
        assert float(reach.min()) > 0.5
        assert float(reach.max()) < 0.85
    assert float(StructuredETFHead(512, 10, rotated=False).weight.relu().norm(dim=1).min()) > 0.9


def test_structured_etf_refuses_what_is_not_its_own() -> None:
    head = StructuredETFHead(D, K)
    state = head.state_dict()
    with pytest.raises(RuntimeError, match="fixed structured simplex ETF frame, but the checkpoint holds a learned"):
        head.load_state_dict(nn.Linear(D, K).state_dict(), strict=False)
    with pytest.raises(RuntimeError, match="order must be a permutation"):
        head.load_state_dict({**state, "order": torch.zeros(D, dtype=torch.long)}, strict=False)
    with pytest.raises(RuntimeError, match="signs must be"):
        head.load_state_dict({**state, "signs": state["signs"] * 2}, strict=False)
    with pytest.raises(ValueError, match="the checkpoint a simplex ETF frame"):
        head.load_state_dict(ETFHead(D, K).state_dict(), strict=False)
    plain = StructuredETFHead(D, K, rotated=False)
    with pytest.raises(RuntimeError, match="this one has none: build it rotated=True"):
        plain.load_state_dict(state, strict=False)
    with pytest.raises(ValueError, match="rotated"):
        head.load_state_dict(plain.state_dict(), strict=False)
    with pytest.raises(ValueError, match=r"needs feature_dim >= 7, got 6.*projection=7"):
        StructuredETFHead(6, K)


def test_structured_etf_takes_the_checkpoints_draw() -> None:
    saved, head = StructuredETFHead(D, K, frame_seed=5), StructuredETFHead(D, K)
    head.load_state_dict(saved.state_dict())
    assert head.frame_seed == 5
    assert torch.equal(head(features()), saved(features()))


def test_structured_etf_under_func_and_export() -> None:
    head, h = StructuredETFHead(D, K), features()
    labels = torch.arange(5)
    per_sample = torch.func.vmap(torch.func.grad(lambda x, y: cross_entropy(head(x[None]), y[None])))(h, labels)
    h.requires_grad_()
    (whole,) = torch.autograd.grad(cross_entropy(head(h), labels, reduction="sum"), h)
    assert torch.allclose(per_sample, whole, atol=1e-6)
    exported = torch.export.export(head, (h.detach(),)).module()
    assert torch.allclose(exported(h.detach()), head(h), atol=1e-6)


@pytest.mark.parametrize("cls", [ETFHead, StructuredETFHead, FrozenRandomHead, CubeHead])
def test_assignment_permutes_the_classes_and_the_state_keeps_it(cls: type[ETFHead]) -> None:
    given = (3, 0, 1, 2, 6, 5, 4)
    plain, head = cls(D, K, generator=torch.Generator().manual_seed(0)), cls(D, K, assignment=given)
    assert plain.assignment is None
    assert head.assignment == given
    assert torch.equal(head.weight, plain.weight[list(given)])
    head.assign([1, 2, 3, 4, 5, 6, 0])
    assert head.assignment == (0, 1, 2, 6, 5, 4, 3)
    assert torch.equal(head.weight, plain.weight[list(head.assignment)])
    assert torch.allclose(head(features()), head.scale * head.embed(features()) @ head.weight.T, atol=1e-5)
    plain.load_state_dict(load(save(head.state_dict())))
    assert plain.assignment == head.assignment
    assert torch.equal(plain(features()), head(features()))
    assert torch.equal(copy.deepcopy(head)(features()), head(features()))
    unassigned = cls(D, K)
    plain.load_state_dict(unassigned.state_dict())
    assert plain.assignment is None
    assert torch.equal(plain(features()), unassigned(features()))


def test_random_assignment_has_a_stream_of_its_own() -> None:
    first, second = (ETFHead(D, K, assignment=RANDOM, frame_seed=seed) for seed in (0, 1))
    assert first.assignment != second.assignment
    held = ETFHead(D, K, assignment=RandomAssignment(seed=0), frame_seed=1)
    assert held.assignment == first.assignment
    assert first.assignment is not None
    assert torch.equal(first.weight, ETFHead(D, K).weight[list(first.assignment)])


def test_means_that_are_shuffled_vertices_find_them() -> None:
    head = ETFHead(D, K)
    shuffled = torch.randperm(K, generator=torch.Generator().manual_seed(0))
    means = head.weight[shuffled] + 0.5
    head.assign(assign_by_means(head.weight, means))
    assert head.assignment == tuple(shuffled.tolist())


@pytest.mark.parametrize("given", [(0, 1, 2), (0, 0, 1, 2, 3, 4, 5), tuple(range(1, 8))])
def test_what_is_no_permutation_is_refused(given: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="names each of the 7 vertices once, as a permutation of 0 to 6"):
        ETFHead(D, K, assignment=given)


def test_scale_per_class_starts_where_asked_and_moves_apart() -> None:
    head = ETFHead(D, K, scale=LEARNED_PER_CLASS)
    assert isinstance(head.scale, Tensor)
    assert head.scale.shape == (K,)
    assert torch.allclose(head.scale, torch.full((K,), default_scale(K)), atol=1e-5)
    assert head.scale_of.raw.ndim == 1  # what has one dimension is not decayed by default
    assert "learned per class" in repr(head)
    with torch.no_grad():
        head.scale_of.raw.copy_(torch.arange(K) + 1.0)
    scales = [math.log1p(math.exp(k + 1)) for k in range(K)]
    expected = head.embed(features()) @ head.weight.T * torch.tensor(scales)
    assert torch.allclose(head(features()), expected, atol=1e-5)
    started = ETFHead(D, K, scale=LearnedScale(4.0, per_class=True)).scale
    assert isinstance(started, Tensor)
    assert torch.allclose(started, torch.full((K,), 4.0))


def test_width_too_small_offers_a_projection_and_a_code() -> None:
    with pytest.raises(ValueError, match=r"needs feature_dim >= 6, got 5.*projection=6.*CodeHead"):
        ETFHead(5, K)


def test_an_etf_head_takes_no_bias() -> None:
    with pytest.raises(TypeError, match="bias"):
        ETFHead(D, K, bias=True)  # type: ignore[call-arg]
