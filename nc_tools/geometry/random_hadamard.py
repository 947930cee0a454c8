"""Orthonormal frames that are never formed: signed permutations and Hadamard transforms."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from nc_tools.geometry.hadamard import FACTOR, hadamard, power_of_two, walsh_hadamard

ROWS = 64


def draw_signed_permutation(dim: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Draw what a random Hadamard frame consists of: an order of the coordinates and two signs for each.

    Args:
        dim: D.
        generator: CPU generator; the global one if None.

    Returns:
        order (D,), int64, a permutation; signs (2, D), float64, +-1.
    """
    order = torch.randperm(dim, generator=generator, device="cpu")
    signs = torch.randint(2, (2, dim), generator=generator, device="cpu").to(torch.float64) * 2 - 1
    return order, signs


def project(x: Tensor, columns: int, order: Tensor, signs: Tensor, factor: Tensor) -> Tensor:
    """Return P^T x for a random frame P of orthonormal columns, in O(D + M log M) a row instead of O(K D).

    With M the smallest power of two that is not below K: coordinates get random signs and a random order, are dealt out
    to M buckets as evenly as D / M allows, each bucket is summed and divided by the root of its size, and the first K
    entries of the buckets' Hadamard transform are what comes out. Each step has orthonormal rows, so that P^T P = I
    exactly, for every D >= K. A column of P has all its D entries of one size (two, where M does not divide D), with
    random signs: as far from any axis as can be, which is what a rotation is wanted for behind a ReLU.

    Where M is larger than D, the transform covers the first 2^p coordinates, then the last 2^p, 2^p <= D < 2^(p + 1).

    A signed permutation with a transform is the subsampled randomized Hadamard transform (Ailon & Chazelle 2009, "The
    fast Johnson-Lindenstrauss transform"); with all rows kept it mixes, but is not Haar: D! 2^D matrices of one shape.

    Args:
        x: (..., D).
        columns: K, at most D.
        order: (D,), from :func:`draw_signed_permutation`.
        signs: (2, D), likewise.
        factor: ``hadamard(FACTOR)`` in the device and type of ``x``.

    Returns:
        (..., K).

    Example:
        >>> order, signs = draw_signed_permutation(6, generator=torch.Generator().manual_seed(0))
        >>> p = project(torch.eye(6).double(), 3, order, signs, hadamard(FACTOR))
        >>> bool(torch.allclose(p.T @ p, torch.eye(3).double()))
        True
    """
    found: Tensor = _Project.apply(x, columns, order, signs, factor)
    return found


def lift(y: Tensor, order: Tensor, signs: Tensor, factor: Tensor) -> Tensor:
    """Return P y, for the frame of :func:`project`: (..., K) to (..., D).

    Args:
        y: (..., K).
        order: (D,), as for :func:`project`.
        signs: (2, D), as for :func:`project`.
        factor: As for :func:`project`.
    """
    found: Tensor = _Lift.apply(y, order, signs, factor)
    return found


def hadamard_etf(num_classes: int, order: Tensor, signs: Tensor) -> Tensor:
    """Return a simplex ETF turned by a signed permutation and a Hadamard transform, as a matrix.

    What :func:`~nc_tools.geometry.simplex_etf` returns, from another, smaller family of rotations, in O(K D log K)
    instead of O(K^2 D): W = sqrt(K / (K - 1)) (I - 11^T / K) P^T, P of :func:`project`.

    Args:
        num_classes: K, at least 2.
        order: (D,), from :func:`draw_signed_permutation`, D at least K.
        signs: (2, D), likewise; says in which type to compute.

    Returns:
        (K, D), in the device and type of ``signs``.

    Raises:
        ValueError: If K < 2 or D < K.

    Example:
        >>> w = hadamard_etf(3, *draw_signed_permutation(4, generator=torch.Generator().manual_seed(0)))
        >>> [round(float(v), 3) for v in (w @ w.T)[0]]
        [1.0, -0.5, -0.5]
    """
    check_structured(num_classes, len(order))
    factor = hadamard(FACTOR).to(signs)
    frame = signs.new_empty(num_classes, len(order))
    # Stretched by its signs, and centered by the lift of the mean, so that the frame is written once.
    stretched = signs * signs.new_tensor([[math.sqrt(num_classes / (num_classes - 1))], [1.0]])
    mean = lift(signs.new_full((1, num_classes), 1 / num_classes), order, stretched, factor)
    # Some rows at a time: the steps of a transform keep several copies of what they work on.
    eye = torch.eye(num_classes, dtype=signs.dtype, device=signs.device)
    for start in range(0, num_classes, ROWS):
        rows = slice(start, start + ROWS)
        torch.sub(lift(eye[rows], order, stretched, factor), mean, out=frame[rows])
    return frame


