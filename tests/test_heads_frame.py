"""Fixed frames: buffers, seeds and the checkpoints that they accept."""

import pytest
import torch
from support.head_variants import D, K
from torch import nn
from torch.nn.functional import cross_entropy

from nc_tools.heads import (
    ETFHead,
    FrozenRandomHead,
)


def test_fixed_frames_are_buffers_and_never_trained() -> None:
    for cls, name in ((ETFHead, "frame"), (FrozenRandomHead, "random_frame")):
        head = cls(D, K)
        assert list(head.parameters()) == []
        assert set(head.state_dict()) == {name, "scale_of.fixed"}


def test_only_frame_seed_decides_the_frame() -> None:
    a = ETFHead(D, K, frame_seed=1, generator=torch.Generator().manual_seed(0))
    b = ETFHead(D, K, frame_seed=1, generator=torch.Generator().manual_seed(8), projection=D)
    c = ETFHead(D, K, frame_seed=2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(a.frame, b.frame)
    assert not torch.allclose(a.frame, c.frame)


@pytest.mark.parametrize("strict", [True, False])
def test_a_learned_layer_never_loads_into_a_frame(strict: bool) -> None:
    head = ETFHead(D, K)
    before = head.frame.clone()
    with pytest.raises(RuntimeError, match="fixed simplex ETF frame, but the checkpoint has a learned weight"):
        head.load_state_dict(nn.Linear(D, K).state_dict(), strict=strict)
    model = nn.Sequential(nn.Linear(D, D), head)
    old = nn.Sequential(nn.Linear(D, D), nn.Linear(D, K))
    with pytest.raises(RuntimeError, match=r"1 has a fixed .* learned 1\.weight"):
        model.load_state_dict(old.state_dict(), strict=strict)
    assert torch.equal(head.frame, before)


@pytest.mark.parametrize("strict", [True, False])
def test_a_frame_of_another_geometry_raises(strict: bool) -> None:
    head = ETFHead(D, K)
    with pytest.raises((RuntimeError, ValueError), match="simplex ETF"):
        head.load_state_dict(FrozenRandomHead(D, K).state_dict(), strict=strict)
    damaged = {**head.state_dict(), "frame": head.frame + 0.1 * torch.randn(K, D)}
    with pytest.raises(RuntimeError, match="must be a simplex ETF frame, but the checkpoint's is off by"):
        head.load_state_dict(damaged, strict=strict)


def test_the_backbone_of_an_old_checkpoint_still_loads() -> None:
    model = nn.Sequential(nn.Linear(D, D), ETFHead(D, K))
    model.load_state_dict({f"0.{k}": v for k, v in nn.Linear(D, D).state_dict().items()}, strict=False)


def test_a_loaded_head_has_the_checkpoints_frame_and_scale() -> None:
    saved, head = ETFHead(D, K, frame_seed=4, scale=3.0), ETFHead(D, K, frame_seed=0)
    head.load_state_dict(saved.state_dict())
    assert torch.equal(head.frame, saved.frame)
    assert float(head.scale) == 3.0


def test_every_direction_of_normalized_features_gets_a_gradient() -> None:
    """A fixed ETF has rank K - 1: on raw features the other directions get none."""
    labels = torch.arange(200) % 10
    h = torch.randn(200, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ranks = []
    for scaled in (False, True):
        raw = h.clone().requires_grad_()
        cross_entropy(ETFHead(64, 10, normalize=scaled).double()(raw), labels).backward()  # type: ignore[no-untyped-call]
        assert raw.grad is not None
        ranks.append(int(torch.linalg.matrix_rank(raw.grad, rtol=1e-6)))
    assert ranks == [9, 64]


def test_random_rows_are_unit_and_not_an_etf() -> None:
    w = FrozenRandomHead(D, K).weight
    assert torch.allclose(w.norm(dim=1), torch.ones(K), atol=1e-6)
    assert float((w @ w.T - ETFHead(D, K).weight @ ETFHead(D, K).weight.T).abs().max()) > 0.05
