"""A frozen backbone with one trainable layer and a skip connection from that layer to the features."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from nc_tools.surgery.layers import Pool, captured_features, check_layers, features_of, layer_pools


class SkipBackbone(nn.Module):
    """Add the pooled features of one trainable layer to those of a frozen backbone.

    It returns features(x) + pool(layer(x)), the narrower of the two padded with zeros. Everything but the layer stays
    in eval mode, so that batch statistics do not change either.

    Args:
        backbone: Changed in place: only the layer keeps ``requires_grad``.
        layer: Dotted name of the trainable layer.

    Raises:
        ValueError: If there is no such layer.

    Example:
        >>> import torch
        >>> from nc_tools.models import ConvNet
        >>> SkipBackbone(ConvNet(1, 8), "layers.6")(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 64])
    """

    def __init__(self, backbone: nn.Module, layer: str) -> None:
        super().__init__()
        check_layers(backbone, (layer,))
        self.backbone = backbone.requires_grad_(False)
        self.layer = layer
        self._pools: dict[str, Pool] | None = None
        backbone.get_submodule(layer).requires_grad_()

    def train(self, mode: bool = True) -> SkipBackbone:  # noqa: FBT001, FBT002 (PyTorch's own signature)
        """Set the trainable layer to training or eval mode; everything else stays in eval mode."""
        super().train(False)
        self.training = mode
        self.backbone.get_submodule(self.layer).train(mode)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Map images to features (N, max(D, C)), D the width of the backbone and C that of the layer."""
        if self._pools is None:  # the first pass finds the layer's channel axis
            self._pools = layer_pools(self.backbone, images[:2], (self.layer,))
        with captured_features(self.backbone, self._pools) as calls:
            features: Tensor = self.backbone(images)
        skipped = features_of(self.layer, calls[self.layer][-1:], len(images))
        width = max(features.shape[1], skipped.shape[1])
        return F.pad(features, (0, width - features.shape[1])) + F.pad(skipped, (0, width - skipped.shape[1]))
