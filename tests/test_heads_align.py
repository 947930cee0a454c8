"""Frames rotated to class vectors, against SciPy and brute force."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.unequal_classes import D, K, sample, seeded

from nc_tools.heads import CosineHead, ETFHead, FrozenRandomHead, Head, PreallocatedHead, align_to, least_squares_init
from nc_tools.surgery import to_linear


@pytest.mark.parametrize("cls", [ETFHead, FrozenRandomHead])
@pytest.mark.parametrize("width", [K - 1, K, D])
def test_the_aligned_frame_is_scipys_procrustes_solution(cls: type[ETFHead], width: int) -> None:
    from scipy.linalg import orthogonal_procrustes

    head, weight = cls(width, K).double(), torch.randn(K, width, generator=seeded(1), dtype=torch.float64)
    rotation, _ = orthogonal_procrustes(head.frame.numpy(), weight.numpy())
    expected = torch.from_numpy(head.frame.numpy() @ rotation)
    assert align_to(head, weight) is head
    # SciPy gets the same frame, which was rounded to float32 before it became float64.
    assert torch.allclose(head.frame, expected, atol=1e-6)


def test_a_frame_with_room_for_more_classes_is_aligned_as_a_whole() -> None:
    head = PreallocatedHead(D, K, capacity=K + 2)
    weight = torch.randn(K + 2, D, generator=seeded(1))
    before = float((head.frame * weight).sum())
    assert float((align_to(head, weight).frame * weight).sum()) > before
    assert head.frame_error(head.frame) < 1e-5


def test_no_rotation_lies_nearer() -> None:
    """Brute force in the plane: every angle, with and without a reflection."""
    weight = torch.randn(3, 2, generator=seeded(2), dtype=torch.float64)
    head = ETFHead(2, 3).double()
    frame = head.frame.clone()
    best = float((align_to(head, weight).frame * weight).sum())
    agreements = []
    for step in range(3600):
        angle = 2 * math.pi * step / 3600
        c, s = math.cos(angle), math.sin(angle)
        for mirror in (1.0, -1.0):
            turned = frame @ torch.tensor([[c, s], [-s * mirror, c * mirror]], dtype=torch.float64)
            agreements.append(float((turned * weight).sum()))
    assert best == pytest.approx(max(agreements), abs=1e-5)
    assert best >= max(agreements) - 1e-6


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
def test_alignment_ignores_scale_and_a_common_shift_and_keeps_an_aligned_frame(scale: float, seed: int) -> None:
    weight = torch.randn(K, D, generator=seeded(seed), dtype=torch.float64)
    shift = torch.randn(1, D, generator=seeded(seed + 100), dtype=torch.float64)
    aligned = align_to(ETFHead(D, K).double(), weight).frame
    assert torch.allclose(align_to(ETFHead(D, K).double(), scale * weight + shift).frame, aligned, atol=1e-8)
    start = ETFHead(D, K, frame_seed=seed + 1)
    assert torch.allclose(align_to(ETFHead(D, K), start.frame).frame, start.frame, atol=1e-6)


def test_an_aligned_frame_predicts_as_the_trained_classifier() -> None:
    """A linear head near collapse, goes on telling the classes with the aligned frame, not with a fresh one."""
    means = 3 * ETFHead(D, K, frame_seed=9).frame
    labels = torch.arange(400) % K
    features = means[labels] + 0.3 * torch.randn(400, D, generator=seeded(0))
    trained = least_squares_init(features, labels, K, 0.01)

    def accuracy(head: Head) -> float:
        return float((head(features).argmax(1) == labels).float().mean())

    assert accuracy(align_to(ETFHead(D, K), trained.weight)) > 0.99
    assert accuracy(ETFHead(D, K)) < 0.9


def test_bad_arguments_raise() -> None:
    weight = torch.randn(K, D)
    with pytest.raises(TypeError, match="align_to needs a head with fixed class vectors, got CosineHead"):
        align_to(CosineHead(D, K), weight)  # type: ignore[type-var]
    with pytest.raises(ValueError, match="needs a head without a projection, got ETFHead"):
        align_to(ETFHead(D, K, projection=D), weight)
    with pytest.raises(ValueError, match=r"shape of the head's class vectors, \(4, 12\), got \(4, 11\)"):
        align_to(ETFHead(D, K), weight[:, 1:])
    with pytest.raises(ValueError, match="weight must be finite"):
        align_to(ETFHead(D, K), weight / 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_alignment_and_plain_layers_work_where_the_head_is() -> None:
    features, labels = sample()
    there = features.cuda()
    solved = least_squares_init(there, labels.cuda(), K, 0.1)
    frame = align_to(ETFHead(D, K).cuda(), solved.weight.detach())
    assert torch.allclose(to_linear(frame)(there), frame(there), atol=1e-3)