def check_structured(num_classes: int, width: int) -> None:
    """Refuse sizes for which P does not exist.

    Raises:
        ValueError: If K < 2 or D < K.
    """
    if num_classes < 2:
        raise ValueError(f"a class geometry needs at least 2 classes, got {num_classes}")
    if width < num_classes:
        raise ValueError(
            f"a structured simplex ETF of {num_classes} classes needs feature_dim >= {num_classes}, got {width}: put a "
            f"projection to at least {num_classes} dimensions before it (projection={num_classes}), or use a dense one "
            f"(ETFHead, from {num_classes - 1}) or a spherical code (CodeHead)"
        )


def permute(x: Tensor, order: Tensor) -> Tensor:
    """Return ``x[..., order]`` for a permutation, with a gradient that gathers too, instead of adding at indices.

    Example:
        >>> permute(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([2, 0, 1]))
        tensor([[3., 1., 2.]])
    """
    found: Tensor = _Permute.apply(x, order)
    return found


def inverse(order: Tensor) -> Tensor:
    """Return the permutation that undoes ``order``, without sorting.

    Example:
        >>> inverse(torch.tensor([2, 0, 1]))
        tensor([1, 2, 0])
    """
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))


class _Permute(torch.autograd.Function):
    """index_select whose gradient is index_select: autograd's own cannot know that no index comes twice."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, order: Tensor) -> Tensor:
        return x.index_select(-1, order)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (order,) = ctx.saved_tensors
        return permute(grad, inverse(order)), None


class _Project(torch.autograd.Function):
    """P^T x, whose gradient is P times what comes back: half of the passes over memory that autograd would make."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, columns: int, order: Tensor, signs: Tensor, factor: Tensor) -> Tensor:
        buckets = _buckets(len(order), columns)
        signed = x.index_select(-1, order).mul_(_weights(signs[0], buckets))
        return _mix(_fold(signed, buckets), signs[1], factor)[..., :columns]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs[2:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        return lift(grad, *ctx.saved_tensors), None, None, None, None


class _Lift(torch.autograd.Function):
    """P y, whose gradient is P^T times what comes back."""

    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor, order: Tensor, signs: Tensor, factor: Tensor) -> Tensor:
        buckets = _buckets(len(order), y.shape[-1])
        padded = torch.nn.functional.pad(y, (0, buckets - y.shape[-1]))
        place = inverse(order)
        weights = _weights(signs[0], buckets).index_select(0, place)
        return _unmix(padded, signs[1], factor).index_select(-1, place % buckets).mul_(weights)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        ctx.columns = inputs[0].shape[-1]
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return project(grad, ctx.columns, *ctx.saved_tensors), None, None, None


def _buckets(dim: int, columns: int) -> int:
    """Return M: the coordinates that are mixed."""
    return min(power_of_two(columns), dim)


def _weights(signs: Tensor, buckets: int) -> Tensor:
    """Return each coordinate's sign over the root of its bucket's size, which makes the sums orthonormal (D,)."""
    whole, rest = divmod(len(signs), buckets)
    if not rest:
        return signs / math.sqrt(whole)
    fuller = torch.arange(len(signs), device=signs.device) % buckets < rest
    sizes = fuller.to(signs.dtype) + whole
    return signs * sizes.rsqrt()


def _fold(x: Tensor, buckets: int) -> Tensor:
    """Sum coordinate i into bucket i mod M."""
    whole, rest = divmod(x.shape[-1], buckets)
    if whole == 1 and not rest:
        return x
    total = x[..., : whole * buckets].reshape(*x.shape[:-1], whole, buckets).sum(-2)
    return torch.cat((total[..., :rest] + x[..., whole * buckets :], total[..., rest:]), -1) if rest else total


def _mix(x: Tensor, signs: Tensor, factor: Tensor) -> Tensor:
    """Transform; where the width is no power of two, its first part, then, with new signs, its last part, put first."""
    width = x.shape[-1]
    if width == power_of_two(width):
        return walsh_hadamard(x, factor)
    part = power_of_two(width) // 2
    mixed = torch.cat((walsh_hadamard(x[..., :part], factor), x[..., part:]), -1) * signs[:width]
    return torch.cat((walsh_hadamard(mixed[..., width - part :], factor), mixed[..., : width - part]), -1)


def _unmix(y: Tensor, signs: Tensor, factor: Tensor) -> Tensor:
    """Apply the transpose of :func:`_mix`."""
    width = y.shape[-1]
    if width == power_of_two(width):
        return walsh_hadamard(y, factor)
    part = power_of_two(width) // 2
    mixed = torch.cat((y[..., part:], walsh_hadamard(y[..., :part], factor)), -1) * signs[:width]
    return torch.cat((walsh_hadamard(mixed[..., :part], factor), mixed[..., part:]), -1)
