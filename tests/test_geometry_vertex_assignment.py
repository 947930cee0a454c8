"""Vertex assignment against all permutations, and against a planted one."""

import itertools
import math

import numpy as np
import pytest
import torch

from nc_tools.geometry import assign_by_means, assign_by_similarity, cube, simplex_etf


@pytest.mark.parametrize("seed", range(6))
def test_means_get_the_vertices_that_agree_most_with_them(seed: int) -> None:
    """By direction about the overall mean: means are of unequal length and far from the origin."""
    frame = simplex_etf(6, 8, generator=torch.Generator().manual_seed(0))
    means = torch.randn(6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 1))
    means = means * torch.tensor([0.1, 0.3, 1, 3, 10, 30])[:, None] + 5
    centered = [[v - sum(column) / 6 for v, column in zip(row, zip(*means.tolist(), strict=True), strict=True)]
               for row in means.tolist()]  # fmt: skip

    def total(order: tuple[int, ...]) -> float:
        agreement = 0.0
        for row, vertex in zip(centered, order, strict=True):
            dot = sum(a * b for a, b in zip(row, frame[vertex].tolist(), strict=True))
            agreement += dot / math.sqrt(sum(a * a for a in row))
        return agreement

    best = max(itertools.permutations(range(6)), key=total)
    assert tuple(assign_by_means(frame, means).tolist()) == best


def test_similar_classes_get_near_vertices() -> None:
    """Against all 720 orders, and against a planted one."""
    frame = cube(6)
    similarity = torch.rand(6, 6, generator=torch.Generator().manual_seed(3)).double()
    gram = frame @ frame.T

    def total(order: tuple[int, ...]) -> float:
        return sum(float((similarity[i, j] + similarity[j, i]) / 2 * gram[order[i], order[j]])
                   for i in range(6) for j in range(6) if i != j)  # fmt: skip

    best = max(map(total, itertools.permutations(range(6))))
    assert total(tuple(assign_by_similarity(frame, similarity).tolist())) == pytest.approx(best, abs=1e-9)
    planted = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    cosines = cube(16) @ cube(16).T
    order = assign_by_similarity(cube(16), cosines[planted][:, planted])
    assert torch.allclose(cosines[order][:, order], cosines[planted][:, planted])


def test_no_exchange_of_two_classes_is_left_that_gains() -> None:
    frame = torch.nn.functional.normalize(
        torch.randn(30, 4, generator=torch.Generator().manual_seed(0)), dim=1
    ).double()
    similarity = torch.randn(30, 30, generator=torch.Generator().manual_seed(1)).double()
    gram, similar = (frame @ frame.T).numpy(), ((similarity + similarity.T) / 2).numpy()
    off = ~np.eye(30, dtype=bool)
    order = assign_by_similarity(frame, similarity).numpy()
    reached = (similar * gram[np.ix_(order, order)])[off].sum()
    for i, j in itertools.combinations(range(30), 2):
        other = order.copy()
        other[[i, j]] = other[[j, i]]
        assert (similar * gram[np.ix_(other, other)])[off].sum() <= reached + 1e-9


def test_bad_input_raises_and_suggests_a_fix() -> None:
    etf = simplex_etf(4, 4)
    with pytest.raises(ValueError, match="all vertices of this frame are equally far apart"):
        assign_by_similarity(etf, torch.eye(4))
    with pytest.raises(ValueError, match=r"similarity must have the shape \(4, 4\), got \(3, 4\)"):
        assign_by_similarity(etf, torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"means must have the shape of the frame, \(4, 4\), got \(4, 5\)"):
        assign_by_means(etf, torch.zeros(4, 5))
    with pytest.raises(ValueError, match="means must be finite"):
        assign_by_means(etf, torch.full((4, 4), torch.nan))
