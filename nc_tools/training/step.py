"""One step of training: from a batch to the updated weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Sequence
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor, nn

from nc_tools.losses.loss_term import LossTerm
from nc_tools.models.classifier import Classifier
from nc_tools.records import Batch, Outputs
from nc_tools.surgery.layers import device_of
from nc_tools.training.in_steps import BackbonePass, Steps
from nc_tools.training.learning_rate import head_only_steps, rate_factor
from nc_tools.training.meter import StepValues, step_values
from nc_tools.training.mixed_loss import batch_terms, learns_from_steps
from nc_tools.training.processes import Processes
from nc_tools.training.sam import SAM, frozen_statistics
from nc_tools.training.split_backbone import SplitBackbone, add_gradients
from nc_tools.training.train_config import OptimConfig, TrainConfig
from nc_tools.training.training_state import TrainingState


class TrainingStep:
    """One step of training, the same for every compared method.

    :meth:`prepare` sets what depends on the step's number, as Python numbers. The call itself reads what changes from
    tensors only, and computes on the device. So the call can be recorded once and replayed
    (:class:`~nc_tools.training.captured_step.CapturedStep`).

    Args:
        state: What training changes.
        training: Precision and compilation.
        optim: Learning-rate schedule and clipping.
        total: Number of steps of the training.
        ascent_loss: The loss whose gradient perturbs the weights in sharpness-aware steps.
        processes: The processes that train together; None: this one alone.
        note: Called if the numbers of a network depend on how many processes there are.

    Attributes:
        state: The same.
        total: The same.
        head_only: Whether the step that was prepared trains the head alone.
        shared: Whether the features of the latest step were computed together with those of other trainings.
    """

    def __init__(
        self,
        state: TrainingState,
        training: TrainConfig,
        optim: OptimConfig,
        total: int,
        ascent_loss: LossTerm,
        processes: Processes | None = None,
        note: Callable[[str], None] = warnings.warn,
    ) -> None:
        self.state = state
        self.total = total
        self.head_only = False
        self.shared = False
        self._optim = optim
        self._ascent_loss = ascent_loss
        self._processes = processes
        self._forward = _Forward(state.model, training, optim, device_of(state.model))
        if processes is not None:
            self._forward.divide(processes, note)
        self._clipped = list(dict.fromkeys([*state.model.parameters(), *state.loss.parameters()]))
        self._observes = learns_from_steps(state.model.head)
        self._head_only_steps = max(0, head_only_steps(total, optim))
        self._held: list[nn.Parameter] = []

    @property
    def phase(self) -> range:
        """The numbers of all steps that train the same parts as the one that was prepared."""
        return range(self._head_only_steps) if self.head_only else range(self._head_only_steps, self.total)

    def begin_epoch(self) -> None:
        """Put the model into training mode."""
        backbone, first = self.state.model.train().backbone, self.state.step < self._head_only_steps
        self._held = [p for p in backbone.parameters() if p.requires_grad] if first else []

    def end_epoch(self) -> None:
        """Let the whole model require gradients again."""
        if self._held:
            _set_backbone_training(self.state.model.backbone, self._held, on=True)

    def prepare(self, number: int) -> None:
        """Set learning rates, what is trained, and the loss's share of training for a step, counted from 0."""
        self.head_only = number < self._head_only_steps
        factor = rate_factor(number, self.total, self._optim)
        peak = "peak_lr" if self.head_only else "joint_lr"
        for group in self.state.optimizer.param_groups:
            group["lr"] = group[peak] * factor
        if self._held:
            _set_backbone_training(self.state.model.backbone, self._held, on=not self.head_only)
        self.state.loss.set_progress(number / self.total)

    def __call__(self, batch: Batch, number: int | Tensor) -> Steps[StepValues]:
        """Train on a batch, and return what the meter keeps.

        Args:
            batch: The batch.
            number: The step's number, from 0, which was prepared. A tensor () if the step is recorded.
        """
        state = self.state
        model, loss, optimizer = state.model, state.loss, state.optimizer
        optimizer.zero_grad(set_to_none=True)
        request = self._forward.request(batch)
        yield from self._wait_for_features(request)
        outputs = self._forward.outputs(batch, request)
        terms = loss.terms(outputs, batch) if batch.partner is None else batch_terms(loss, outputs, batch)
        if isinstance(optimizer, SAM):
            self._sam_gradients(optimizer, outputs, terms, batch)
        else:
            self._backward(terms)
        if self.shared:
            yield from self._wait(request)  # for the gradients of the backbone
        # The caller still holds the request, which must not keep the graph of this step: the next step would use nodes
        # of the graph again, on this step's stream, and a CUDA graph records one stream only.
        request.features = None
        if self._optim.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._clipped, self._optim.clip_norm)
        optimizer.step()
        if self._observes and batch.partner is None:  # the mean of a class is learned from unmixed samples
            with torch.no_grad():
                model.head.observe(outputs, batch.labels, float((number + 1) / self.total))
        if state.ema is not None:
            state.ema.update(model, number)
        return step_values(terms, outputs, batch)

    def _sam_gradients(self, optimizer: SAM, outputs: Outputs, terms: dict[str, Tensor], batch: Batch) -> None:
        """Go to the perturbed weights and compute the gradients there.

        The forward pass at the original weights has already updated batch statistics and the loss's state. Nothing here
        updates them again.
        """
        model, loss = self.state.model, self.state.loss
        with frozen_statistics(model, loss):
            if self._ascent_loss is not loss:
                terms = batch_terms(self._ascent_loss, outputs, batch)
            self._backward(terms)
            optimizer.first_step(zero_grad=True)
            self._backward(batch_terms(loss, self._forward(batch), batch))

    def _backward(self, terms: dict[str, Tensor]) -> None:
        torch.autograd.backward(reduce(add, terms.values()))
        if self._processes is not None:
            add_gradients(self.state.model, self.state.loss, self._processes)

    def _wait_for_features(self, request: BackbonePass) -> Generator[BackbonePass, None, None]:
        """Wait for the features, and compute them if the caller has not."""
        yield from self._wait(request)
        self.shared = request.features is not None
        if not self.shared:
            request.compute()

    def _wait(self, request: BackbonePass) -> Generator[BackbonePass, None, None]:
        """Wait; of that time only this training's share of a common pass is counted."""
        self.state.pause_clock()
        yield request
        self.state.resume_clock(request.take_seconds())


