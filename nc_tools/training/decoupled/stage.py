"""A second stage of training: the backbone is frozen, and only the classifier is changed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from nc_tools._support.signals import StopSignal
from nc_tools.data.mixing import Batches
from nc_tools.heads.head import Head
from nc_tools.losses.cross_entropy import CrossEntropyLoss
from nc_tools.models.classifier import Classifier
from nc_tools.records import Batch, Collected
from nc_tools.training.loop import EpochEnd, Fitted, fit
from nc_tools.training.train_config import OptimConfig, TrainConfig


@dataclass(frozen=True, kw_only=True)
class SecondStage(ABC):
    """What is done to a trained classifier over a frozen backbone.

    Training on imbalanced data harms the classifier more than the features: its class vectors carry the prior. So the
    features are learned first, from the data as they are, and the classifier is mended after (Kang et al. 2020,
    "Decoupling representation and classifier for long-tailed recognition"). A stage changes the values in a head, never
    its class: a run's weights load into the same model as without it.

    A stage is a :class:`RetrainedStage`, which trains, or a :class:`PostHocStage`, which computes.
    """

    @abstractmethod
    def check(self, head: Head) -> None:
        """Refuse a head that this stage cannot change, before anything is trained.

        Raises:
            ValueError: If there is nothing in the head to change; the message says which head to take.
        """

    @abstractmethod
    def epochs(self, first: int) -> int:
        """Return how many epochs the stage adds to the ``first`` ones."""


@dataclass(frozen=True, kw_only=True)
class PostHocStage(SecondStage):
    """A second stage without training; it is recorded as one epoch."""

    @abstractmethod
    def apply(self, head: Head, collect: Callable[[], Collected]) -> None:
        """Change the head in place.

        Args:
            head: Trained.
            collect: Gives the training set's features as they are evaluated, without augmentation; a pass over it.
        """

    def epochs(self, first: int) -> int:  # noqa: ARG002
        """Return 1: the record shows the changed head after the last epoch of training."""
        return 1


@dataclass(frozen=True, kw_only=True)
class RetrainedStage(SecondStage):
    """A second stage that trains with cross-entropy on class-balanced batches.

    The loss is plain cross-entropy whatever the first stage's was: the batches are balanced already, and a loss that
    adjusts for the prior would adjust twice.

    Attributes:
        share: Its length as a share of the first stage's epochs (Kang et al. take 10 after 90).
        lr_ratio: Its peak learning rate over that of the first stage; the schedule begins anew.
    """

    share: float = 0.1
    lr_ratio: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("share", self.share), ("lr_ratio", self.lr_ratio)):
            if not 0 < value < float("inf"):
                raise ValueError(f"{type(self).__name__}.{name} must be positive and finite, got {value}")

    def epochs(self, first: int) -> int:
        """Return the share of the first stage's epochs, at least 1."""
        return max(1, round(self.share * first))

    def optim(self, first: OptimConfig) -> OptimConfig:
        """Return the optimizer of this stage, given that of the first."""
        return replace(first, lr=first.lr * self.lr_ratio)

    @abstractmethod
    def start(self, head: Head, fresh: Head) -> Head:
        """Return the head to train: what is to be learned requires a gradient, and nothing else.

        Args:
            head: As the first stage left it.
            fresh: The same head, drawn anew.
        """

    @abstractmethod
    def fold(self, trained: Head, head: Head) -> None:
        """Write what :meth:`start`'s head has learned into the model's own; called after every epoch."""


class FrozenBackbone(nn.Module):
    """A backbone that gives features and no gradients, in eval mode whatever mode it is told.

    Frozen means its batch statistics too. In train mode class-balanced batches would normalize with, and move the
    running averages to, the statistics of another class mix than the features were learned under: a head would be
    fitted to features that nobody evaluates.

    Args:
        backbone: Its parameters stop requiring gradients.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(requires_grad=False).eval()

    def train(self, mode: bool = True) -> FrozenBackbone:  # noqa: ARG002, FBT001, FBT002
        """Stay in eval mode."""
        super().train(mode=False)
        return self

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        """Return features (N, D)."""
        features: Tensor = self.backbone(inputs)
        return features


class EpochsAfter:
    """A loader whose first epoch is that after ``first`` others: orders and crops go on instead of beginning anew.

    Args:
        batches: The loader.
        first: Epochs that were trained before.
    """

    def __init__(self, batches: Batches, first: int) -> None:
        self._batches = batches
        self._first = first

    def __len__(self) -> int:
        """Steps in an epoch."""
        return len(self._batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Return the batches of an epoch from step ``start`` on."""
        return self._batches.epoch(self._first + epoch, start)


def retrain(
    model: Classifier,
    stage: RetrainedStage,
    fresh: Head,
    batches: Batches,
    training: TrainConfig,
    optim: OptimConfig,
    *,
    epoch_end: EpochEnd | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    stop: StopSignal | None = None,
) -> Fitted:
    """Train a model's classifier once more, on the loop that trained it the first time.

    Images as they are: what the first stage mixed, or climbed before each step, it did for the backbone.

    Args:
        model: Trained; its head is changed in place, its backbone stays as it is, frozen.
        stage: What is learned.
        fresh: The model's head drawn anew, on the same device.
        batches: Class-balanced: a loader with ``sampling=BalancedSampling()``. Its epochs go on after the first ones.
        training: Of the first stage; the stage has a length of its own.
        optim: Of the first stage.
        epoch_end: As for :func:`~nc_tools.training.fit`: epochs count from 1 on, and the model it gets is ``model``.
        checkpoint: Where this stage keeps its state; another file than the first stage's.
        resume: Go on from that checkpoint where there is one.
        stop: As for :func:`~nc_tools.training.fit`.

    Returns:
        The model, and the seconds that this stage took.

    Raises:
        ValueError: If the stage cannot change this head.
        NonFiniteLossError: As :func:`~nc_tools.training.fit` does.
        Killed: As :func:`~nc_tools.training.fit` does.
    """
    stage.check(model.head)
    inner = Classifier(FrozenBackbone(model.backbone), stage.start(model.head, fresh))

    def told(epoch: int, values: dict[str, float], trained: Classifier) -> None:
        stage.fold(trained.head, model.head)
        if epoch_end is not None:
            epoch_end(epoch, values, model)

    fitted = fit(
        inner,
        CrossEntropyLoss(),
        EpochsAfter(batches, training.epochs),
        replace(training, epochs=stage.epochs(training.epochs), mixing=None),
        replace(stage.optim(optim), sam=None),
        epoch_end=told,
        checkpoint=checkpoint,
        resume=resume,
        stop=stop,
    )
    stage.fold(fitted.model.head, model.head)
    return Fitted(model.eval(), fitted.seconds)
