"""The ETF head without a matrix: its geometry, its gradients, its checkpoints."""

import math

import pytest
import torch
from support.head_variants import D, K, features
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from nc_tools.heads import (
    RANDOM,
    ETFHead,
    StructuredETFHead,
)

SIZES = [(2, 2), (7, 24), (7, 7), (7, 13), (10, 64), (100, 512), (100, 384), (200, 384), (600, 768), (600, 601)]


@pytest.mark.parametrize(("classes", "dim"), SIZES)
@pytest.mark.parametrize("rotated", [True, False])
def test_structured_etf_is_an_etf_and_its_own_dense_head(classes: int, dim: int, rotated: bool) -> None:
    head = StructuredETFHead(dim, classes, rotated=rotated, scale=3.0).double()
    w = head.weight
    expected = (classes * torch.eye(classes, dtype=w.dtype) - 1) / (classes - 1)
    assert float((w @ w.T - expected).abs().max()) < 1e-12
    h = (features(5, dim).double() + 0.1).requires_grad_()
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
    h = features(5).requires_grad_()
    (cross_entropy(head(h), labels) + head.outputs(h).label_scores(labels).sum()).backward()
    assert h.grad is not None
    assert (
        sum(t.numel() for t in [*head.parameters(), *head.buffers()]) == 3 * D + 64 * 64 + K + 1
    )  # with the order of the classes and the scale


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


def test_structured_etf_rejects_other_checkpoints() -> None:
    head = StructuredETFHead(D, K)
    state = head.state_dict()
    with pytest.raises(RuntimeError, match="fixed structured simplex ETF frame, but the checkpoint has a learned"):
        head.load_state_dict(nn.Linear(D, K).state_dict(), strict=False)
    with pytest.raises(RuntimeError, match="order must be a permutation"):
        head.load_state_dict({**state, "order": torch.zeros(D, dtype=torch.long)}, strict=False)
    with pytest.raises(RuntimeError, match="signs must be"):
        head.load_state_dict({**state, "signs": state["signs"] * 2}, strict=False)
    with pytest.raises(RuntimeError, match=r"stored as classes, order, signs, but the checkpoint has frame: load it"):
        head.load_state_dict(ETFHead(D, K).state_dict(), strict=False)
    plain = StructuredETFHead(D, K, rotated=False)
    with pytest.raises(RuntimeError, match="stored as classes, but the checkpoint has classes, order, signs"):
        plain.load_state_dict(state, strict=False)
    with pytest.raises(RuntimeError, match="stored as classes, order, signs, but the checkpoint has classes"):
        head.load_state_dict(plain.state_dict(), strict=False)
    with pytest.raises(ValueError, match=r"needs feature_dim >= 7, got 6.*projection=7"):
        StructuredETFHead(6, K)


def test_structured_etf_takes_the_checkpoints_draw() -> None:
    saved, head = StructuredETFHead(D, K, frame_seed=5), StructuredETFHead(D, K)
    head.load_state_dict(saved.state_dict())
    assert torch.equal(head(features(5)), saved(features(5)))


@pytest.mark.slow
def test_structured_etf_under_func_and_export() -> None:
    head, h = StructuredETFHead(D, K), features(5)
    labels = torch.arange(5)
    per_sample = torch.func.vmap(torch.func.grad(lambda x, y: cross_entropy(head(x[None]), y[None])))(h, labels)
    h.requires_grad_()
    (of_batch,) = torch.autograd.grad(cross_entropy(head(h), labels, reduction="sum"), h)
    assert torch.allclose(per_sample, of_batch, atol=1e-6)
    exported = torch.export.export(head, (h.detach(),)).module()
    assert torch.allclose(exported(h.detach()), head(h), atol=1e-6)
