"""Fast products with random matrices with orthonormal columns, by Hadamard transforms. No matrix is stored."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from nc_tools._support.tracing import jit_traced, traced
from nc_tools.geometry.hadamard import FACTOR, hadamard, power_of_two, walsh_hadamard

ROWS = 64  # rows of an ETF that are computed at a time


def draw_signed_permutation(dim: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Draw the random parts of :func:`project`: an order of the coordinates and two signs for each.

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
    """Return P^T x for a random matrix P with orthonormal columns, without storing P.

    The cost is O(D + M log M) per row instead of O(K D).

    M is the smallest power of two that is at least K. The steps: give the coordinates random signs and a random order;
    distribute them over M buckets, as evenly as D / M allows; sum each bucket and divide by the square root of its
    size; take the first K entries of the Hadamard transform of the buckets. Each step is a matrix with orthonormal
    rows, so P^T P = I exactly, for every D >= K. All D entries of a column of P have the same size (two sizes if M does
    not divide D) and random signs. No column is near an axis, which is the purpose of a rotation after a ReLU.

    If M is larger than D, there is one bucket for each coordinate, and two transforms with random signs between them:
    of the first 2^p coordinates, then of the last 2^p, with 2^p <= D < 2^(p + 1).

    A signed permutation followed by a transform is the subsampled randomized Hadamard transform (Ailon & Chazelle 2009,
    "The fast Johnson-Lindenstrauss transform"). It is not Haar-distributed: it draws from at most D! 2^D matrices, or
    D! 4^D if M is larger than D.

    Args:
        x: (..., D).
        columns: K, at most D.
        order: (D,), from :func:`draw_signed_permutation`.
        signs: (2, D), likewise.
        factor: ``hadamard(FACTOR)`` on the device and of the dtype of ``x``.

    Returns:
        (..., K).

    Example:
        >>> order, signs = draw_signed_permutation(6, generator=torch.Generator().manual_seed(0))
        >>> p = project(torch.eye(6).double(), 3, order, signs, hadamard(FACTOR))
        >>> bool(torch.allclose(p.T @ p, torch.eye(3).double()))
        True
    """
    apply = _Project.forward if jit_traced() else _Project.apply
    projected: Tensor = apply(x, columns, order, signs, factor)
    return projected


def lift(y: Tensor, order: Tensor, signs: Tensor, factor: Tensor) -> Tensor:
    """Return P y for the matrix P of :func:`project`, without storing P.

    Args:
        y: (..., K).
        order: (D,), as for :func:`project`.
        signs: (2, D), as for :func:`project`.
        factor: As for :func:`project`.

    Returns:
        (..., D).
    """
    apply = _Lift.forward if jit_traced() else _Lift.apply
    lifted: Tensor = apply(y, order, signs, factor)
    return lifted


def hadamard_etf(num_classes: int, order: Tensor, signs: Tensor) -> Tensor:
    """Return a simplex ETF rotated by a signed permutation and a Hadamard transform, as a matrix.

    Like :func:`~nc_tools.geometry.simplex_etf`, but with a smaller family of rotations, and in O(K D log K) instead of
    O(K^2 D): W = sqrt(K / (K - 1)) (I - 11^T / K) P^T, P of :func:`project`.

    Args:
        num_classes: K, at least 2.
        order: (D,), from :func:`draw_signed_permutation`, D at least K.
        signs: (2, D), likewise; its dtype is that of the computation.

    Returns:
        (K, D), on the device and of the dtype of ``signs``.

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
    # The signs include the factor sqrt(K / (K - 1)), and the mean is lifted before it is subtracted: so the frame is
    # written to memory once.
    stretched = signs * signs.new_tensor([[math.sqrt(num_classes / (num_classes - 1))], [1.0]])
    mean = lift(signs.new_full((1, num_classes), 1 / num_classes), order, stretched, factor)
    # A few rows at a time, because a transform holds several copies of its input.
    eye = torch.eye(num_classes, dtype=signs.dtype, device=signs.device)
    for start in range(0, num_classes, ROWS):
        rows = slice(start, start + ROWS)
        torch.sub(lift(eye[rows], order, stretched, factor), mean, out=frame[rows])
    return frame


def check_structured(num_classes: int, width: int) -> None:
    """Raise ValueError if no structured simplex ETF exists for these sizes.

    Raises:
        ValueError: If K < 2 or D < K.
    """
    if num_classes < 2:
        raise ValueError(f"a class geometry needs at least 2 classes, got {num_classes}")
    if width < num_classes:
        raise ValueError(
            f"a structured simplex ETF of {num_classes} classes needs feature_dim >= {num_classes}, got {width}: give "
            f"the head projection={num_classes} (or more), a learned linear map to that many dimensions, or use "
            f"ETFHead (from {num_classes - 1} dimensions) or SphericalCodeHead"
        )