def why_alone(training: TrainConfig, optim: OptimConfig) -> str | None:
    """Return why a training's passes cannot be computed together with those of others; None if they can."""
    if optim.sam is not None:
        return "sharpness-aware steps (optim.sam) go through the backbone twice"
    return "its backbone is compiled (training.compile)" if training.compile else None


def _set_backbone_training(backbone: nn.Module, parameters: Sequence[nn.Parameter], *, on: bool) -> None:
    """Switch training of a backbone on or off: gradients of these parameters, batch statistics and dropout."""
    for parameter in parameters:
        parameter.requires_grad_(on)
    backbone.train(on)


class _Forward:
    """The forward pass of a batch: the pass that the backbone must compute, and the head's outputs for its features."""

    def __init__(self, model: Classifier, training: TrainConfig, optim: OptimConfig, device: torch.device) -> None:
        self._model = model
        compiled: Any = torch.compile(model.backbone) if training.compile else model.backbone
        self._backbone: nn.Module = compiled
        self._dtype = training.dtype_on(device)
        self._alone = why_alone(training, optim)

    def divide(self, processes: Processes, note: Callable[[str], None]) -> None:
        """Divide the batches of the backbone among processes."""
        self._backbone = SplitBackbone(self._backbone, processes, note)

    def request(self, batch: Batch) -> BackbonePass:
        """Return one pass for inputs, second view and outliers of a batch, with common batch statistics."""
        parts = _parts(batch)
        return BackbonePass(self._backbone, parts[0] if len(parts) == 1 else torch.cat(parts), self._dtype, self._alone)

    def outputs(self, batch: Batch, request: BackbonePass) -> Outputs:
        """Return the outputs for the features of a batch."""
        head, features = self._model.head, request.features
        assert features is not None  # noqa: S101 (whoever runs the training has computed them)
        if batch.second_view is None and batch.outliers is None:
            return head.outputs(features)
        sizes = [len(part) for part in _parts(batch)]
        outputs, *extra = [head.outputs(rows) for rows in torch.split(features, sizes)]
        outputs.second_view = None if batch.second_view is None else extra[0]
        outputs.outliers = None if batch.outliers is None else extra[-1]
        return outputs

    def __call__(self, batch: Batch) -> Outputs:
        """Return the outputs for a batch, computed at once and alone."""
        request = self.request(batch)
        request.compute()
        return self.outputs(batch, request)


def _parts(batch: Batch) -> list[Tensor]:
    return [part for part in (batch.inputs, batch.second_view, batch.outliers) if part is not None]
