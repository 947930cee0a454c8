"""The two-space head: projector, frame and default sizes."""

import pytest
import torch
from support.feature_rows import D, K, features, unit
from torch.nn.functional import cross_entropy

from nc_tools.heads import TwoSpaceHead


def test_two_spaces_against_scalar_loops():
    head, h = TwoSpaceHead(4, 3, scale=5.0), features()[:3, :4]
    for n in range(3):
        hidden = [
            max(0.0, sum(a * b for a, b in zip(row, h[n].tolist(), strict=True))) for row in head.up.rows.tolist()
        ]
        u = unit([sum(a * b for a, b in zip(row, hidden, strict=True)) for row in head.down.rows.tolist()])
        assert head.outputs(h).embedded[n].tolist() == pytest.approx(u, abs=1e-5)
        for k in range(3):
            expected = 5.0 * sum(a * b for a, b in zip(head.frame[k].tolist(), u, strict=True))
            assert float(head(h)[n, k]) == pytest.approx(expected, abs=1e-4)
    assert torch.equal(head.outputs(h).features, h)


@pytest.mark.parametrize(("hidden", "width"), [(None, None), (D + 1, None), (40, 9)])
def test_the_projectors_layers_are_tight_and_centered(hidden, width):
    head = TwoSpaceHead(D, K, hidden=hidden, width=width)
    wide, narrow = hidden or 4 * D, width or D
    up, down = head.up.rows, head.down.rows
    assert (up.shape, down.shape, head.frame.shape) == ((wide, D), (narrow, wide), (K, narrow))
    assert torch.allclose(up.T @ up, wide / D * torch.eye(D), atol=1e-5)
    assert torch.allclose(down @ down.T, torch.eye(narrow), atol=1e-5)
    assert float(up.sum(0).abs().max()) < 1e-4
    assert float(down.sum(1).abs().max()) < 1e-4


def test_the_widest_etf_is_a_true_one():
    up = TwoSpaceHead(D, K, hidden=D + 1).up.rows
    assert torch.allclose(up @ up.T, ((D + 1) * torch.eye(D + 1) - 1) / D, atol=1e-5)


def test_frozen_as_published_or_learned_from_there():
    frozen, learned = TwoSpaceHead(D, K), TwoSpaceHead(D, K, learned=True)
    assert list(frozen.parameters()) == []
    assert [name for name, _ in learned.named_parameters()] == ["up.weight", "down.weight"]
    assert torch.equal(frozen(features()), learned(features()))
    assert not torch.equal(TwoSpaceHead(D, K, frame_seed=1).up.rows, frozen.up.rows)
    leaf = features(64).requires_grad_()
    cross_entropy(frozen(leaf), torch.arange(64) % K).backward()
    assert int(torch.linalg.matrix_rank(leaf.grad)) == D


def test_the_projector_removes_the_mean_of_a_relu():
    """Without centered rows, unit features of any inputs would share one direction."""
    embedded = TwoSpaceHead(256, K).embed(torch.randn(500, 256, generator=torch.Generator().manual_seed(0)))
    assert float(embedded.mean(0).norm()) < 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": D}, f"hidden must be at least feature_dim \\+ 1 = {D + 1}, got {D}"),
        (
            {"width": K - 2},
            f"width must be {K - 1} to {4 * D - 1} for {K} classes and hidden={4 * D}, got width={K - 2}",
        ),
        ({"width": 4 * D}, "got width=64"),
        ({"scale": -1.0}, "scale must be positive"),
    ],
)
def test_bad_sizes_of_two_spaces_raise(change, message):
    with pytest.raises(ValueError, match=message):
        TwoSpaceHead(D, K, **change)
    assert TwoSpaceHead(4, 30)(torch.zeros(2, 4)).shape == (2, 30)