def permute_centered(x: Tensor, order: Tensor) -> Tensor:
    """Return ``x[..., order]`` minus its mean over the last dimension.

    The result and its gradient take two passes over memory each.

    Args:
        x: (..., D), D at least K; entries after the first K are not read.
        order: (K,), int64, a permutation.

    Returns:
        (..., K).

    Example:
        >>> permute_centered(torch.tensor([[1.0, 2.0, 6.0]]), torch.tensor([2, 0, 1]))
        tensor([[ 3., -2., -1.]])
    """
    if traced():
        permuted = x.index_select(-1, order)
        return permuted - permuted.mean(-1, keepdim=True)
    centered: Tensor = _PermuteCentered.apply(x, order)
    return centered


def inverse(order: Tensor) -> Tensor:
    """Return the inverse of the permutation ``order``, without sorting.

    Example:
        >>> inverse(torch.tensor([2, 0, 1]))
        tensor([1, 2, 0])
    """
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))


class _PermuteCentered(torch.autograd.Function):
    """A permutation and the subtraction of the mean, whose gradient is the same function with the inverse permutation.

    Autograd does not know that no index repeats, and would add up the gradient index by index.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        ctx.unread = x.shape[-1] - len(order)
        permuted = x.index_select(-1, order)
        return permuted.sub_(permuted.mean(-1, keepdim=True))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (order,) = ctx.saved_tensors
        back = permute_centered(grad, inverse(order))
        return torch.nn.functional.pad(back, (0, ctx.unread)) if ctx.unread else back, None


class _Project(torch.autograd.Function):
    """P^T x, with P times the incoming gradient as its gradient: half of autograd's passes over memory."""

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
    """P y, with P^T times the incoming gradient as its gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor, order: Tensor, signs: Tensor, factor: Tensor) -> Tensor:
        buckets = _buckets(len(order), int(y.shape[-1]))
        padded = torch.nn.functional.pad(y, (0, buckets - y.shape[-1]))
        position = inverse(order)
        weights = _weights(signs[0], buckets).index_select(0, position)
        return _unmix(padded, signs[1], factor).index_select(-1, position % buckets).mul_(weights)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        ctx.columns = int(inputs[0].shape[-1])
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return project(grad, ctx.columns, *ctx.saved_tensors), None, None, None


def _buckets(dim: int, columns: int) -> int:
    """Return the number of buckets: M, or D if that is smaller."""
    return min(power_of_two(columns), dim)


def _weights(signs: Tensor, buckets: int) -> Tensor:
    """Return each coordinate's sign divided by the square root of its bucket's size (D,), for orthonormal sums."""
    per_bucket, left_over = divmod(len(signs), buckets)
    if not left_over:
        return signs / math.sqrt(per_bucket)
    has_one_more = torch.arange(len(signs), device=signs.device) % buckets < left_over
    sizes = has_one_more.to(signs.dtype) + per_bucket
    return signs * sizes.rsqrt()


def _fold(x: Tensor, buckets: int) -> Tensor:
    """Sum coordinate i into bucket i mod M."""
    per_bucket, left_over = divmod(int(x.shape[-1]), buckets)  # torch.jit.trace makes sizes tensors
    if per_bucket == 1 and not left_over:
        return x
    even = per_bucket * buckets
    total = x[..., :even].reshape(*x.shape[:-1], per_bucket, buckets).sum(-2)
    if not left_over:
        return total
    return torch.cat((total[..., :left_over] + x[..., even:], total[..., left_over:]), -1)


def _mix(x: Tensor, signs: Tensor, factor: Tensor) -> Tensor:
    """Return the orthonormal Hadamard transform of x along the last dimension.

    A width that is no power of two takes two transforms with signs between them: of the first 2^p entries, then of the
    last 2^p, which come first in the result.
    """
    width = int(x.shape[-1])
    if width == power_of_two(width):
        return walsh_hadamard(x, factor)
    part = power_of_two(width) // 2
    mixed = torch.cat((walsh_hadamard(x[..., :part], factor), x[..., part:]), -1) * signs[:width]
    return torch.cat((walsh_hadamard(mixed[..., width - part :], factor), mixed[..., : width - part]), -1)


def _unmix(y: Tensor, signs: Tensor, factor: Tensor) -> Tensor:
    """Apply the transpose of :func:`_mix`."""
    width = int(y.shape[-1])
    if width == power_of_two(width):
        return walsh_hadamard(y, factor)
    part = power_of_two(width) // 2
    mixed = torch.cat((y[..., part:], walsh_hadamard(y[..., :part], factor)), -1) * signs[:width]
    return torch.cat((walsh_hadamard(mixed[..., :part], factor), mixed[..., part:]), -1)
