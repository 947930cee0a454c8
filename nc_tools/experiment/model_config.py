"""The configuration of the backbone: which network, with which weights, and which part of it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from torch import nn

from nc_tools.specs import Spec
from nc_tools.training.trained_part import TrainedPart


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Configuration of the backbone, the network below the classifier head.

    A network with pretrained weights gets images as the weights expect them: its own size, crop, interpolation, mean
    and standard deviation. A network that is trained from scratch gets the images of the data at their own size.

    Attributes:
        name: A network of this package ("conv", "resnet32"), of a library ("timm:resnet50.a1_in1k",
            "torchvision:resnet50", "hf:facebook/dinov2-small", "hf:FOLDER"), or a function without arguments that
            returns a module ("package.module:function"). See :func:`nc_tools.models.load_backbone` and
            :func:`nc_tools.models.factory_name`.
        network: A spec of any module class, images (N, C, H, W) to features (N, D), instead of a name. Its arguments
            ``in_channels`` and ``image_size`` are filled in. The module may have an attribute ``preprocessing``.
        width: First width of "conv".
        weights: "pretrained" for the library's own download; a .safetensors file or a state dict saved by
            ``torch.save``; None for initial weights drawn from the seed.
        image_size: Side of the images that a pretrained network gets. None: that of its weights.
        crop_fraction: Share of the side that the center crop of a pretrained network keeps. None: that of its weights.
        train: What is trained besides the head: "all", "head" (nothing), "last:N" (the last N blocks), or "lora:R"
            (low-rank additions of rank R; needs peft).
        freeze_norm: Keep the statistics of batch normalization as the weights have them. None: for pretrained weights
            on fewer than 20,000 training images.
        lora_layers: Last parts of the names of the layers with additions. Empty: the projections of attention.
        standardize: Shift and scale the features of a backbone that is not trained, so that each dimension has mean
            zero and variance one over the training samples. The same learning rates then suit all backbones, and heads
            that normalize features as well as those that do not.

    Raises:
        ValueError: If values contradict each other.
    """

    name: str = "conv"
    network: Spec[nn.Module] | None = None
    width: int = 16
    weights: str | None = None
    image_size: int | None = None
    crop_fraction: float | None = None
    train: str = "all"
    freeze_norm: bool | None = None
    lora_layers: tuple[str, ...] = ()
    standardize: bool = False

    ADVICE: ClassVar[Mapping[str, str]] = {
        "pretrained": "write --weights pretrained, or model.weights=pretrained",
        "checkpoint": "write --weights FILE.safetensors, or model.weights=FILE.safetensors",
        "freeze": "write --train head, or model.train=head",
        "num_classes": "it is that of the data",
    }
    """What to write instead of fields that other tools have."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"model.width must be positive, got {self.width}")
        TrainedPart.parse(self.train)
        if self.weights == "":
            raise ValueError("model.weights must be 'pretrained', a file or None, got ''")
        for field in ("image_size", "crop_fraction"):
            if getattr(self, field) is not None and not (self.is_pretrained or self.is_own):
                raise ValueError(
                    f"model.{field} is for pretrained networks, got {getattr(self, field)} for {self.name!r} without "
                    f"weights: set data.image_size, or give model.weights"
                )
        if self.image_size is not None and self.image_size < 2:
            raise ValueError(f"model.image_size is a side in pixels and must be at least 2, got {self.image_size}")
        if self.crop_fraction is not None and not 0 < self.crop_fraction <= 1:
            raise ValueError(f"model.crop_fraction must be above 0 and at most 1, got {self.crop_fraction}")
        if self.train != "all" and self.weights is None and not self.is_own:
            raise ValueError(
                f"model.train={self.train} keeps layers as they are, but {self.name!r} has random weights: give "
                f"model.weights (--weights pretrained, or --weights FILE.safetensors)"
            )

        if self.standardize and self.train != "head":
            raise ValueError(
                f"model.standardize is for a backbone that is not trained, whose features do not change, got "
                f"model.train={self.train}: set model.train=head, or model.standardize=false"
            )

    @property
    def is_own(self) -> bool:
        """Whether the network is a class or a function of the user."""
        library, colon, _ = self.name.partition(":")
        return self.network is not None or (bool(colon) and library not in ("timm", "torchvision", "hf"))

    @property
    def is_pretrained(self) -> bool:
        """Whether images are prepared as the network's library says: with weights, or for any ``hf:`` network."""
        return not self.is_own and (self.weights is not None or self.name.startswith("hf:"))

    @property
    def weights_source(self) -> Path | Literal["pretrained"] | None:
        """The weights as :func:`nc_tools.models.load_backbone` takes them."""
        return self.weights if self.weights is None or self.weights == "pretrained" else Path(self.weights)  # type: ignore[return-value]
