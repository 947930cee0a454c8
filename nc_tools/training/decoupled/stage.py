"""The second stage of decoupled training: change the classifier while the backbone is frozen."""

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
from nc_tools.training.in_steps import Steps, in_steps
from nc_tools.training.loop import EpochEnd, Fitted, fit
from nc_tools.training.train_config import OptimConfig, TrainConfig


@dataclass(frozen=True, kw_only=True)
class SecondStage(ABC):
    """Base class of second stages, which change a trained classifier on a frozen backbone.

    Training on imbalanced data harms the classifier more than the features: its class vectors contain the class prior.
    So the features are learned first, from the imbalanced data, and the classifier is corrected afterwards (Kang et al.
    2020, "Decoupling representation and classifier for long-tailed recognition"). A stage changes the values in a head,
    never its class, so that the weights of a run load into the same model with and without it.

    A stage is either a :class:`RetrainingStage`, which trains, or a :class:`PostHocStage`, which computes.
    """

    @abstractmethod
    def check(self, head: Head) -> None:
        """Check that this second stage can change a head. Called before anything is trained.

        Raises:
            ValueError: If it cannot; the message says which head to use.
        """

    @abstractmethod
    def epochs(self, first: int) -> int:
        """Return how many epochs the second stage adds, given the number of epochs of the first stage."""


@dataclass(frozen=True, kw_only=True)
class PostHocStage(SecondStage):
    """A second stage without training. It is recorded as one epoch."""

    @abstractmethod
    def apply(self, head: Head, collect: Callable[[], Collected]) -> None:
        """Change a trained head in place.

        Args:
            head: The trained head.
            collect: Makes a pass over the training set in eval mode, without augmentation, and returns its features.
        """

    def epochs(self, first: int) -> int:  # noqa: ARG002
        """Return 1: the changed head is recorded as one epoch after the last epoch of training."""
        return 1


@dataclass(frozen=True, kw_only=True)
class RetrainingStage(SecondStage):
    """A second stage that trains with cross-entropy on class-balanced batches.

    The loss is always plain cross-entropy: the batches are balanced already, and a loss that adjusts for the class
    prior would adjust a second time.

    Attributes:
        share: Number of epochs, as a share of the first stage's (Kang et al. use 10 after 90).
        lr_ratio: Peak learning rate, divided by that of the first stage. The schedule starts from its beginning.

    Raises:
        ValueError: If one of them is not positive and finite.
    """

    share: float = 0.1
    lr_ratio: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("share", self.share), ("lr_ratio", self.lr_ratio)):
            if not 0 < value < float("inf"):
                raise ValueError(f"{type(self).__name__}.{name} must be positive and finite, got {value}")

    def epochs(self, first: int) -> int:
        """Return how many epochs the second stage adds: a share of the first stage's epochs, at least 1."""
        return max(1, round(self.share * first))

    def optim(self, first: OptimConfig) -> OptimConfig:
        """Return the optimizer settings of the second stage, given those of the first."""
        return replace(first, lr=first.lr * self.lr_ratio)

    @abstractmethod
    def head_to_train(self, head: Head, fresh: Head) -> Head:
        """Return the head to train, in which only the parameters to learn require a gradient.

        Args:
            head: The head after the first stage.
            fresh: The same head with new initial weights.
        """

    @abstractmethod
    def fold(self, trained: Head, head: Head) -> None:
        """Write what the trained head has learned into the model's head. Called after every epoch.

        Args:
            trained: The head that :meth:`head_to_train` returned.
            head: The model's head, changed in place.
        """


class FrozenBackbone(nn.Module):
    """A backbone that returns features without gradients and always stays in eval mode.

    Its batch statistics are frozen too. In train mode, class-balanced batches would be normalized with the statistics
    of another class distribution than the one the features were learned from, and the running averages would follow.
    The head would then be fitted to other features than those that are evaluated.

    Args:
        backbone: Its parameters stop requiring gradients.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(requires_grad=False).eval()

    def train(self, mode: bool = True) -> FrozenBackbone:  # noqa: ARG002, FBT001, FBT002
        """Keep the backbone in eval mode, whatever ``mode`` is."""
        super().train(mode=False)
        return self

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        """Return the backbone's features (N, D), without gradients."""
        features: Tensor = self.backbone(inputs)
        return features


class EpochsAfter:
    """A loader whose epochs are counted from ``first``, so that sample orders and crops are not repeated.

    Args:
        batches: The loader.
        first: Number of epochs that were trained before.
    """

    def __init__(self, batches: Batches, first: int) -> None:
        self._batches = batches
        self._first = first

    def __len__(self) -> int:
        """Return the number of steps in an epoch."""
        return len(self._batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Return the batches of an epoch, from step ``start`` on."""
        return self._batches.epoch(self._first + epoch, start)


@in_steps
def retrain(
    model: Classifier,
    stage: RetrainingStage,
    fresh: Head,
    batches: Batches,
    training: TrainConfig,
    optim: OptimConfig,
    *,
    epoch_end: EpochEnd | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    stop: StopSignal | None = None,
) -> Steps[Fitted]:
    """Train a model's classifier again, on a frozen backbone, with the same loop as the first stage.

    Mixing and sharpness-aware steps of the first stage are switched off: they are for the backbone.

    Args:
        model: The trained model. Its head is changed in place; its backbone is frozen.
        stage: What is learned.
        fresh: The model's head with new initial weights, on the same device.
        batches: A class-balanced loader, made with ``sampling=BalancedSampling()``. Its epochs continue those of the
            first stage.
        training: Settings of the first stage. The number of epochs is the stage's own.
        optim: Settings of the first stage.
        epoch_end: As for :func:`~nc_tools.training.fit`. Epochs count from 1, and the model that it gets is ``model``.
        checkpoint: File for the state of this stage; not the first stage's file.
        resume: Continue from that checkpoint if it exists.
        stop: As for :func:`~nc_tools.training.fit`.

    Returns:
        The model and the seconds that this stage took.

    Raises:
        ValueError: If the stage cannot change this head.
        NonFiniteLossError: As :func:`~nc_tools.training.fit` does.
        Killed: As :func:`~nc_tools.training.fit` does.
    """
    stage.check(model.head)
    inner = Classifier(FrozenBackbone(model.backbone), stage.head_to_train(model.head, fresh))

    def fold_and_report(epoch: int, values: dict[str, float], trained: Classifier) -> None:
        stage.fold(trained.head, model.head)
        if epoch_end is not None:
            epoch_end(epoch, values, model)

    fitted = yield from fit.steps(
        inner,
        CrossEntropyLoss(),
        EpochsAfter(batches, training.epochs),
        replace(training, epochs=stage.epochs(training.epochs), mixing=None),
        replace(stage.optim(optim), sam=None),
        epoch_end=fold_and_report,
        checkpoint=checkpoint,
        resume=resume,
        stop=stop,
    )
    stage.fold(fitted.model.head, model.head)
    return Fitted(model.eval(), fitted.seconds)
