"""Settings of training and optimizer, checked when they are created."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from nc_tools.data.mixing import CutMix, Mixup
from nc_tools.specs import Spec, spec
from nc_tools.training.sam import AsymmetricSharpnessAware, SharpnessAware


def _check_positive(owner: str, **values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{owner}.{name} must be positive, got {value}")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Settings of the optimizer and of the learning-rate schedule.

    Attributes:
        optimizer: Spec of a ``torch.optim`` class. Learning rate and weight decay are filled in from the fields below.
            SGD couples weight decay with the gradient, which collapse needs; AdamW's decoupled decay prevents collapse.
        lr: Peak learning rate.
        head_lr_ratio: Peak learning rate of the head divided by that of the backbone. A ratio, so that it holds for
            every learning rate that is tried.
        layer_decay: Factor between the peak rates of consecutive blocks, for a pretrained backbone whose first layers
            should change least: the last block has ``lr`` times this factor, and each block before it has the rate of
            the next block times this factor. 1: all blocks have the rate ``lr``. Source: Clark et al. 2020 (ELECTRA);
            0.65 to 0.75 in the fine-tuning of MAE and BEiT.
        head_first: Share of the steps in which only the head is trained, with a warm-up and schedule of its own. Then
            backbone and head are trained together at the rate ``lr``, and ``head_lr_ratio`` no longer holds. With a
            pretrained backbone this is LP-FT (Kumar et al. 2022): a head that already fits does not distort features.
        weight_decay: Weight decay of parameters with two or more dimensions. Scalars never decay.
        decay_norm_and_bias: Whether biases and normalization gains decay too, as in much of the older literature.
        schedule: "cosine" (to zero) or "step".
        milestones: For "step": the shares of training at which the learning rate falls.
        gamma: For "step": the factor by which it falls.
        warmup: Share of training over which the learning rate rises linearly.
        clip_norm: Largest norm of the gradient. None: no clipping.
        sam: Sharpness-aware minimization, such as ``SharpnessAware(0.05)``, with two passes per step. None: off.

    Raises:
        ValueError: If a value is out of its range.
    """

    optimizer: Spec[torch.optim.Optimizer] = field(default_factory=lambda: spec(torch.optim.SGD, momentum=0.9))
    lr: float = 0.1
    head_lr_ratio: float = 1.0
    layer_decay: float = 1.0
    head_first: float = 0.0
    weight_decay: float = 5e-4
    decay_norm_and_bias: bool = False
    schedule: Literal["cosine", "step"] = "cosine"
    milestones: tuple[float, ...] = (0.8, 0.9)
    gamma: float = 0.1
    warmup: float = 0.05
    clip_norm: float | None = None
    sam: SharpnessAware | AsymmetricSharpnessAware | None = None

    def __post_init__(self) -> None:
        _check_positive("optim", lr=self.lr, head_lr_ratio=self.head_lr_ratio, gamma=self.gamma)
        if self.clip_norm is not None:
            _check_positive("optim", clip_norm=self.clip_norm)
        if self.weight_decay < 0:
            raise ValueError(f"optim.weight_decay must not be negative, got {self.weight_decay}")
        if self.schedule not in ("cosine", "step"):
            raise ValueError(f"optim.schedule must be 'cosine' or 'step', got {self.schedule!r}")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"optim.layer_decay must be above 0 and at most 1, got {self.layer_decay}")
        if not 0 <= self.head_first < 1:
            raise ValueError(f"optim.head_first must be a share of training in [0, 1), got {self.head_first}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"optim.warmup must be a share of training in [0, 1), got {self.warmup}")
        if list(self.milestones) != sorted(self.milestones) or not all(0 < m < 1 for m in self.milestones):
            raise ValueError(
                f"optim.milestones must be increasing fractions of training between 0 and 1, got {self.milestones}"
            )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of the training: epochs, batch size, precision.

    Attributes:
        epochs: Number of passes over the training subset. 0: no training, for an arm whose start computes the head.
        batch_size: Samples per step.
        precision: "float32", "bfloat16" (autocast), or "auto": bfloat16 on a GPU and float32 on a CPU.
        channels_last: Whether images and convolutions have the channels-last memory layout. None: on a GPU or with
            bfloat16.
        compile: Whether to compile the backbone with ``torch.compile``.
        capture: Whether to record the training step on a GPU once, as a CUDA graph, and replay it from then on. A step
            that cannot be recorded is computed as usual, and a note says why. On a CPU this changes nothing.
        deterministic: Whether to use deterministic kernels only. They are slower on a GPU; a CPU run is deterministic
            without this setting.
        ema_decay: Decay of an exponential moving average of the weights, which is then the model that is evaluated.
            None: no average.
        mixing: How the images of a batch are mixed, such as ``Mixup(1.0)`` or ``CutMix(1.0, until=0.8)``. None: not.
        patience: Early stopping: end the training when balanced accuracy on the hold-out has not improved for so many
            epochs, and use the weights of its best epoch. A final run, which has no hold-out, ends at the best epoch of
            its hold-out run. None: train all epochs and use the last one.
        checkpoint_seconds: Smallest time between two checkpoints, in seconds. They are written at the end of an epoch.

    Raises:
        ValueError: If a value is out of its range.
    """

    epochs: int = 30
    batch_size: int = 64
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    channels_last: bool | None = None
    compile: bool = False
    capture: bool = True
    deterministic: bool = False
    ema_decay: float | None = None
    mixing: Mixup | CutMix | None = None
    patience: int | None = None
    checkpoint_seconds: float = 20.0

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise ValueError(f"training.epochs must not be negative, got {self.epochs}")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"training.patience is a number of epochs and must be at least 1, got {self.patience}")
        if self.batch_size < 2:
            raise ValueError(f"training.batch_size must be at least 2, for batch normalization, got {self.batch_size}")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"training.precision must be 'auto', 'float32' or 'bfloat16', got {self.precision!r}")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"training.ema_decay must be in (0, 1), got {self.ema_decay}")

    def dtype_on(self, device: torch.device) -> torch.dtype:
        """Return the dtype in which the backbone computes on a device."""
        if self.precision == "auto":
            return torch.bfloat16 if device.type == "cuda" else torch.float32
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32

    def layout_on(self, device: torch.device) -> torch.memory_format:
        """Return the memory layout of images on a device."""
        channels_last = self.channels_last
        if channels_last is None:
            channels_last = device.type == "cuda" or self.dtype_on(device) is torch.bfloat16
        return torch.channels_last if channels_last else torch.contiguous_format

    def place(self, model: nn.Module, device: torch.device) -> None:
        """Move a model to a device, in the memory layout of the images there."""
        model.to(device=device, memory_format=self.layout_on(device))  # type: ignore[call-overload]
