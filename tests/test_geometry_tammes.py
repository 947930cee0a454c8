"""The Tammes solver: its energy against scalar loops, its descent, its independence of threads."""

import math

import pytest
import torch
from support.codes import generator, random_code

from nc_tools.geometry.tammes import descend, energy, solve_tammes


def energy_by_loops(points: list[list[float]], exponent: float) -> float:
    """(1/p) log sum_{i != j} (1 - w_i . w_j)^-p, in scalar Python."""
    unit = [[v / math.dist(p, [0] * len(p)) for v in p] for p in points]
    total = 0.0
    for i, u in enumerate(unit):
        for j, v in enumerate(unit):
            if i != j:
                total += (1 - sum(a * b for a, b in zip(u, v, strict=True))) ** -exponent
    return math.log(total) / exponent


@pytest.mark.parametrize("exponent", [1.0, 3.5, 40.0])
def test_energy_and_its_gradient_against_scalar_loops(exponent: float) -> None:
    points = 2 * torch.randn(2, 5, 3, dtype=torch.float64, generator=generator(0))
    value, gradient = energy(points, exponent)
    for b in range(2):
        assert float(value[b]) == pytest.approx(energy_by_loops(points[b].tolist(), exponent), rel=1e-12)
        for i in range(5):
            for d in range(3):
                step = torch.zeros(5, 3, dtype=torch.float64)
                step[i, d] = 1e-5
                up, down = (energy_by_loops((points[b] + s * step).tolist(), exponent) for s in (1, -1))
                assert float(gradient[b, i, d]) == pytest.approx((up - down) / 2e-5, abs=1e-6)


def test_descent_never_climbs_and_problems_of_a_batch_do_not_meet() -> None:
    points = torch.stack([random_code(9, 4, seed) for seed in range(3)])
    before = energy(points, 8.0)[0]
    after = energy(descend(points, 8.0, 30), 8.0)[0]
    assert bool((after < before).all())
    # Alone, the second problem takes the same steps, except for when the batch stops.
    alone = energy(descend(points[1:2], 8.0, 30), 8.0)[0]
    assert float(alone) == pytest.approx(float(after[1]), abs=1e-6)
    assert float(torch.linalg.vector_norm(energy(descend(points, 2.0, 400), 2.0)[1])) < 1e-4


@pytest.mark.slow
def test_a_code_is_the_same_whatever_the_number_of_threads() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        two = solve_tammes(14, 4)
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        assert torch.equal(solve_tammes(14, 4), two)
    finally:
        torch.set_num_threads(before)
