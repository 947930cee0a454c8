"""Two processes that divide each batch train the model of one process: every head, every loss, every option."""

import pytest
import torch
from support.divided_training import CASES, in_processes, made
from support.side_by_side import largest_difference

pytestmark = pytest.mark.slow  # two processes


def all_cases(processes):
    return {name: made(name).train(processes) for name in CASES}


@pytest.fixture(scope="module")
def of_two():
    return in_processes(all_cases)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_the_model_of_one(of_two, name):
    """In float64; sums over two parts are rounded otherwise than sums over a batch."""
    first, second = (of_process[name] for of_process in of_two)
    before = made(name)
    states, curve, notes = made(name).train()
    assert largest_difference(first[0], states) < 1e-9
    assert largest_difference(first[0], second[0]) == 0
    assert notes == first[2] == second[2] == []
    assert second[1] == []  # the first process alone reports
    for values, expected in zip(first[1], curve, strict=True):
        assert values == pytest.approx(expected, rel=1e-9)
