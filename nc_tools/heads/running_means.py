"""Class means that follow training."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nc_tools._support.class_sums import class_sums, group_classes


class RunningClassMeans(nn.Module):
    """Exponential moving averages of the class means of embedded features, taken from training steps alone.

        m_k <- momentum m_k + (1 - momentum) mean of the step's samples of class k

    A class that is absent from a step keeps its mean; a class met for the first time takes the step's mean as it is.
    With several processes the sums of a step are those of all of them, so that every process holds the same means:
    each must then call :meth:`update` at every step. Nothing waits for the device, and no loop runs over classes.

    Args:
        num_classes: K.
        width: D', width of the embedded features.
        momentum: From 0 (the last step alone) to below 1.

    Raises:
        ValueError: If the momentum is outside [0, 1).

    Example:
        >>> running = RunningClassMeans(3, 1, momentum=0.75)
        >>> for value in (4.0, 8.0):
        ...     running.update(torch.tensor([[value], [value + 2]]), torch.tensor([0, 0]))
        >>> running.means.flatten().tolist(), running.counts.tolist()
        ([6.0, 0.0, 0.0], [4, 0, 0])
    """

    means: Tensor
    counts: Tensor

    def __init__(self, num_classes: int, width: int, momentum: float) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {momentum}: 0.9 remembers some ten steps of a class")
        self.momentum = momentum
        self.register_buffer("means", torch.zeros(num_classes, width))
        self.register_buffer("counts", torch.zeros(num_classes, dtype=torch.int64))

    @property
    def seen(self) -> Tensor:
        """Which classes have a mean (K,)."""
        return self.counts > 0

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor) -> None:
        """Take in a step's embedded features (N, D') and their labels (N,)."""
        wide = features.detach().to(torch.promote_types(features.dtype, torch.float32))
        if _several_processes():
            classes = torch.arange(len(self.means), device=labels.device)
            counts, sums = class_sums(wide, labels, len(classes))
            packed = torch.cat([sums, counts.unsqueeze(1).to(sums.dtype)], dim=1)
            dist.all_reduce(packed)
            sums, counts = packed[:, :-1], packed[:, -1].to(counts.dtype)
        else:
            # Only the classes that came are touched: O(N D), however many there are.
            group, classes = group_classes(labels, len(self.means))
            counts, sums = class_sums(wide, group, len(classes))
        # A class of the step that has no sample, which group_classes() pads with, moves nothing.
        share = torch.where(self.counts[classes] > 0, 1 - self.momentum, 1.0) * (counts > 0)
        move = sums / counts.clamp(min=1).unsqueeze(1) - self.means[classes]
        self.means.index_add_(0, classes, (share.unsqueeze(1) * move).to(self.means.dtype))
        self.counts.index_add_(0, classes, counts)

    def overall(self) -> Tensor:
        """Return the mean of the class means (D'): every class seen so far counts alike, whatever its size."""
        # A class not seen yet has a row of zeros.
        return self.means.sum(dim=0) / self.seen.sum().clamp(min=1)

    def completed(self) -> Tensor:
        """Return the class means (K, D'), with the overall mean for a class not seen yet: it pulls nowhere.

        In float64, in which the centered mean of such a class is zero and not the rounding of one.
        """
        means = self.means.to(torch.float64)
        overall = means.sum(dim=0) / self.seen.sum().clamp(min=1)
        return torch.where(self.seen.unsqueeze(1), means, overall)

    def extra_repr(self) -> str:
        """Show the momentum in the model's printout."""
        return f"momentum={self.momentum}"


def _several_processes() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


@torch.no_grad()
def agree(tensor: Tensor) -> None:
    """Give every process the tensor of the first, bit for bit; nothing happens where there is only one."""
    if _several_processes():
        dist.broadcast(tensor, src=0)
