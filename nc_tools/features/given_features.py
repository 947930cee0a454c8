"""The backbone of features that are given: it returns them as they are."""

from __future__ import annotations

from torch import Tensor, nn


class GivenFeatures(nn.Module):
    """The backbone of embeddings, which another program computed: features (N, D) in, the same features out.

    Records of runs describe every input as an image, and D features as D channels of one pixel. So the shape
    (N, D, 1, 1) is accepted too.

    Example:
        >>> import torch
        >>> GivenFeatures()(torch.ones(2, 3, 1, 1)).shape
        torch.Size([2, 3])
    """

    def forward(self, features: Tensor) -> Tensor:
        """Return the features (N, D)."""
        return features.flatten(1)
