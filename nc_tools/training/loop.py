"""The training loop, the same for every compared method."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

from nc_tools._support.signals import Killed, StopSignal
from nc_tools.data.mixing import Batches, MixedBatches
from nc_tools.losses.loss_term import LossTerm
from nc_tools.models.classifier import Classifier
from nc_tools.records import Batch
from nc_tools.surgery.layers import device_of
from nc_tools.training.captured_step import CapturedStep
from nc_tools.training.checkpoint import damaged_checkpoint, load_checkpoint, save_checkpoint
from nc_tools.training.cuda_graph import recorder_for
from nc_tools.training.ema import WeightEMA
from nc_tools.training.in_steps import Steps, in_steps
from nc_tools.training.meter import Meter
from nc_tools.training.mixed_loss import check_mixing
from nc_tools.training.optimizers import make_optimizer
from nc_tools.training.processes import Processes, SharedStop
from nc_tools.training.step import TrainingStep
from nc_tools.training.train_config import OptimConfig, TrainConfig
from nc_tools.training.training_state import TrainingState

EpochEnd = Callable[[int, dict[str, float], Classifier], bool | None]


@dataclass(frozen=True)
class Fitted:
    """The result of training: the model to evaluate, and the training time.

    Attributes:
        model: The model to evaluate: the weight average if there is one, else the trained model.
        seconds: Training time in seconds, without evaluation, and without the time in which a step was recorded.
    """

    model: Classifier
    seconds: float


@in_steps
def fit(
    model: Classifier,
    loss: LossTerm,
    batches: Batches,
    training: TrainConfig,
    optim: OptimConfig,
    *,
    seed: int = 0,
    class_counts: Sequence[int] | None = None,
    epoch_end: EpochEnd | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    stop: StopSignal | None = None,
    keep_last: bool = False,
    note: Callable[[str], None] = warnings.warn,
    processes: Processes | None = None,
) -> Steps[Fitted]:
    """Train a classifier: a backbone and a head.

    ``fit.steps(...)``, with the same arguments, is a generator that stops at each pass through the backbone. It is for
    :func:`~nc_tools.training.run_side_by_side.run_side_by_side`, which computes the passes of many trainings together.

    Args:
        model: The classifier, on its device. It is trained in place.
        loss: The loss, on the same device.
        batches: The loader. Its batches are on the same device.
        training: Number of epochs, precision and the like.
        optim: Optimizer and learning-rate schedule.
        seed: Seed for mixing; nothing else in the loop is random.
        class_counts: Number of training samples of each class (K,). Only SAM-A needs them.
        epoch_end: Called after each epoch with its number (from 1), its mean values and the model to evaluate. It may
            switch the model to eval mode. Its time is not counted. If it returns True, training ends (early stopping).
        checkpoint: File for the state to resume from. None: no checkpoint is written.
        resume: Continue from the checkpoint if it exists. On a CPU the weights are then bit-equal to those of a run
            that was not interrupted.
        stop: Checked after each step. If it is set, the state is saved and ``Killed`` is raised.
        keep_last: Save the state after the last step as well, for a stage that follows. Resuming from it returns the
            same model and the same seconds at once.
        note: Called with the reason if the steps cannot be replayed on a GPU (``training.capture``), at most once.
        processes: The processes that train this model together, each with a part of every batch; None: this one alone.
            All of them call this function with the same batches. ``epoch_end``, ``checkpoint`` and ``resume`` are
            those of the first process alone, whose state all start from.

    Raises:
        ValueError: If the loss or the head cannot be trained with these settings.
        DamagedFileError: If the checkpoint is damaged or of another training.
        NonFiniteLossError: At the end of an epoch in which the loss was infinite or not a number.
        Killed: If ``stop`` was set. With several processes: also if another process has ended, or has ended training.
    """
    device = device_of(model)
    optimizer = make_optimizer(model, optim, loss)
    check_mixing(training.mixing, loss, model.head)
    _check_head_first(model, optim)
    ascent_loss = loss if optim.sam is None else optim.sam.ascent_loss(loss, class_counts).to(device)
    source = batches if training.mixing is None else MixedBatches(batches, training.mixing, seed, training.epochs)
    ema = WeightEMA(model, training.ema_decay) if training.ema_decay is not None else None
    state = TrainingState(model, loss, optimizer, ema, Meter(device))
    if resume and checkpoint is not None and checkpoint.exists():
        stored = load_checkpoint(checkpoint)
        try:
            state.restore(stored)
        except Exception as error:  # modules, optimizers and tensors each have errors of their own
            raise damaged_checkpoint(checkpoint, error) from error
    if processes is not None:
        _check_divisible(training)
        processes.copy_first(state)
    steps, total = len(batches), len(batches) * training.epochs
    step = TrainingStep(state, training, optim, total, ascent_loss, processes, note)
    recorder = recorder_for(device) if training.capture and processes is None else None
    run = step if recorder is None else CapturedStep(step, recorder, training.dtype_on(device), note)
    ending = stop if processes is None else SharedStop(processes, stop)
    saved_at = time.monotonic()
    for epoch in range(state.step // steps, training.epochs):
        if state.ended:
            break
        state.resume_clock()
        todo = source.epoch(epoch, start=state.step % steps)
        yield from _train_epoch(step, run, todo, ending)
        if state.step % steps:  # stopped within the epoch
            _stop(state, total, checkpoint)
        end = partial(_end_epoch, state, epoch + 1, epoch_end)
        state.ended = end() if processes is None else processes.first_decides(end)
        state.meter = Meter(device)
        state.epochs_done = epoch + 1
        if ending is not None and ending.requested:
            _stop(state, total, checkpoint)
        due = time.monotonic() - saved_at >= training.checkpoint_seconds
        if keep_last if state.step == total or state.ended else due:
            save_checkpoint(checkpoint, state.stored())
            saved_at = time.monotonic()
    return Fitted(state.evaluated.eval(), state.seconds)


def _check_head_first(model: Classifier, optim: OptimConfig) -> None:
    if optim.head_first and not any(p.requires_grad for p in model.head.parameters()):
        raise ValueError(
            f"optim.head_first={optim.head_first} trains the head alone at first, but {type(model.head).__name__} has "
            f"nothing to train: give it a projection or a learned scale, or set optim.head_first=0"
        )


def _train_epoch(
    step: TrainingStep, run: TrainingStep | CapturedStep, batches: Iterator[Batch], stop: StopSignal | SharedStop | None
) -> Steps[None]:
    """Train on the batches; end early if ``stop`` is set."""
    state = step.state
    step.begin_epoch()
    for batch in batches:
        step.prepare(state.step)
        values = yield from run(batch, state.step)
        state.meter.update(state.step, len(batch.labels), values)
        state.step += 1
        if stop is not None and stop.requested:
            break
    step.end_epoch()


def _end_epoch(state: TrainingState, epoch: int, epoch_end: EpochEnd | None) -> bool:
    """Report the mean values of an epoch; return whether training ends here."""
    values = state.meter.read() | {"train/lr": state.optimizer.param_groups[0]["lr"]}
    state.pause_clock()
    return epoch_end is not None and bool(epoch_end(epoch, values, state.evaluated))


def _check_divisible(training: TrainConfig) -> None:
    if training.compile:
        raise ValueError(
            "a compiled backbone cannot be divided among processes, got training.compile=true: set it to false"
        )


def _stop(state: TrainingState, total: int, checkpoint: Path | None) -> NoReturn:
    save_checkpoint(checkpoint, state.stored())
    raise Killed(f"training was stopped after step {state.step} of {total}")
