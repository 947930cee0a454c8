"""The state of a training: everything that a checkpoint must hold."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from nc_tools._support.short_repr import short_repr
from nc_tools.losses.loss_term import LossTerm
from nc_tools.models.classifier import Classifier
from nc_tools.training.ema import WeightEMA
from nc_tools.training.meter import Meter


class TrainingState:
    """What training changes: model, loss, optimizer, weight average, meter, steps done and seconds spent.

    Data order and augmentation are not part of it: they are functions of (seed, epoch, step).

    Attributes:
        step: Number of steps done.
        epochs_done: Number of epochs that were trained and reported.
        ended: Whether training was ended before its last epoch by what was reported.
    """

    def __init__(
        self,
        model: Classifier,
        loss: LossTerm,
        optimizer: torch.optim.Optimizer,
        ema: WeightEMA | None,
        meter: Meter,
    ) -> None:
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.ema = ema
        self.meter = meter
        self.step = 0
        self.epochs_done = 0
        self.ended = False
        self._seconds = 0.0
        self._since: float | None = None

    @property
    def evaluated(self) -> Classifier:
        """The model to evaluate: with averaged weights if there is a weight average."""
        return self.model if self.ema is None else self.ema.model

    @property
    def seconds(self) -> float:
        """Seconds of training so far, without the time for evaluation."""
        return self._seconds + (0.0 if self._since is None else time.perf_counter() - self._since)

    def resume_clock(self, more: float = 0.0) -> None:
        """Start to count seconds of training, and add those that were spent for it elsewhere."""
        self._seconds += more
        self._since = time.perf_counter()

    def pause_clock(self) -> None:
        """Stop counting seconds of training, as before an evaluation."""
        self._seconds, self._since = self.seconds, None

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Do not count the seconds of the ``with`` block, whatever is called in it; count those after it."""
        before = self.seconds
        try:
            yield
        finally:
            self._seconds, self._since = before, time.perf_counter()

    def stored(self) -> dict[str, Any]:
        """Return the training state for a checkpoint, as tensors and plain values."""
        return {
            "step": self.step,
            "epochs_done": self.epochs_done,
            "ended": self.ended,
            "seconds": self.seconds,
            "model": _own_memory(self.model.state_dict()),
            "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": None if self.ema is None else _own_memory(self.ema.model.state_dict()),
            "meter": self.meter.state(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def restore(self, stored: Mapping[str, Any]) -> None:
        """Set the training to a state that :meth:`stored` returned.

        Raises:
            Exception: Of many kinds, if it is the state of another training.
        """
        for count in (stored["step"], stored["epochs_done"]):
            if not isinstance(count, int) or count < 0:
                raise ValueError(f"a number of steps or epochs is {short_repr(count)}")
        _check_shapes(self.model, stored["model"])
        self.model.load_state_dict(stored["model"])
        self.loss.load_state_dict(stored["loss"])
        self.optimizer.load_state_dict(stored["optimizer"])
        if self.ema is not None:
            self.ema.model.load_state_dict(stored["ema"])
        self.meter.load(stored["meter"])
        torch.set_rng_state(stored["rng"])
        if torch.cuda.is_available() and stored["cuda_rng"]:
            torch.cuda.set_rng_state_all(stored["cuda_rng"])
        self.step, self.epochs_done = stored["step"], stored["epochs_done"]
        self.ended = bool(stored.get("ended", False))
        self._seconds = float(stored["seconds"])


def _check_shapes(model: Classifier, stored: Mapping[str, torch.Tensor]) -> None:
    """Raise ValueError if parameters were stored in other shapes: a module may convert them, an optimizer cannot."""
    for name, parameter in model.named_parameters():
        if name in stored and stored[name].shape != parameter.shape:
            raise ValueError(
                f"an earlier version or another model wrote it, in which {name} has the shape "
                f"{tuple(stored[name].shape)} and not {tuple(parameter.shape)}"
            )


def _own_memory(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state without views of larger memory: ``torch.save`` would write all of the memory."""
    return {name: value.clone() if _is_view(value) else value for name, value in state.items()}


def _is_view(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.untyped_storage().nbytes() > value.nbytes
