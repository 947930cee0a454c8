"""The learning rate at every step, against the schedule written out."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nc_tools.training.learning_rate import rate_factor
from nc_tools.training.train_config import OptimConfig


@given(st.integers(1, 300), st.floats(0, 0.5))
def test_warm_up_then_half_a_cosine(total: int, warmup: float) -> None:
    config = OptimConfig(warmup=warmup)
    rising = round(warmup * total)
    for step in range(total):
        if step < rising:
            expected = (step + 1) / rising
        else:
            expected = math.cos(math.pi / 2 * (step - rising) / (total - rising)) ** 2
        assert rate_factor(step, total, config) == pytest.approx(expected, abs=1e-12)


def test_cosine_with_warm_up_has_these_values() -> None:
    config = OptimConfig(warmup=0.2)
    factors = [rate_factor(step, 10, config) for step in range(10)]
    assert factors[:3] == [0.5, 1.0, 1.0]
    assert factors[2:] == pytest.approx([math.cos(math.pi * i / 16) ** 2 for i in range(8)])


@pytest.mark.parametrize("gamma", [0.1, 0.2])
def test_steps_fall_at_the_milestone_itself(gamma: float) -> None:
    config = OptimConfig(schedule="step", warmup=0.0, milestones=(0.5, 0.75), gamma=gamma)
    factors = [rate_factor(step, 8, config) for step in range(8)]
    assert factors == pytest.approx([1, 1, 1, 1, gamma, gamma, gamma**2, gamma**2])


@pytest.mark.parametrize("schedule", ["cosine", "step"])
@pytest.mark.parametrize("total", [1, 2, 7, 1000])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.99])
def test_every_step_of_a_training_has_a_rate_and_no_other(schedule: str, total: int, warmup: float) -> None:
    config = OptimConfig(schedule=schedule, warmup=warmup)  # type: ignore[arg-type]
    assert all(0 < rate_factor(step, total, config) <= 1 for step in range(total))
    for step in (-1, total):
        with pytest.raises(ValueError, match=f"from 0 to {total - 1} in a training of {total} steps, got {step}"):
            rate_factor(step, total, config)
