"""A recorded training step, and the check that it computes what the step without recording computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from nc_tools.records import Batch
from nc_tools.training.cuda_graph import Recorded, Recorder
from nc_tools.training.in_steps import run_alone
from nc_tools.training.meter import StepValues
from nc_tools.training.state_tensors import StateTensors, Values, relative_difference
from nc_tools.training.static_batch import StaticBatch, changed
from nc_tools.training.step import TrainingStep

_SLOWER = 0.5  # factor of the learning rates in the second check
_NOISE = 3.0  # a replay may differ by this multiple of the difference of two steps without recording


class ReplayedStep:
    """A training step that was recorded: a call computes it for another batch and other numbers.

    What changes from step to step is in tensors that a call fills: the batch, the learning rates, the step's number,
    and the weights that ``loss.set_progress`` has set in the loss.

    Args:
        step: The step.
        recorder: Records it.
        batch: A batch with the layout of all that follow.
    """

    def __init__(self, step: TrainingStep, recorder: Recorder, batch: Batch) -> None:
        self._step = step
        self._static = StaticBatch(batch)
        device = batch.inputs.device
        self._number = torch.zeros((), device=device)
        self._rates = [torch.zeros((), device=device) for _ in step.state.optimizer.param_groups]
        with self._rates_as_tensors(device):
            recorder.warm_up(self._compute)  # an operation that waits for the device fails here, where it does no harm
            self._recorded: Recorded[StepValues] = recorder.record(self._compute)

    def __call__(self, batch: Batch, number: int) -> StepValues:
        """Train on a batch as the step does; ``step.prepare(number)`` must have been called before."""
        self._static.fill(batch)
        self._number.fill_(number)
        for tensor, group in zip(self._rates, self._step.state.optimizer.param_groups, strict=True):
            tensor.fill_(group["lr"])
        self._recorded.replay()
        values = self._recorded.result
        return StepValues({name: value.clone() for name, value in values.terms.items()}, values.hits)

    def _compute(self) -> StepValues:
        return run_alone(self._step(self._static.batch, self._number))

    @contextmanager
    def _rates_as_tensors(self, device: torch.device) -> Iterator[None]:
        """Let the optimizer read its learning rates from tensors."""
        groups = self._step.state.optimizer.param_groups
        before = [dict(group) for group in groups]
        for group, rate in zip(groups, self._rates, strict=True):
            rate.fill_(group["lr"])
            group["lr"] = rate
            if "capturable" in group and device.type == "cuda":
                group["capturable"] = True
        try:
            yield
        finally:
            for group, values in zip(groups, before, strict=True):
                group.update(values)


def replayed_step(step: TrainingStep, recorder: Recorder, batch: Batch, number: int, tolerance: float) -> ReplayedStep:
    """Record a training step, and check it against the step itself. The training is left as it was.

    From the same state, a replay and the step itself are computed for the batch and the numbers of this step; and again
    for other samples, labels, learning rates and another share of training, so that a value that was frozen is seen.
    The weights, buffers, loss terms and so on must be equal up to ``tolerance``, as a share of how much the step
    changes them, or up to three times what two computations without recording differ by.

    Args:
        step: The step. It was made for a batch of this layout before, so that all its tensors exist.
        recorder: Records it.
        batch: The batch of the next step.
        number: The number of the next step.
        tolerance: The largest relative difference.

    Raises:
        RuntimeError: If the step cannot be recorded, or a replay gives something else.
    """
    before = StateTensors(step.state)
    try:
        expected = _twice(step, recorder, before, batch, number, 1.0)
        _set(step, before, number, 1.0)
        replayed = ReplayedStep(step, recorder, batch)
        _set(step, before, number, 1.0)
        _check(before.start, expected, _now(before, replayed(batch, number)), tolerance)
        other, place = _other(batch), _far_from(number, step.phase)
        expected = _twice(step, recorder, before, other, place, _SLOWER)
        _set(step, before, place, _SLOWER)
        _check(before.start, expected, _now(before, replayed(other, place)), tolerance)
        return replayed
    finally:
        before.restore()
        step.state.optimizer.zero_grad(set_to_none=True)
        step.prepare(number)


def _twice(
    step: TrainingStep, recorder: Recorder, before: StateTensors, batch: Batch, number: int, factor: float
) -> list[Values]:
    """Return the values after a step without recording, computed twice."""

    def once() -> Values:
        _set(step, before, number, factor)
        return _now(before, recorder.warm_up(lambda: run_alone(step(batch, number))))

    return [once(), once()]


def _set(step: TrainingStep, before: StateTensors, number: int, factor: float) -> None:
    """Set the training to where it was, and prepare a step with its learning rates multiplied by a factor."""
    before.restore()
    step.prepare(number)
    for group in step.state.optimizer.param_groups:
        group["lr"] = group["lr"] * factor


def _now(before: StateTensors, values: StepValues) -> Values:
    """Return the values after a step, with those of the loss terms."""
    return {**before.now(), "loss terms": list(values.terms.values())}


def _check(start: Values, eager: list[Values], replayed: Values, tolerance: float) -> None:
    """Raise RuntimeError if the values after a replayed step differ from those after the step itself."""
    for name, expected in eager[0].items():
        before = start.get(name) or [torch.zeros_like(value) for value in expected]
        noise = relative_difference(before, expected, eager[1][name])
        difference = relative_difference(before, expected, replayed[name])
        if not difference <= max(tolerance, _NOISE * noise):  # also if it is not a number
            raise RuntimeError(
                f"a replayed step gives other {name}: they differ by {difference:.2g} of what the step changes, and "
                f"{max(tolerance, _NOISE * noise):.2g} is allowed. Something that changes from step to step may be a "
                f"number in Python instead of a tensor"
            )


def _other(batch: Batch) -> Batch:
    """Return a batch with other pairs of inputs and labels."""
    other = changed(batch, lambda values: values.flip(0))
    inputs = batch.inputs.roll(1, 0)
    partner = None if other.partner is None else replace(other.partner, inputs=inputs)
    return replace(other, inputs=inputs, partner=partner, share=0.9 * batch.share)


def _far_from(number: int, phase: range) -> int:
    """Return a step of the phase halfway to its farther end.

    Example:
        >>> _far_from(10, range(100))
        54
    """
    end = max(phase[0], phase[-1], key=lambda place: abs(place - number))
    return (number + end) // 2
