"""Record a training loop of any library: track the run, log its epochs, evaluate the model at the end."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from nc_tools.measuring.evaluate import evaluate
from nc_tools.run_records import RunRecord
from nc_tools.tracking.track import track

_Loader = Iterable[Any]


@dataclass(kw_only=True, eq=False)
class LoopRecorder:
    """Records one run of a training loop, and evaluates its model with :func:`nc_tools.evaluate` at the end.

    Attributes:
        root: Output folder, the same for all runs that are compared.
        arm: Name of the method.
        seed: Seed of the run; arms are paired by seed.
        train: Loader of the training images in a fixed order, without augmentation.
        test: Loader of the test images, which is read once, after training.
        holdout: Loader of held-out training images, for the temperature.
        outliers: Loaders of images of none of the classes, by name.
        config: All settings.
        class_counts: Training samples of each class (K,). None: counted in ``train`` at the end.
        classes: Names of the K classes.
        head: Dotted path of the classifier layer; needed only if it cannot be found.
        name: Name of the experiment.
        tracking_uri: MLflow store; see :class:`nc_tools.tracking.MlflowSync`. With "none" the run stays on disk only.
        run: The record of the run; None before ``start``.

    Example::

        recorder = LoopRecorder(root="out", arm="mine", seed=0, train=train, test=test)
        recorder.start(model)
        for epoch in range(10):
            recorder.log(epoch, {"train/loss": train_one_epoch(model)})
        recorder.finish(model)
    """

    root: Path | str
    arm: str
    seed: int
    train: _Loader
    test: _Loader
    holdout: _Loader | None = None
    outliers: Mapping[str, _Loader] | None = None
    config: Mapping[str, Any] | None = None
    class_counts: Sequence[int] | None = None
    classes: Sequence[str] | None = None
    head: str | None = None
    name: str = "nc_tools"
    tracking_uri: str | None = None
    run: RunRecord | None = field(default=None, init=False)
    _stack: ExitStack = field(default_factory=ExitStack, init=False, repr=False)

    def start(self, model: nn.Module) -> None:
        """Create the record of the run.

        Raises:
            FileExistsError: If this run is already finished, or a running process is writing it.
        """
        self.run = self._stack.enter_context(
            track(
                self.root, self.arm, self.seed, config=self.config, class_counts=self.class_counts, model=model,
                name=self.name, tracking_uri=self.tracking_uri,
            )
        )  # fmt: skip

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Log the numbers among the values of an epoch or step; text and other things are left out."""
        numbers = {key: number for key, value in values.items() if (number := _number(value)) is not None}
        if self.run is not None and numbers:
            self.run.log(step, numbers)

    def finish(self, model: nn.Module) -> dict[str, float]:
        """Evaluate the model, write the values, and end the run; return the values.

        Raises:
            RuntimeError: If ``start`` was not called.
        """
        if self.run is None:
            raise RuntimeError("the run has not begun: call start(model) before the training")
        values = evaluate(
            model, self.train, self.test, holdout=self.holdout, outliers=self.outliers,
            class_counts=self.class_counts, classes=self.classes, head=self.head, record=self.run.path,
        )  # fmt: skip
        self.run.finish(values)
        self._stack.close()
        return values

    def fail(self, error: BaseException) -> None:
        """End the run as FAILED, or KILLED after Ctrl-C, with the error as the reason."""
        trace: TracebackType | None = error.__traceback__
        self._stack.__exit__(type(error), error, trace)


def _number(value: Any) -> float | None:
    if isinstance(value, Tensor) and value.numel() == 1:
        value = torch.as_tensor(value).detach().cpu().item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if not math.isnan(value) else math.nan
