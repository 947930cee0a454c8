"""The classes of a head that asks for its vertices in an order of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nc_tools.seeds import stream


@dataclass(frozen=True)
class RandomAssignment:
    """Ask for vertices in random order, drawn from a stream of its own.

    Frames of one geometry differ by rotation and by which class has which vertex. Where vertices are not all equally
    far apart (orthoplex, cube), the second decides which classes are neighbors; drawn apart from the rotation, the
    two can be told apart.

    Attributes:
        seed: Draws the order; None takes the head's ``frame_seed``.
    """

    seed: int | None = None

    def draw(self, num_vertices: int, frame_seed: int) -> Tensor:
        """Return a random permutation (K,)."""
        seed = frame_seed if self.seed is None else self.seed
        return torch.randperm(num_vertices, generator=stream(seed, "frame", 2), device="cpu")


RANDOM = RandomAssignment()

Assignment = Sequence[int] | Tensor | RandomAssignment


def as_permutation(asked: Assignment, num_vertices: int, frame_seed: int) -> Tensor:
    """Return what was asked for as a permutation (K,), int64, on the CPU.

    Raises:
        ValueError: If it does not name every vertex exactly once.
    """
    if isinstance(asked, RandomAssignment):
        return asked.draw(num_vertices, frame_seed)
    given = torch.as_tensor(asked, device="cpu").long()
    if given.shape != (num_vertices,) or not torch.equal(given.sort().values, torch.arange(num_vertices, device="cpu")):
        raise ValueError(
            f"an assignment names each of the {num_vertices} vertices once, as a permutation of 0 to "
            f"{num_vertices - 1}, got {_shown(given)}: assign_by_means and assign_by_similarity make one"
        )
    return given


def _shown(given: Tensor) -> str:
    values = ", ".join(map(str, given.flatten()[:8].tolist()))
    return f"{given.numel()} numbers ({values}{', ...' if given.numel() > 8 else ''})"
