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


def test_steps_fall_at_the_milestone_itself() -> None:
    config = OptimConfig(schedule="step", warmup=0.0, milestones=(0.5, 0.75), gamma=0.2)
    factors = [rate_factor(step, 8, config) for step in range(8)]
    assert factors == pytest.approx([1, 1, 1, 1, 0.2, 0.2, 0.04, 0.04])


@pytest.mark.parametrize("step", [-1, 8])
def test_a_step_outside_the_training_is_refused(step: int) -> None:
    with pytest.raises(ValueError, match=f"8 steps has steps 0 to 7, got {step}"):
        rate_factor(step, 8, OptimConfig())
