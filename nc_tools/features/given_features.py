"""The backbone of features that are given: it returns them as they are."""

from __future__ import annotations

from torch import Tensor, nn


class GivenFeatures(nn.Module):
    """The backbone of embeddings, which another program computed: features (N, D) in, the same features out.

    A record describes D features as an image of D channels and one pixel, (N, D, 1, 1); those are accepted too.

    Example:
        >>> import torch
        >>> GivenFeatures()(torch.ones(2, 3, 1, 1)).shape
        torch.Size([2, 3])
    """

    def forward(self, features: Tensor) -> Tensor:
        """Return the features (N, D)."""
        return features.flatten(1)
