"""A classifier: a backbone and a head in one module."""

from torch import Tensor, nn

from nc_tools.heads.head import Head
from nc_tools.records import Outputs


class Classifier(nn.Module):
    """A backbone, which maps inputs to features (N, D), and a head, which maps features to logits (N, K).

    Args:
        backbone: Inputs to features.
        head: Features to logits.

    Example:
        >>> import torch
        >>> from nc_tools.heads import LinearHead
        >>> Classifier(nn.Flatten(), LinearHead(16, 3))(torch.zeros(2, 1, 4, 4)).shape
        torch.Size([2, 3])
    """

    def __init__(self, backbone: nn.Module, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits (N, K)."""
        logits: Tensor = self.head(self.backbone(inputs))
        return logits

    def outputs(self, inputs: Tensor) -> Outputs:
        """Return the outputs that losses and metrics use: features, class vectors and logits."""
        return self.head.outputs(self.backbone(inputs))
