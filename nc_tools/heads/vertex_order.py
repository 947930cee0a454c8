"""The ``assignment`` argument of heads: which class gets which vertex of the frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nc_tools.seeds import stream


@dataclass(frozen=True)
class RandomAssignment:
    """Setting of ``assignment``: the classes take the vertices in a random order, which can have a seed of its own.

    Frames of one geometry differ by their rotation and by the vertex of each class. If not all vertices are equally far
    apart (orthoplex, cube), the order decides which classes are neighbors. It is drawn separately from the rotation, so
    that the effects of both can be measured separately.

    Attributes:
        seed: Draws the order; None uses the head's ``frame_seed``.
    """

    seed: int | None = None

    def draw(self, num_vertices: int, frame_seed: int) -> Tensor:
        """Return a random permutation of the vertices (K,), int64, on the CPU."""
        seed = frame_seed if self.seed is None else self.seed
        return torch.randperm(num_vertices, generator=stream(seed, "frame", 2), device="cpu")


RANDOM = RandomAssignment()

Assignment = Sequence[int] | Tensor | RandomAssignment


def as_permutation(assignment: Assignment, num_vertices: int, frame_seed: int) -> Tensor:
    """Return an assignment of classes to vertices as a permutation (K,), int64, on the CPU.

    Raises:
        ValueError: If it is not a permutation of 0 to K - 1.
    """
    if isinstance(assignment, RandomAssignment):
        return assignment.draw(num_vertices, frame_seed)
    order = torch.as_tensor(assignment, device="cpu").long()
    if order.shape != (num_vertices,) or not torch.equal(order.sort().values, torch.arange(num_vertices, device="cpu")):
        raise ValueError(
            f"assignment must be a permutation of 0 to {num_vertices - 1}, got {_abbreviate(order)}: use "
            f"assign_by_means or assign_by_similarity to compute one"
        )
    return order


def _abbreviate(numbers: Tensor) -> str:
    first = ", ".join(map(str, numbers.flatten()[:8].tolist()))
    return f"{numbers.numel()} numbers ({first}{', ...' if numbers.numel() > 8 else ''})"
