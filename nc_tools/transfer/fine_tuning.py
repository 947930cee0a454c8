"""Fine-tuning to a target task, with its rate chosen on a hold-out and its test part read once."""

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
    """How a target task is fine-tuned to; the same for all models that are compared.

    Attributes:
        methods: Which ones, such as ``(Full(), ProbeThenFull())``.
        rates: Learning rates to choose from.
        max_extensions: How often the rates go on, by the same step, beyond an end of theirs at which the best one lies.
        holdout: Share of each class of the target's training part that the rate is chosen on.
        training: Length and arithmetic of each training.
        optim: Optimizer and schedule; its rate is the one chosen.
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
            raise ValueError(f"rates of fine-tuning must be positive and rising, all finite, got {self.rates}")
        if self.max_extensions < 0:
            raise ValueError(f"max_extensions of fine-tuning must not be negative, got {self.max_extensions}")
        if not 0 < self.holdout < 1:
            raise ValueError(f"the hold-out of fine-tuning is a share between 0 and 1, got {self.holdout}")
        if wrong := [method for method in self.methods if not isinstance(method, FineTuningMethod)]:
            raise TypeError(f"methods of fine-tuning are records such as Full(), got {wrong[0]!r}")
        if not self.methods:
            raise ValueError("fine-tuning needs at least one method, got none: fine_tuning=None leaves it out")
        keys = [method.key for method in self.methods]
        if len(set(keys)) < len(keys):
            raise ValueError(f"methods of fine-tuning must be different ones, got {', '.join(keys)}")


@dataclass(frozen=True, eq=False)
class FineTuned:
    """What fine-tuning gave.

    Attributes:
        model: Trained on the target's whole training part.
        accuracy: On its test part.
        lr: The rate that was chosen.
        holdout: Accuracy on the hold-out by rate; None where training diverged.
    """

    model: Classifier
    accuracy: float
    lr: float
    holdout: dict[float, float | None]


def fine_tune(
    backbone: nn.Module,
    target: Target,
    method: FineTuningMethod,
    how: FineTuning | None = None,
    *,
    seed: int = 0,
    stop: StopSignal | None = None,
) -> FineTuned | None:
    """Fine-tune a backbone to a target task by cross-entropy.

    Each rate trains on the training part less a hold-out, and more rates are tried where the best lies at an end of
    them. The best on the hold-out, the smaller one among equals, trains on all of it; its last epoch counts, and the
    test part is read then and only then. Should that training diverge, the next best rate takes its place.

    Args:
        backbone: Trained on something else, on the device of the target's batches; left as it is.
        target: The task.
        method: What is trained, from which start.
        how: Rates, hold-out, length; the defaults if None. Its ``methods`` are not asked.
        seed: Of the hold-out and of a new head.
        stop: Looked at between steps.

    Returns:
        What came of it; None if training diverged at every rate.

    Raises:
        Killed: If asked to stop.

    Example:
        >>> from nc_tools.data import DataConfig, load
        >>> from nc_tools.models import ConvNet
        >>> from nc_tools.transfer import image_target
        >>> sources = load(DataConfig(held_out_classes=2))
        >>> pair, facts = (sources.transfer_train, sources.transfer_test), {"mean": sources.mean, "std": sources.std}
        >>> task = image_target(*pair, **facts, batch_size=32, augment=None, seed=0)
        >>> quick = FineTuning(rates=(0.1,), training=TrainConfig(epochs=1))
        >>> sorted(fine_tune(ConvNet(1, 8, width=4), task, Full(), quick).holdout)
        [0.1]
    """
    how = how or FineTuning()
    kept, held = split_holdout(target.labels, how.holdout, stream(seed, "transfer", 2))
    scores: dict[float, float | None] = {}

    def score(rate: float) -> None:
        model = _trained(backbone, target, method, how, rate, kept, seed, stop)
        scores[rate] = None if model is None else _accuracy(model, target.plain_batches(held), how)

    for rate in how.rates:
        score(rate)
    for _ in range(how.max_extensions):
        if (further := beyond(scores)) is None:
            break
        score(further)
    for rate in by_score(scores):
        model = _trained(backbone, target, method, how, rate, torch.arange(len(target.labels)), seed, stop)
        if model is not None:
            return FineTuned(model, _accuracy(model, target.test_batches(), how), rate, scores)
    return None


def by_score(scores: dict[float, float | None]) -> Sequence[float]:
    """Return the rates that have a score, the best first and the smaller first among equals.

    Example:
        >>> by_score({0.01: 0.5, 0.1: 0.9, 1.0: 0.9, 10.0: None})
        [0.1, 1.0, 0.01]
    """
    return sorted(
        (rate for rate, s in scores.items() if s is not None), key=lambda rate: (-(scores[rate] or 0.0), rate)
    )


def beyond(scores: dict[float, float | None]) -> float | None:
    """Return the rate to try next where the best one lies at an end of those tried, by the step that led there.

    Example:
        >>> beyond({0.01: 0.5, 0.1: 0.9}), beyond({0.01: 0.5, 0.1: 0.4}), beyond({0.1: 0.5})
        (1.0, 0.001, None)
        >>> beyond({0.01: 0.5, 0.1: 0.9, 1.0: None}) is None
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
    how: FineTuning,
    rate: float,
    samples: Tensor,
    seed: int,
    stop: StopSignal | None,
) -> Classifier | None:
    """Train on some samples; None where that diverges."""
    model = method.start(backbone, target, samples, seed)
    device = next(model.head.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)  # dropout
        try:
            optim = replace(how.optim, lr=rate)
            return fit(
                model, CrossEntropyLoss(), target.training_batches(samples), how.training, optim, stop=stop
            ).model
        except NonFiniteLossError:
            return None


def _accuracy(model: Classifier, batches: Iterable[Batch], how: FineTuning) -> float:
    device = next(model.head.parameters()).device
    found = collect(model, batches, dtype=how.training.dtype_on(device))
    return float((found.logits.argmax(1) == found.labels).double().mean())
