"""How a run is trained: typed, frozen, checked when written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from nc_tools.data.mixing import CutMix, Mixup
from nc_tools.spec import Spec, spec
from nc_tools.training.sam import AsymmetricSharpnessAware, SharpnessAware


def _positive(owner: str, **values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{owner}.{name} must be positive, got {value}")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimizer and schedule.

    Attributes:
        optimizer: A ``torch.optim`` class with its own arguments; rate and decay are filled in from here. SGD couples
            weight decay with the gradient, which collapse needs; AdamW's decoupled decay prevents it.
        lr: Peak learning rate.
        head_lr_ratio: Peak rate of the head's parameters over that of the backbone's; a ratio, so that it holds for
            every rate that is tried.
        weight_decay: On weights. Scales (0-dimensional parameters) never decay.
        decay_norm_and_bias: Decay biases and normalization gains too, as much of the older literature does.
        schedule: "cosine" to zero, or "step".
        milestones: For "step": shares of training after which the rate falls.
        gamma: For "step": by what factor it falls.
        warmup: Share of training over which the rate rises linearly.
        clip_norm: Largest gradient norm; None for no clipping.
        sam: Sharpness-aware steps, such as ``SharpnessAware(0.05)``: two passes each; None: plain ones.
    """

    optimizer: Spec[Any] = field(default_factory=lambda: spec(torch.optim.SGD, momentum=0.9))
    lr: float = 0.1
    head_lr_ratio: float = 1.0
    weight_decay: float = 5e-4
    decay_norm_and_bias: bool = False
    schedule: Literal["cosine", "step"] = "cosine"
    milestones: tuple[float, ...] = (0.8, 0.9)
    gamma: float = 0.1
    warmup: float = 0.05
    clip_norm: float | None = None
    sam: SharpnessAware | AsymmetricSharpnessAware | None = field(default=None, metadata={"later": True})

    def __post_init__(self) -> None:
        _positive("optim", lr=self.lr, head_lr_ratio=self.head_lr_ratio, gamma=self.gamma)
        if self.clip_norm is not None:
            _positive("optim", clip_norm=self.clip_norm)
        if self.weight_decay < 0:
            raise ValueError(f"optim.weight_decay must not be negative, got {self.weight_decay}")
        if self.schedule not in ("cosine", "step"):
            raise ValueError(f"optim.schedule must be 'cosine' or 'step', got {self.schedule!r}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"optim.warmup is a share of training in [0, 1), got {self.warmup}")
        if list(self.milestones) != sorted(self.milestones) or not all(0 < m < 1 for m in self.milestones):
            raise ValueError(f"optim.milestones are rising shares of training in (0, 1), got {self.milestones}")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Length, batches, arithmetic.

    Attributes:
        epochs: Passes over the training subset.
        batch_size: Samples in a step.
        precision: "float32"; "bfloat16" for autocast; "auto" is bfloat16 on a GPU and float32 on a CPU.
        channels_last: Memory layout of images and convolutions; None: on a GPU, or with bfloat16.
        compile: Compile the forward pass with torch.compile.
        deterministic: Ask PyTorch for deterministic kernels (slower on a GPU; a CPU run is deterministic anyway).
        ema_decay: Keep an exponential moving average of the weights with this decay, and evaluate that; None: off.
        mixing: Mix the images of a batch, such as ``Mixup(1.0)`` or ``CutMix(1.0, until=0.8)``; None: pure batches.
        checkpoint_seconds: Least time between two checkpoints; the first epoch's end after it writes one.
    """

    epochs: int = 30
    batch_size: int = 64
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    channels_last: bool | None = None
    compile: bool = False
    deterministic: bool = False
    ema_decay: float | None = None
    mixing: Mixup | CutMix | None = field(default=None, metadata={"later": True})
    checkpoint_seconds: float = 20.0

    def __post_init__(self) -> None:
        _positive("training", epochs=self.epochs)
        if self.batch_size < 2:
            raise ValueError(f"training.batch_size must be at least 2 (batch normalization), got {self.batch_size}")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"training.precision must be 'auto', 'float32' or 'bfloat16', got {self.precision!r}")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"training.ema_decay must lie in (0, 1), got {self.ema_decay}")

    def dtype_on(self, device: torch.device) -> torch.dtype:
        """Return the dtype of the backbone's arithmetic on this device."""
        if self.precision == "auto":
            return torch.bfloat16 if device.type == "cuda" else torch.float32
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32

    def layout_on(self, device: torch.device) -> torch.memory_format:
        """Return the memory layout of images on this device."""
        wanted = self.channels_last
        if wanted is None:
            wanted = device.type == "cuda" or self.dtype_on(device) is torch.bfloat16
        return torch.channels_last if wanted else torch.contiguous_format

    def place(self, model: nn.Module, device: torch.device) -> None:
        """Move a model to this device, in the layout of its images."""
        model.to(device=device, memory_format=self.layout_on(device))  # type: ignore[call-overload]
