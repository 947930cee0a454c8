"""Fine-tuning to a target task: the learning rate is chosen on a hold-out part, and test images are read once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from nc_tools._support.signals import StopSignal
from nc_tools.data import split_holdout
from nc_tools.evaluation.collect import collect
from nc_tools.losses import CrossEntropyLoss
from nc_tools.models.classifier import Classifier
from nc_tools.records import Batch
from nc_tools.seeds import stream
from nc_tools.training import NonFiniteLossError, OptimConfig, TrainConfig, fit
from nc_tools.transfer.fine_tuning_methods import FineTuningMethod, Full, ProbeThenFull, SkipConnection
from nc_tools.transfer.target_task import Target


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """The settings of fine-tuning to a target task, the same for all compared models.

    Attributes:
        methods: Methods to try, such as ``(Full(), ProbeThenFull())``.
        rates: Learning rates to choose from.
        max_extensions: How many rates may be added, each by the ratio of the last two, while the best rate lies at an
            end of the list.
        holdout: Share of each class of the target's training images on which the rate is chosen.
        training: Length and arithmetic of each training.
        optim: Optimizer and schedule; each rate that is tried replaces its own.

    Raises:
        TypeError: If a method is not a ``FineTuningMethod``.
        ValueError: If there is no rate or method, rates are not positive and increasing, a method occurs twice, or a
            number is out of its range.
    """

    methods: tuple[FineTuningMethod, ...] = (Full(), ProbeThenFull(), SkipConnection())
    rates: tuple[float, ...] = (0.001, 0.01, 0.1)
    max_extensions: int = 2
    holdout: float = 0.25
    training: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=10, batch_size=32))
    optim: OptimConfig = field(default_factory=OptimConfig)

    def __post_init__(self) -> None:
        rising = list(self.rates) == sorted(set(self.rates))
        if not (self.rates and rising and all(0 < rate < float("inf") for rate in self.rates)):
            raise ValueError(
                f"learning rates of fine-tuning (rates) must be positive, finite and increasing, got {self.rates}"
            )
        if self.max_extensions < 0:
            raise ValueError(f"max_extensions of fine-tuning must not be negative, got {self.max_extensions}")
        if not 0 < self.holdout < 1:
            raise ValueError(
                f"holdout of fine-tuning is a share of the training images and must lie between 0 and 1, got "
                f"{self.holdout}"
            )
        if wrong := [method for method in self.methods if not isinstance(method, FineTuningMethod)]:
            raise TypeError(f"a method of fine-tuning must be an object such as Full(), got {wrong[0]!r}")
        if not self.methods:
            raise ValueError("fine-tuning needs at least one method, got none: set fine_tuning=None to leave it out")
        keys = [method.key for method in self.methods]
        if len(set(keys)) < len(keys):
            raise ValueError(
                f"methods of fine-tuning must differ from each other, got {', '.join(keys)}: list each once"
            )


@dataclass(frozen=True, eq=False)
class FineTuned:
    """The result of fine-tuning a backbone to a target task.

    Attributes:
        model: Trained on all training images of the target.
        accuracy: Accuracy on the test images.
        lr: The learning rate that was chosen.
        holdout: Accuracy on the hold-out, by learning rate; None where training diverged.
    """

    model: Classifier
    accuracy: float
    lr: float
    holdout: dict[float, float | None]


def fine_tune(
    backbone: nn.Module,
    target: Target,
    method: FineTuningMethod,
    options: FineTuning | None = None,
    *,
    seed: int = 0,
    stop: StopSignal | None = None,
) -> FineTuned | None:
    """Fine-tune a backbone to a target task with cross-entropy.

    The backbone is trained with each rate on the training images without a hold-out. If the best rate lies at an end of
    the list, further rates are tried. Then it is trained on all training images, with the rate of the best accuracy on
    the hold-out (of equal ones, the smaller). The model after the last epoch counts, and only then are the test images
    read. If that training diverges, the next best rate is used.

    Args:
        backbone: Trained on another task, on the device of the target's batches; not changed.
        target: The task.
        method: What is trained, and from which start.
        options: Rates, hold-out and length; None for the defaults. Its ``methods`` are not used.
        seed: Seed of the hold-out and of a new head.
        stop: Checked between steps; None never stops.

    Returns:
        Model, accuracy and rate; None if training diverged at every rate.

    Raises:
        Killed: If ``stop`` is requested.

    Example:
        >>> from nc_tools.data import BatchOptions, DataConfig, load_data
        >>> from nc_tools.models import ConvNet
        >>> from nc_tools.transfer import image_target
        >>> sources = load_data(DataConfig(held_out_classes=2))
        >>> batches = BatchOptions(batch_size=32, mean=sources.mean, std=sources.std)
        >>> task = image_target(sources.transfer_train, sources.transfer_test, batches)
        >>> quick = FineTuning(rates=(0.1,), training=TrainConfig(epochs=1))
        >>> sorted(fine_tune(ConvNet(1, 8, width=4), task, Full(), quick).holdout)
        [0.1]
    """
    options = options or FineTuning()
    train, holdout = split_holdout(target.labels, options.holdout, stream(seed, "transfer", 2))
    scores: dict[float, float | None] = {}

    def score(rate: float) -> None:
        model = _trained(backbone, target, method, options, rate, train, seed, stop)
        scores[rate] = None if model is None else _accuracy(model, target.plain_batches(holdout), options)

    for rate in options.rates:
        score(rate)
    for _ in range(options.max_extensions):
        if (further := next_rate(scores)) is None:
            break
        score(further)
    for rate in by_score(scores):
        model = _trained(backbone, target, method, options, rate, torch.arange(len(target.labels)), seed, stop)
        if model is not None:
            return FineTuned(model, _accuracy(model, target.test_batches(), options), rate, scores)
    return None


def by_score(scores: dict[float, float | None]) -> Sequence[float]:
    """Return the learning rates that have a score, the best first; of equally good ones, the smaller first.

    Example:
        >>> by_score({0.01: 0.5, 0.1: 0.9, 1.0: 0.9, 10.0: None})
        [0.1, 1.0, 0.01]
    """
    return sorted(
        (rate for rate, s in scores.items() if s is not None), key=lambda rate: (-(scores[rate] or 0.0), rate)
    )


def next_rate(scores: dict[float, float | None]) -> float | None:
    """Return the next learning rate to try if the best one is the smallest or the largest of those tried.

    It continues the list at that end, by the ratio of the last two rates there. None if no rate is to be tried.

    Example:
        >>> next_rate({0.01: 0.5, 0.1: 0.9}), next_rate({0.01: 0.5, 0.1: 0.4}), next_rate({0.1: 0.5})
        (1.0, 0.001, None)
        >>> next_rate({0.01: 0.5, 0.1: 0.9, 1.0: None}) is None
        True
    """
    rates, best = sorted(scores), by_score(scores)[:1]
    if len(rates) < 2 or not best:
        return None
    if best[0] == rates[0]:
        return float(f"{rates[0] ** 2 / rates[1]:.3g}")
    return float(f"{rates[-1] ** 2 / rates[-2]:.3g}") if best[0] == rates[-1] else None


def _trained(
    backbone: nn.Module,
    target: Target,
    method: FineTuningMethod,
    options: FineTuning,
    rate: float,
    samples: Tensor,
    seed: int,
    stop: StopSignal | None,
) -> Classifier | None:
    """Train on some samples; return None if training diverges."""
    model = method.start(backbone, target, samples, seed)
    device = next(model.head.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)  # dropout
        try:
            optim = replace(options.optim, lr=rate)
            batches = target.training_batches(samples)
            return fit(model, CrossEntropyLoss(), batches, options.training, optim, stop=stop).model
        except NonFiniteLossError:
            return None


def _accuracy(model: Classifier, batches: Iterable[Batch], options: FineTuning) -> float:
    device = next(model.head.parameters()).device
    outputs = collect(model, batches, dtype=options.training.dtype_on(device))
    return float((outputs.logits.argmax(1) == outputs.labels).double().mean())
