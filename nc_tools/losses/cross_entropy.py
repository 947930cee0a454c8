"""Cross-entropy."""

from torch import Tensor, nn

from nc_tools.losses.base import LossTerm, at_least_float32
from nc_tools.records import Batch, Outputs


class CrossEntropy(LossTerm):
    """Softmax cross-entropy: -sum_k t_k log p_k, with t the one-hot label, smoothed if asked.

    Label smoothing mixes the label with the uniform distribution, t = (1 - a) onehot + a / K (Szegedy et al. 2016,
    section 7); it also speeds collapse, and keeps its optimum at finite norms.

    Args:
        label_smoothing: a, from 0 to below 1; .05 to .1 are usual.

    Raises:
        ValueError: If ``label_smoothing`` is outside [0, 1).

    Example:
        >>> import torch
        >>> from nc_tools.heads import LinearHead
        >>> batch = Batch(torch.zeros(2, 4), torch.tensor([0, 2]), torch.arange(2))
        >>> CrossEntropy()(LinearHead(4, 3).outputs(batch.inputs), batch).shape
        torch.Size([])
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
        self.label_smoothing = label_smoothing

    def compute(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return the mean over the batch."""
        logits = at_least_float32(outputs.logits)
        return nn.functional.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)

    def extra_repr(self) -> str:
        """Show the smoothing in the loss's printout."""
        return f"label_smoothing={self.label_smoothing}"
