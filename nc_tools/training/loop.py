"""The training loop: one for every arm."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from nc_tools._support.signals import Killed, StopSignal
from nc_tools.data.mixing import Batches, MixedBatches
from nc_tools.losses.loss_term import LossTerm
from nc_tools.models.classifier import Classifier
from nc_tools.records import Batch, Outputs
from nc_tools.training.checkpoint import load_checkpoint, save_checkpoint
from nc_tools.training.ema import WeightEMA
from nc_tools.training.learning_rate import rate_factor
from nc_tools.training.meter import Meter
from nc_tools.training.mixed_loss import batch_terms, check_mixing
from nc_tools.training.optimizers import make_optimizer, set_rates
from nc_tools.training.sam import SAM, frozen_batch_norm
from nc_tools.training.train_config import OptimConfig, TrainConfig
from nc_tools.training.training_state import TrainingState

EpochEnd = Callable[[int, dict[str, float], Classifier], None]


@dataclass(frozen=True)
class Fitted:
    """What training leaves: the model to evaluate (the average, where one is kept), and the seconds it took."""

    model: Classifier
    seconds: float


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
) -> Fitted:
    """Train a classifier.

    Args:
        model: On its device; trained in place.
        loss: On the same device.
        batches: The loader; its batches are on the same device.
        training: Length and arithmetic.
        optim: Optimizer and schedule.
        seed: Of the streams that the loop itself draws from; only mixing does.
        class_counts: Training samples of each class (K,); only SAM-A asks for them.
        epoch_end: Called after each epoch with its number from 1, the epoch's means and the model to evaluate. What it
            does to the model's mode is undone; its time is not counted.
        checkpoint: Where to keep state to resume from; None keeps none.
        resume: Go on from the checkpoint where there is one. On a CPU the weights come out bit-equal to those of a run
            that was never interrupted.
        stop: Looked at between steps; when set, state is saved and the loop ends with ``Killed``.
        keep_last: Keep the state after the last step too, for a stage that follows: resumed from it, this stage ends at
            once with the same model and the same seconds.

    Raises:
        ValueError: If loss or head cannot be trained in the way that is asked for.
        NonFiniteLossError: At the end of an epoch in which the loss was infinite or not a number.
        Killed: If asked to stop.
    """
    device = next(model.backbone.parameters()).device
    optimizer = make_optimizer(model, optim, loss)
    clipped = list(dict.fromkeys([*model.parameters(), *loss.parameters()]))
    check_mixing(training.mixing, loss, model.head)
    uphill = loss if optim.sam is None else optim.sam.ascent(loss, class_counts).to(device)
    source = batches if training.mixing is None else MixedBatches(batches, training.mixing, seed, training.epochs)
    ema = WeightEMA(model, training.ema_decay) if training.ema_decay is not None else None
    make_gradients = _gradients(model, loss, optimizer, uphill, _forward_pass(model, training, device))
    state = TrainingState(model, loss, optimizer, ema, Meter(device))
    if resume and checkpoint is not None and checkpoint.exists():
        state.restore(load_checkpoint(checkpoint))
    steps, total = len(batches), len(batches) * training.epochs
    saved_at = time.monotonic()
    for epoch in range(state.step // steps, training.epochs):
        model.train()
        state.resume_clock()
        for batch in source.epoch(epoch, start=state.step % steps):
            set_rates(optimizer, rate_factor(state.step, total, optim))
            loss.set_progress(state.step / total)
            optimizer.zero_grad(set_to_none=True)
            outputs, terms = make_gradients(batch)
            if optim.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(clipped, optim.clip_norm)
            optimizer.step()
            if batch.partner is None:  # a mixed sample is of no class that a head could learn a mean of
                with torch.no_grad():
                    model.head.observe(outputs, batch.labels, (state.step + 1) / total)
            state.count(terms, outputs, batch)
            if stop is not None and stop.requested and state.step % steps:
                _stop(state, total, checkpoint)
        values = state.meter.read() | {"train/lr": optimizer.param_groups[0]["lr"]}
        state.pause_clock()
        state.meter = Meter(device)
        if epoch_end is not None:
            epoch_end(epoch + 1, values, state.evaluated)
        state.epochs_done = epoch + 1
        if stop is not None and stop.requested:  # after the last step of an epoch its measures come first
            _stop(state, total, checkpoint)
        due = time.monotonic() - saved_at >= training.checkpoint_seconds
        if keep_last if state.step == total else due:
            save_checkpoint(checkpoint, state.stored())
            saved_at = time.monotonic()
    return Fitted(state.evaluated.eval(), state.seconds)


def _gradients(
    model: Classifier,
    loss: LossTerm,
    optimizer: torch.optim.Optimizer,
    uphill: LossTerm,
    forward: Callable[[Batch], Outputs],
) -> Callable[[Batch], tuple[Outputs, dict[str, Tensor]]]:
    def make(batch: Batch) -> tuple[Outputs, dict[str, Tensor]]:
        outputs = forward(batch)
        terms = batch_terms(loss, outputs, batch)
        if not isinstance(optimizer, SAM):
            torch.autograd.backward(_total(terms))
            return outputs, terms
        # Statistics and the loss's state have moved above, once; what is told is the loss where the weights are.
        with frozen_batch_norm(model, loss):
            torch.autograd.backward(_total(terms if uphill is loss else batch_terms(uphill, outputs, batch)))
            optimizer.first_step(zero_grad=True)
            torch.autograd.backward(_total(batch_terms(loss, forward(batch), batch)))
        return outputs, terms

    return make


def _total(terms: dict[str, Tensor]) -> Tensor:
    return reduce(add, terms.values())


def _stop(state: TrainingState, total: int, checkpoint: Path | None) -> NoReturn:
    save_checkpoint(checkpoint, state.stored())
    raise Killed(f"asked to stop after step {state.step} of {total}")


def _forward_pass(model: Classifier, training: TrainConfig, device: torch.device) -> Callable[[Batch], Outputs]:
    dtype = training.dtype_on(device)
    backbone = torch.compile(model.backbone) if training.compile else model.backbone

    def forward(batch: Batch) -> Outputs:
        # All that comes with a batch goes through together, so that batch statistics are those of all.
        parts = [part for part in (batch.inputs, batch.second_view, batch.outliers) if part is not None]
        with autocast(device, dtype):
            features = backbone(parts[0] if len(parts) == 1 else torch.cat(parts))
        made = iter([model.head.outputs(rows) for rows in features.split([len(part) for part in parts])])
        outputs = next(made)
        outputs.second_view = None if batch.second_view is None else next(made)
        outputs.outliers = None if batch.outliers is None else next(made)
        return outputs

    return forward


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Return autocast to ``dtype`` on the device; nothing for float32."""
    return torch.autocast(device.type, dtype, enabled=dtype is not torch.float32)
