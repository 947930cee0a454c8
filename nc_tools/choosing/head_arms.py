"""The arms (compared methods) on fixed features: heads, losses and heads in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from nc_tools._support.suggestions import did_you_mean
from nc_tools.data import DataConfig
from nc_tools.experiment import ModelConfig, RunConfig, TunedParameter
from nc_tools.heads import (
    CosineHead,
    ETFHead,
    FrozenRandomHead,
    LinearHead,
    NearestETFHead,
    ProxyHead,
    SimplexHead,
)
from nc_tools.losses import (
    BalancedSoftmaxLoss,
    CrossEntropyLoss,
    DotRegressionLoss,
    EarlyLearningLoss,
    GeneralizedCrossEntropyLoss,
    LabelRelaxationLoss,
    LogitAdjustedLoss,
    LossTerm,
    NCEAndMAELoss,
    SymmetricCrossEntropyLoss,
)
from nc_tools.specs import spec
from nc_tools.training import (
    ClassMeanStart,
    KMeansStart,
    LeastSquaresStart,
    LogisticStart,
    OptimConfig,
    TauNormalize,
    TrainConfig,
)

RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
"""Learning rates that every trained arm tries, half a decade apart, for AdamW on standardized features."""
_WEIGHT_DECAY = 1e-2
_DECAYS = TunedParameter(path="optim.weight_decay", values=(1e-3, 1.0))
_SCALE, _SCALES = 4.0, TunedParameter(path="head.scale", values=(1.0, 16.0))
# A learned scale starts near 9, where a head behind a projection memorizes wrong labels:
# benchmarks/results/2026-11-27_projection_memorization.md.
_ONCE = TunedParameter(path="optim.weight_decay", values=())
_FEWEST_STEPS, _EPOCHS = 600, 30
_IMBALANCED = 1.5
"""Losses for imbalance are compared if the largest class has at least so many times the samples of the smallest."""
NOISE_ARMS = (
    "linear_gce", "linear_sce", "linear_nce_mae", "linear_elr", "linear_relaxation", "linear_smoothing", "cosine_gce"
)  # fmt: skip
OUTSIDE_ARMS = ("logistic",)


@dataclass(frozen=True, kw_only=True)
class ArmOptions:
    """What the arms have in common.

    Attributes:
        data: The data.
        model: The backbone, which is not trained.
        epochs: Number of epochs of every trained head.
        batch_size: Samples per step of every trained head.
    """

    data: DataConfig
    model: ModelConfig
    epochs: int = 30
    batch_size: int = 256


def is_imbalanced(class_counts: tuple[int, ...]) -> bool:
    """Return whether losses for imbalance are worth comparing: the largest class has at least 1.5 times the smallest.

    Example:
        >>> is_imbalanced((100, 90)), is_imbalanced((100, 10))
        (False, True)
    """
    return max(class_counts) >= _IMBALANCED * max(1, min(class_counts))


def enough_epochs(samples: int, options: ArmOptions, epochs: int | None = None) -> int:
    """Return the number of epochs: the given one, or else 30, or more if a head needs them to make 600 steps.

    Args:
        samples: Training samples, those of the hold-out included.
        options: Hold-out and batch size.
        epochs: The number of ``--epochs``, or None.

    Raises:
        ValueError: If the given number is less than 1.

    Example:
        >>> enough_epochs(50_000, ArmOptions(data=DataConfig(), model=ModelConfig()))
        30
    """
    if epochs is not None:
        if epochs < 1:
            raise ValueError(f"--epochs must be at least 1, got {epochs}: heads in closed form train for none anyway")
        return epochs
    steps = math.ceil(math.ceil(samples * (1 - options.data.holdout)) / options.batch_size)
    return max(_EPOCHS, math.ceil(_FEWEST_STEPS / steps))


def head_arms(options: ArmOptions, *, imbalanced: bool) -> dict[str, RunConfig]:
    """Return all arms by name, the default method first.

    The default is the linear head: with logit adjustment on imbalanced data, where balanced accuracy decides, and with
    plain cross-entropy elsewhere. On balanced data the losses for imbalance are the same as cross-entropy, so their
    arms are left out, and the other heads are trained with cross-entropy.

    Args:
        options: What the arms have in common.
        imbalanced: See :func:`is_imbalanced`.
    """
    base = RunConfig(
        head=spec(LinearHead),
        loss=spec(CrossEntropyLoss),
        data=options.data,
        model=options.model,
        optim=OptimConfig(optimizer=spec(torch.optim.AdamW), lr=RATES[2], weight_decay=_WEIGHT_DECAY),
        training=TrainConfig(epochs=options.epochs, batch_size=options.batch_size, precision="float32"),
        tuned=_DECAYS,
    )
    loss = spec(LogitAdjustedLoss) if imbalanced else base.loss
    end = "_la" if imbalanced else ""
    cosine, fixed = spec(CosineHead), replace(base, loss=loss, tuned=_SCALES)
    projected = {"projection": True, "scale": _SCALE}
    untrained = replace(base.training, epochs=0)
    arms = {"linear": base}
    if imbalanced:
        adjusted = replace(base, loss=loss, tuned=TunedParameter(path="loss.tau", values=(0.5, 1.5)))
        balanced = replace(base, loss=spec(BalancedSoftmaxLoss))
        arms = {"linear_la": adjusted, "linear": base, "linear_balanced_softmax": balanced}
        arms["cosine"] = replace(base, head=cosine)
    arms |= {
        f"cosine{end}": replace(base, head=cosine, loss=loss),
        f"etf{end}": replace(fixed, head=spec(ETFHead, **projected)),
        "etf_dr": replace(base, head=spec(ETFHead, **projected), loss=spec(DotRegressionLoss)),  # reads no scale
        f"nearest_etf{end}": replace(fixed, head=spec(NearestETFHead, **projected)),
        f"simplex{end}": replace(fixed, head=spec(SimplexHead, **projected)),
        f"random{end}": replace(fixed, head=spec(FrozenRandomHead, **projected)),  # control
        f"least_squares_start{end}": replace(base, loss=loss, start=LeastSquaresStart(ridge=0.1, confident=True)),
        "linear_tau": replace(
            base, second_stage=TauNormalize(tau=0.7), tuned=TunedParameter(path="second_stage.tau", values=(0.4, 1.0))
        ),
        "class_means": replace(base, head=cosine, start=ClassMeanStart(), training=untrained, tuned=_ONCE),
        "k_means": replace(
            base,
            training=untrained,
            head=spec(ProxyHead, num_proxies=3),
            start=KMeansStart(),
            tuned=TunedParameter(path="head.num_proxies", values=(2, 5, 1, 8, 4, 12, 6, 16, 20, 10)),
        ),
    }
    robust: dict[str, type[LossTerm]] = {
        "linear_gce": GeneralizedCrossEntropyLoss,
        "linear_sce": SymmetricCrossEntropyLoss,
        "linear_elr": EarlyLearningLoss,
        "linear_relaxation": LabelRelaxationLoss,
        "linear_nce_mae": NCEAndMAELoss,
    }
    arms |= {name: replace(base, loss=spec(cls)) for name, cls in robust.items()}
    arms["linear_smoothing"] = replace(base, loss=spec(CrossEntropyLoss, label_smoothing=0.1))
    arms["cosine_gce"] = replace(base, head=cosine, loss=spec(GeneralizedCrossEntropyLoss))
    penalties = TunedParameter(path="start.penalty", values=(1e-4, 1e-2, 1e-5, 1e-1, 1e-6, 3e-4, 3e-3, 3e-5, 3e-2, 1.0))
    arms["logistic"] = replace(base, start=LogisticStart(penalty=1e-3), training=untrained, tuned=penalties)
    return arms


def choose_arms(arms: dict[str, RunConfig], text: str | None, *, noisy: bool) -> dict[str, RunConfig]:
    """Return the arms that a command asks for, the default method first.

    Args:
        arms: All arms.
        text: Names separated by commas, "all", or None: all but scikit-learn's logistic regression, and the losses for
            noisy labels only with ``noisy``. The default method is always one of them.
        noisy: Whether some labels are wrong.

    Raises:
        ValueError: If there is no arm of a name.
    """
    default = next(iter(arms))
    if text is None:
        left_out = (*OUTSIDE_ARMS, *(() if noisy else NOISE_ARMS))
        return {name: arm for name, arm in arms.items() if name not in left_out}
    names = list(arms) if text == "all" else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in arms:
            raise ValueError(f"there is no arm {name!r}; {did_you_mean(name, arms)}")
    return {name: arm for name, arm in arms.items() if name in names or name == default}
