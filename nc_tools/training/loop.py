"""The training loop, the same for every compared method."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from nc_tools._support.signals import Killed, StopSignal
from nc_tools.data.mixing import Batches, MixedBatches
from nc_tools.losses.loss_term import LossTerm
from nc_tools.models.classifier import Classifier
from nc_tools.records import Batch, Outputs
from nc_tools.surgery.layers import device_of
from nc_tools.training.checkpoint import damaged_checkpoint, load_checkpoint, save_checkpoint
from nc_tools.training.ema import WeightEMA
from nc_tools.training.in_steps import BackbonePass, Steps, in_steps
from nc_tools.training.learning_rate import head_only_steps, rate_factor
from nc_tools.training.meter import Meter
from nc_tools.training.mixed_loss import batch_terms, check_mixing, learns_from_steps
from nc_tools.training.optimizers import make_optimizer
from nc_tools.training.sam import SAM, frozen_statistics
from nc_tools.training.train_config import OptimConfig, TrainConfig
from nc_tools.training.training_state import TrainingState

EpochEnd = Callable[[int, dict[str, float], Classifier], bool | None]


@dataclass(frozen=True)
class Fitted:
    """The result of training: the model to evaluate, and the training time.

    Attributes:
        model: The model to evaluate: the weight average if there is one, else the trained model.
        seconds: Training time, without evaluation.
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

    Raises:
        ValueError: If the loss or the head cannot be trained with these settings.
        DamagedFileError: If the checkpoint is damaged or of another training.
        NonFiniteLossError: At the end of an epoch in which the loss was infinite or not a number.
        Killed: If ``stop`` was set.
    """
    device = device_of(model)
    optimizer = make_optimizer(model, optim, loss)
    check_mixing(training.mixing, loss, model.head)
    _check_head_first(model, optim)
    ascent_loss = loss if optim.sam is None else optim.sam.ascent_loss(loss, class_counts).to(device)
    source = batches if training.mixing is None else MixedBatches(batches, training.mixing, seed, training.epochs)
    ema = WeightEMA(model, training.ema_decay) if training.ema_decay is not None else None
    forward = _Forward(model, training, optim, device)
    state = TrainingState(model, loss, optimizer, ema, Meter(device))
    if resume and checkpoint is not None and checkpoint.exists():
        stored = load_checkpoint(checkpoint)
        try:
            state.restore(stored)
        except Exception as error:  # modules, optimizers and tensors each have errors of their own
            raise damaged_checkpoint(checkpoint, error) from error
    steps, total = len(batches), len(batches) * training.epochs
    saved_at = time.monotonic()
    for epoch in range(state.step // steps, training.epochs):
        if state.ended:
            break
        state.resume_clock()
        todo = source.epoch(epoch, start=state.step % steps)
        yield from _train_epoch(state, todo, forward, ascent_loss, optim, total, stop)
        if state.step % steps:  # stopped within the epoch
            _stop(state, total, checkpoint)
        values = state.meter.read() | {"train/lr": optimizer.param_groups[0]["lr"]}
        state.pause_clock()
        state.meter = Meter(device)
        state.ended = epoch_end is not None and bool(epoch_end(epoch + 1, values, state.evaluated))
        state.epochs_done = epoch + 1
        if stop is not None and stop.requested:
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
    state: TrainingState,
    batches: Iterator[Batch],
    forward: _Forward,
    ascent_loss: LossTerm,
    optim: OptimConfig,
    total: int,
    stop: StopSignal | None,
) -> Steps[None]:
    """Train on the batches; end early if ``stop`` is set."""
    model, loss, optimizer = state.model.train(), state.loss, state.optimizer
    clipped = list(dict.fromkeys([*model.parameters(), *loss.parameters()]))
    observes = learns_from_steps(model.head)
    head_only = head_only_steps(total, optim)
    trained = [p for p in model.backbone.parameters() if p.requires_grad] if state.step < head_only else []
    for batch in batches:
        factor = rate_factor(state.step, total, optim)
        peak = "peak_lr" if state.step < head_only else "joint_lr"
        for group in optimizer.param_groups:
            group["lr"] = group[peak] * factor
        if trained:
            _set_backbone_training(model.backbone, trained, on=state.step >= head_only)
        loss.set_progress(state.step / total)
        optimizer.zero_grad(set_to_none=True)
        request = forward.request(batch)
        yield from _wait_for_features(state, request)
        outputs = forward.outputs(batch, request)
        terms = loss.terms(outputs, batch) if batch.partner is None else batch_terms(loss, outputs, batch)
        if isinstance(optimizer, SAM):
            _sam_gradients(state, optimizer, forward, ascent_loss, outputs, terms, batch)
        else:
            torch.autograd.backward(reduce(add, terms.values()))
        yield from _wait(state, request)  # for the gradients of a backbone that others computed
        if optim.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(clipped, optim.clip_norm)
        optimizer.step()
        if observes and batch.partner is None:  # the mean of a class is learned from unmixed samples
            with torch.no_grad():
                model.head.observe(outputs, batch.labels, (state.step + 1) / total)
        if state.ema is not None:
            state.ema.update(model, state.step)
        state.meter.update(state.step, terms, outputs, batch)
        state.step += 1
        if stop is not None and stop.requested:
            break
    if trained:
        _set_backbone_training(model.backbone, trained, on=True)


def _set_backbone_training(backbone: nn.Module, parameters: Sequence[nn.Parameter], *, on: bool) -> None:
    """Switch training of a backbone on or off: gradients of these parameters, batch statistics and dropout."""
    for parameter in parameters:
        parameter.requires_grad_(on)
    backbone.train(on)


def _sam_gradients(
    state: TrainingState,
    optimizer: SAM,
    forward: _Forward,
    ascent_loss: LossTerm,
    outputs: Outputs,
    terms: dict[str, torch.Tensor],
    batch: Batch,
) -> None:
    """Go to the perturbed weights and compute the gradients there.

    The forward pass at the original weights has already updated batch statistics and the loss's state. Nothing here
    updates them again.
    """
    with frozen_statistics(state.model, state.loss):
        if ascent_loss is not state.loss:
            terms = batch_terms(ascent_loss, outputs, batch)
        torch.autograd.backward(reduce(add, terms.values()))
        optimizer.first_step(zero_grad=True)
        terms = batch_terms(state.loss, forward(batch), batch)
        torch.autograd.backward(reduce(add, terms.values()))


def _stop(state: TrainingState, total: int, checkpoint: Path | None) -> NoReturn:
    save_checkpoint(checkpoint, state.stored())
    raise Killed(f"training was stopped after step {state.step} of {total}")


class _Forward:
    """The forward pass of a batch: what is requested of the backbone, and what the head makes of its features."""

    def __init__(self, model: Classifier, training: TrainConfig, optim: OptimConfig, device: torch.device) -> None:
        self._model = model
        compiled: Any = torch.compile(model.backbone) if training.compile else model.backbone
        self._backbone: nn.Module = compiled
        self._dtype = training.dtype_on(device)
        self._alone = why_alone(training, optim)

    def request(self, batch: Batch) -> BackbonePass:
        """Return the pass for all that comes with a batch: one, so that batch statistics are those of all of it."""
        parts = _parts(batch)
        return BackbonePass(self._backbone, parts[0] if len(parts) == 1 else torch.cat(parts), self._dtype, self._alone)

    def outputs(self, batch: Batch, request: BackbonePass) -> Outputs:
        """Return the outputs for the features of a batch."""
        head, features, parts = self._model.head, request.features, _parts(batch)
        assert features is not None  # noqa: S101 (whoever runs the training has computed them)
        if len(parts) == 1:
            return head.outputs(features)
        outputs, *extra = [head.outputs(rows) for rows in torch.split(features, [len(part) for part in parts])]
        outputs.second_view = None if batch.second_view is None else extra[0]
        outputs.outliers = None if batch.outliers is None else extra[-1]
        return outputs

    def __call__(self, batch: Batch) -> Outputs:
        """Return the outputs for a batch, computed at once and alone."""
        request = self.request(batch)
        request.compute()
        return self.outputs(batch, request)


def why_alone(training: TrainConfig, optim: OptimConfig) -> str | None:
    """Return why a training's passes cannot be computed together with those of others; None if they can."""
    if optim.sam is not None:
        return "sharpness-aware steps (optim.sam) go through the backbone twice"
    return "its backbone is compiled (training.compile)" if training.compile else None


def _parts(batch: Batch) -> list[torch.Tensor]:
    return [part for part in (batch.inputs, batch.second_view, batch.outliers) if part is not None]


def _wait_for_features(state: TrainingState, request: BackbonePass) -> Generator[BackbonePass, None, None]:
    """Wait for the features, and compute them if nobody did."""
    yield from _wait(state, request)
    if request.features is None:
        request.compute()


def _wait(state: TrainingState, request: BackbonePass) -> Generator[BackbonePass, None, None]:
    """Wait; of that time only this training's share of a common pass is counted."""
    state.pause_clock()
    yield request
    state.resume_clock(request.take_seconds())
