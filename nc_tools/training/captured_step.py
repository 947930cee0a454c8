"""Training steps that are recorded once and replayed, so that a GPU does not wait for Python between its kernels."""

from __future__ import annotations

from collections.abc import Callable

import torch

from nc_tools.records import Batch
from nc_tools.training.cuda_graph import Recorder
from nc_tools.training.in_steps import Steps
from nc_tools.training.meter import StepValues
from nc_tools.training.mixed_loss import learns_from_steps
from nc_tools.training.replayed_step import ReplayedStep, replayed_step
from nc_tools.training.static_batch import BatchLayout, layout
from nc_tools.training.step import TrainingStep

# Allowed difference between a replay and the step itself, as a share of the step's change; by the backbone's dtype.
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1e-2}


class CapturedStep:
    """A training step that is computed as usual at first, and replayed from its second batch on.

    Each layout of a batch is recorded by itself: batches of an epoch may differ in size by one sample, and some
    may be mixed. The first step of a layout is computed as usual, so that the optimizer has its state and everything is
    compiled. Before its second step it is recorded and checked by
    :func:`~nc_tools.training.replayed_step.replayed_step`, for which seven steps are computed and undone. If it cannot
    be recorded, or a replay gives something else, training goes on from the same state without replays.

    Steps whose features are computed together with those of other trainings are not recorded.

    Args:
        step: The step.
        recorder: Records it.
        dtype: The dtype in which the backbone computes.
        note: Called once with the reason if steps are not replayed.
    """

    def __init__(self, step: TrainingStep, recorder: Recorder, dtype: torch.dtype, note: Callable[[str], None]) -> None:
        self._step = step
        self._recorder = recorder
        self._tolerance = _TOLERANCE[dtype]
        self._note = note
        self._replays: dict[tuple[BatchLayout, bool], ReplayedStep | None] = {}
        self._gave_up = False
        reason = _why_not(step)
        if reason is not None:
            self._give_up(reason)

    def __call__(self, batch: Batch, number: int) -> Steps[StepValues]:
        """Train on a batch, as the step itself does."""
        replay = None if self._gave_up else self._replay(batch, number)
        if replay is None:
            return (yield from self._step(batch, number))
        return replay(batch, number)

    def _replay(self, batch: Batch, number: int) -> ReplayedStep | None:
        key = (layout(batch), self._step.head_only)
        if key not in self._replays:
            self._replays[key] = None
        elif self._replays[key] is None and not self._step.shared:
            self._replays[key] = self._record(batch, number)
        return self._replays[key]

    def _record(self, batch: Batch, number: int) -> ReplayedStep | None:
        try:
            with self._step.state.uncounted():
                return replayed_step(self._step, self._recorder, batch, number, self._tolerance)
        except Exception as error:  # noqa: BLE001  PyTorch and CUDA raise many kinds
            self._give_up(" ".join(str(error).split()) or type(error).__name__)
            return None

    def _give_up(self, reason: str) -> None:
        self._gave_up = True
        self._replays.clear()
        self._note(f"training steps are not replayed as a CUDA graph, because {reason}")


def _why_not(step: TrainingStep) -> str | None:
    """Return why a step cannot be recorded, as far as this is known before recording it; None if it can be tried."""
    head = step.state.model.head
    if learns_from_steps(head):
        return f"{type(head).__name__} also learns outside of gradients, from each step (observe)"
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return "several processes train together"
    return None
