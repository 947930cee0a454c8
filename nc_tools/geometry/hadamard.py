"""Hadamard matrices, and products with them that never form one."""

import math

import torch
from torch import Tensor

# The widest factor of a transform: products with matrices of this size keep a CPU's and a GPU's units busy, and two
# of them make a transform of 4096.
FACTOR = 64


def power_of_two(number: int) -> int:
    """Return the smallest power of two that is not below ``number``.

    Example:
        >>> [power_of_two(n) for n in (1, 2, 3, 1000)]
        [1, 2, 4, 1024]
    """
    return 1 << max(number - 1, 0).bit_length()


def hadamard(order: int) -> Tensor:
    """Return Sylvester's Hadamard matrix: entries +-1, rows orthogonal, symmetric, the first row all ones.

    H_1 = [1], H_2n = [[H_n, H_n], [H_n, -H_n]] (Sylvester 1867). Its upper left n x n block is H_n.

    Args:
        order: n, a power of two.

    Returns:
        (n, n), float64, H H^T = n I.

    Raises:
        ValueError: If n is not a power of two: Sylvester's construction knows no other.

    Example:
        >>> hadamard(2).tolist()
        [[1.0, 1.0], [1.0, -1.0]]
    """
    _check(order)
    matrix = torch.ones(1, 1, dtype=torch.float64, device="cpu")
    while len(matrix) < order:
        matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)), 0)
    return matrix


def walsh_hadamard(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply the last dimension by the orthonormal Hadamard matrix H_n / sqrt(n), in O(n log n) a row.

    H_ab is the Kronecker product of H_a and H_b, so that the product is a few products with small matrices over the
    same numbers seen as a cube. Textbook butterflies need log2(n) passes over memory; this needs one a factor.

    Args:
        x: (..., n), n a power of two.
        factor: ``hadamard(FACTOR)`` in the device and type of ``x``, made once by who transforms often.

    Returns:
        (..., n). The matrix is symmetric and its own inverse, and so is this function.

    Raises:
        ValueError: If n is not a power of two.

    Example:
        >>> walsh_hadamard(torch.tensor([3.0, 1.0]), hadamard(FACTOR).float())
        tensor([2.8284, 1.4142])
    """
    order = x.shape[-1]
    _check(order)
    exponent = order.bit_length() - 1
    parts = max(1, math.ceil(exponent / (FACTOR.bit_length() - 1)))
    done, behind = x, 1
    for part in range(parts):
        # As even as can be: 2^11 is 32 x 64, not 64 x 64 with half of it idle.
        width = 1 << (exponent + part) // parts
        small = factor[:width, :width]
        if part == parts - 1:
            small = small * order**-0.5  # here rather than over all of x
        done = done.reshape(-1, width) @ small if behind == 1 else small @ done.reshape(-1, width, behind)
        behind *= width
    return done.reshape(x.shape)


def _check(order: int) -> None:
    if order < 1 or order & (order - 1):
        raise ValueError(
            f"a Sylvester Hadamard matrix has a power of two as its order, got {order}: "
            f"take {power_of_two(order)} and leave rows out"
        )
