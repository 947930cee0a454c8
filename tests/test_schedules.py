"""Schedules of loss weights."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nc_tools.losses import (
    CrossEntropyLoss,
    WeightedSumLoss,
    term,
)
from nc_tools.schedules import ConstantSchedule, CosineSchedule, LinearSchedule, StepSchedule

shares = st.floats(0, 1)


@given(shares, st.floats(0, 5), st.floats(0, 5), shares, shares)
def test_schedules_are_these_functions(progress: float, start: float, end: float, a: float, b: float) -> None:
    assert ConstantSchedule(start)(progress) == start
    assert StepSchedule(a, start, end)(progress) == (end if progress >= a else start)
    halfway = (1 - math.cos(math.pi * progress)) / 2
    assert CosineSchedule(start, end)(progress) == pytest.approx((1 - halfway) * start + halfway * end, abs=1e-9)
    since, until = min(a, b), max(a, b)
    if since < until:
        ramp = LinearSchedule(start, end, since, until)
        done = 0.0 if progress <= since else 1.0 if progress >= until else (progress - since) / (until - since)
        assert ramp(progress) == pytest.approx(start + done * (end - start), abs=1e-9)


@pytest.mark.parametrize(
    "schedule", [ConstantSchedule(1.0), LinearSchedule(0.0, 1.0), StepSchedule(0.5, 0.0, 1.0), CosineSchedule(1.0, 0.0)]
)
def test_no_schedule_goes_beyond_training(
    schedule: ConstantSchedule | LinearSchedule | StepSchedule | CosineSchedule,
) -> None:
    for progress in (-0.01, 1.01, math.nan):
        with pytest.raises(ValueError, match=r"progress must lie in \[0, 1\], the share of training that is done, got"):
            schedule(progress)
        with pytest.raises(ValueError, match="progress must lie in"):
            WeightedSumLoss([term(schedule, CrossEntropyLoss())]).set_progress(progress)
