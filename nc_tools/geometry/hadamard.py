"""Hadamard matrices, and fast products with them."""

import math

import torch
from torch import Tensor

# Width of the largest factor of a transform. Products with matrices of this size use a CPU and a GPU well, and two such
# products make a transform of width 4096.
FACTOR = 64


def power_of_two(number: int) -> int:
    """Return the smallest power of two that is at least ``number``.

    Example:
        >>> [power_of_two(n) for n in (1, 2, 3, 1000)]
        [1, 2, 4, 1024]
    """
    return 1 << max(number - 1, 0).bit_length()


def hadamard(order: int) -> Tensor:
    """Return Sylvester's Hadamard matrix: symmetric, entries +1 and -1, orthogonal rows, the first of ones.

    H_1 = [1], H_2n = [[H_n, H_n], [H_n, -H_n]] (Sylvester 1867). Its upper left n x n block is H_n.

    Args:
        order: n, a power of two.

    Returns:
        (n, n), float64, H H^T = n I.

    Raises:
        ValueError: If n is not a power of two, the only orders of Sylvester's construction.

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
    """Multiply the last dimension by the orthonormal Hadamard matrix H_n / sqrt(n), in O(n log n) per row.

    H_ab is the Kronecker product of H_a and H_b. So the product with H_n is a few products with small matrices, each
    over the same numbers in another shape. The textbook butterflies need log2(n) passes over memory; this needs one
    pass per factor.

    Args:
        x: (..., n), n a power of two.
        factor: ``hadamard(FACTOR)`` on the device and of the dtype of ``x``; build it once if you transform often.

    Returns:
        (..., n). The matrix is symmetric and its own inverse, and so is this function.

    Raises:
        ValueError: If n is not a power of two.

    Example:
        >>> walsh_hadamard(torch.tensor([3.0, 1.0]), hadamard(FACTOR).float())
        tensor([2.8284, 1.4142])
    """
    order = int(x.shape[-1])
    _check(order)
    exponent = order.bit_length() - 1
    parts = max(1, math.ceil(exponent / (FACTOR.bit_length() - 1)))
    product, inner = x, 1
    for part in range(parts):
        # Factors as equal as possible: n = 2^11 is 32 x 64. In 64 x 64 half of the numbers would be unused.
        width = 1 << (exponent + part) // parts
        small = factor[:width, :width]
        if part == parts - 1:
            small = small * order**-0.5  # here rather than over all of x
        product = product.reshape(-1, width) @ small if inner == 1 else small @ product.reshape(-1, width, inner)
        inner *= width
    return product.reshape(x.shape)


def _check(order: int) -> None:
    if order < 1 or order & (order - 1):
        raise ValueError(
            f"the order of a Hadamard matrix must be a power of two, got {order}: use order {power_of_two(order)} and "
            f"drop the rows that you do not need"
        )
