"""Codes of many unit vectors with small inner products, constructed from quadratic forms."""

from functools import cache

import torch
from torch import Tensor


def quadratic_code(num_classes: int, feature_dim: int) -> Tensor:
    """Return K unit vectors with small inner products, made of signed Hadamard bases.

    Use it for tens of thousands of classes, where a solver is too slow: these codes are constructed in seconds, and
    their vectors are much further apart than random ones. At (D, K) = (768, 50,000) no inner product exceeds 1/16;
    those of random rows reach .21.

    With d = 2^m <= D, a basis is the d vectors d^(-1/2) (-1)^(q(x) + b . x), x and b over all bit strings of length m,
    for a quadratic form q. If the difference of two forms has a radical of dimension r, inner products between their
    bases are at most 2^((r - m) / 2). Each basis is used with its negatives, so the rows of a complete basis sum to 0.

    - m even, K <= d (d + 2): Kerdock's forms, r = 0: max w_i . w_j = d^(-1/2). Proven optimal at K = d (d + 2) for
      d = 16 to 1024 (Cohn, de Laat & Leijenhorst 2024).
    - otherwise q(x) = sum_{i <= s} Tr(a_i x^(2^i + 1)) over the field of 2^m elements, d^s choices of a: r <= 2 s, for
      odd m r <= 2 s - 1 (the rank of an alternating form is even). s is the smallest number that gives K vectors.

    Source: Kerdock (1972) in the form of Kantor (1982, "Spreads, translation planes and Kerdock sets"); the duals of
    BCH codes (MacWilliams & Sloane 1977, chapters 9 and 15). Taken as points of a sphere by Calderbank, Cameron, Kantor
    & Seidel (1997, "Z4-Kerdock codes, orthogonal spreads, and extremal Euclidean line-sets").

    Args:
        num_classes: K, at least 2.
        feature_dim: D, at least 2; coordinates beyond the largest power of two are zero.

    Returns:
        (K, D), float64, on the CPU: the same at each call.

    Raises:
        ValueError: If there is no such code of K vectors in D dimensions.

    Example:
        >>> w = quadratic_code(288, 16)
        >>> float((w @ w.T - 2 * torch.eye(288, dtype=w.dtype)).max())
        0.25
    """
    bits = feature_dim.bit_length() - 1
    level = _level(num_classes, bits)
    if level is None:
        raise ValueError(
            f"quadratic_code has at most {_capacity((bits - 1) // 2, bits)} class vectors in {feature_dim} dimensions, "
            f"got num_classes={num_classes}: use spherical_code, or a larger feature_dim"
        )
    size = 2**bits
    with torch.device("cpu"):
        num_bases = -(-num_classes // (2 * size))
        # If one more basis than forms is needed, it is the standard basis: cosine 1 / sqrt(d) with all others.
        phases = _forms(level, bits, min(num_bases, _num_forms(level, bits)))
        signs = (1.0 - 2.0 * phases.to(torch.float64)) * size**-0.5
        hadamard = _hadamard(bits)
        rows = torch.zeros(num_classes, feature_dim, dtype=torch.float64)
        for start, sign in zip(range(0, num_classes, 2 * size), signs, strict=False):
            block = rows[start : start + 2 * size, :size]
            block.copy_(torch.cat([hadamard, -hadamard])[: len(block)] * sign)
        if num_bases > len(signs):
            block = rows[len(signs) * 2 * size :, :size]
            axes = torch.eye(size, dtype=torch.float64)
            block.copy_(torch.cat([axes, -axes])[: len(block)])
    return rows


def quadratic_bound(num_classes: int, feature_dim: int) -> float | None:
    """Return an upper bound on the inner products of :func:`quadratic_code`, or None if it has no code of this size.

    Example:
        >>> quadratic_bound(50_000, 768), quadratic_bound(50_000, 16)
        (0.0625, None)
    """
    bits = feature_dim.bit_length() - 1
    level = _level(num_classes, bits)
    return None if level is None else 2.0 ** ((_radical(level, bits) - bits) / 2)


def _level(num_classes: int, bits: int) -> int | None:
    """Return s (0 for Kerdock's forms), or None if there is no such code."""
    first = 0 if bits % 2 == 0 else 1
    levels = range(first, (bits - 1) // 2 + 1) if bits >= 2 else range(0)
    return next((s for s in levels if _capacity(s, bits) >= num_classes), None)


def _num_forms(level: int, bits: int) -> int:
    """Return the number of quadratic forms with s = ``level``: one basis each."""
    return 1 << (bits * level if level else bits - 1)


def _capacity(level: int, bits: int) -> int:
    """Return the largest K: the 2 d vectors of each form's basis and of the standard basis."""
    return (1 << bits + 1) * (_num_forms(level, bits) + 1)


def _radical(level: int, bits: int) -> int:
    """Return the largest dimension r of the radical of a difference of two forms."""
    return max(0, 2 * level - bits % 2)


def _forms(level: int, bits: int, number: int) -> Tensor:
    """Return q(x) in {0, 1} for the first ``number`` forms and all x: (number, 2^m), bool."""
    if level == 0:
        return _kerdock_forms(bits, number)
    index = torch.arange(number)
    phases = torch.zeros(number, 2**bits, dtype=torch.bool)
    for i in range(1, level + 1):
        coefficient = index >> (bits * (i - 1)) & 2**bits - 1
        phases ^= _traces(coefficient, torch.arange(2**bits), bits, 2**i + 1)
    return phases


def _kerdock_forms(bits: int, number: int) -> Tensor:
    """Return q_a(x, b) = sum_{j=1}^{(m - 2) / 2} Tr((a x)^(2^j + 1)) + b Tr(a x): (number, 2^m), bool.

    x and a are elements of the field of 2^(m - 1), b is a bit.
    """
    a, x = torch.arange(number), torch.arange(2 ** (bits - 1))
    own = torch.zeros(number, len(x), dtype=torch.bool)
    for j in range(1, (bits - 2) // 2 + 1):
        power = 2**j + 1
        own ^= _traces(_power(a, power, bits - 1), x, bits - 1, power)
    return torch.cat([own, own ^ _traces(a, x, bits - 1, 1)], dim=1)


@cache
def _logarithms(bits: int) -> tuple[Tensor, Tensor]:
    """Return the powers of a primitive element g of the field of 2^m, and the logarithm to base g of each element.

    The entry of 0, which has no logarithm, is not used.
    """
    order = 2**bits - 1
    for polynomial in range(2**bits + 1, 2 ** (bits + 1), 2):
        powers, element = [], 1
        for _ in range(order):
            powers.append(element)
            element = element << 1 if element << 1 <= order else (element << 1) ^ polynomial
            if element == 1:
                break
        if len(powers) == order:
            break
    with torch.device("cpu"):
        exponential = torch.tensor(powers)
        logarithm = torch.zeros(order + 1, dtype=torch.long)
        logarithm[exponential] = torch.arange(order)
    return exponential, logarithm


def _power(element: Tensor, power: int, bits: int) -> Tensor:
    """Return each element of the field of 2^bits to this power."""
    exponential, logarithm = _logarithms(bits)
    return exponential[logarithm[element] * power % len(exponential)] * (element > 0)


def _traces(a: Tensor, x: Tensor, bits: int, power: int) -> Tensor:
    """Return Tr(a x^power) for all pairs: (len(a), len(x)), bool."""
    exponential, logarithm = _logarithms(bits)
    order = len(exponential)
    conjugates = torch.stack([exponential[torch.arange(order) * 2**i % order] for i in range(bits)])
    trace = torch.zeros(order, dtype=torch.long)
    for conjugate in conjugates:
        trace ^= conjugate
    exponent = (logarithm[a][:, None] + logarithm[x][None, :] * power) % order
    return (trace[exponent] == 1) & (a > 0)[:, None] & (x > 0)[None, :]


def _hadamard(bits: int) -> Tensor:
    """Return the Hadamard matrix (2^bits, 2^bits) with entries (-1)^(b . x)."""
    matrix = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(bits):
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix
