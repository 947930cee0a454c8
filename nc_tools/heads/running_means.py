"""Running class means of embedded features."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from nc_tools._support.class_sums import class_sums, group_classes
from nc_tools._support.initial_tensors import InitialTensors


class RunningClassMeans(InitialTensors):
    """Exponential moving averages of the class means of embedded features, from training steps only.

        m_k <- momentum m_k + (1 - momentum) mean of the step's samples of class k

    A class without samples in a step keeps its mean; the first mean of a class is that of the first step with samples.
    With several processes, the sums of a step are added over all of them, so every process has the same means; each
    must call :meth:`update` at every step. Nothing waits for the device, and no loop runs over classes.

    Args:
        num_classes: K.
        width: D', the width of the embedded features.
        momentum: In [0, 1); 0 uses the last step only.

    Raises:
        ValueError: If the momentum is outside [0, 1).

    Example:
        >>> running = RunningClassMeans(3, 1, momentum=0.75)
        >>> for value in (4.0, 8.0):
        ...     running.update(torch.tensor([[value], [value + 2]]), torch.tensor([0, 0]))
        >>> running.means.flatten().tolist(), running.observed.tolist()
        ([6.0, 0.0, 0.0], [1.0, 0.0, 0.0])
    """

    means: Tensor
    observed: Tensor

    def __init__(self, num_classes: int, width: int, momentum: float) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise ValueError(
                f"momentum must lie in [0, 1), got {momentum}: try 0.9, which averages over about ten steps"
            )
        self.momentum = momentum
        self.register_buffer("means", torch.zeros(num_classes, width))
        # 1 for a class that has a mean. A float and not a bool or a count, so that averages of weights and conversions
        # of the dtype treat it like any other tensor.
        self.register_buffer("observed", torch.zeros(num_classes))

    @property
    def has_mean(self) -> Tensor:
        """A bool tensor (K,): True for each class that has had samples, and so has a mean."""
        return self.observed > 0

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return the means (K, D') and which classes have one (K,), bool.

        Logits read the means through this call, so that the hooks of offloading first load the buffers into memory.
        """
        return self.means, self.has_mean

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor) -> None:
        """Update the means with the embedded features (N, D') of a step and their labels (N,)."""
        wide = features.detach().to(torch.promote_types(features.dtype, torch.float32))
        if _several_processes():
            classes = torch.arange(len(self.means), device=labels.device)
            counts, sums = class_sums(wide, labels, len(classes))
            packed = torch.cat([sums, counts.unsqueeze(1).to(sums.dtype)], dim=1)
            dist.all_reduce(packed)
            sums, counts = packed[:, :-1], packed[:, -1].to(counts.dtype)
        else:
            # Only the classes in this step are updated: O(N D), for any number of classes.
            group, classes = group_classes(labels, len(self.means))
            counts, sums = class_sums(wide, group, len(classes))
        # group_classes() pads with classes that have no sample; their weight is zero.
        old, present = self.observed[classes] > 0, counts > 0
        share = torch.where(old, 1 - self.momentum, 1.0) * present
        move = sums / counts.clamp(min=1).unsqueeze(1) - self.means[classes]
        self.means.index_add_(0, classes, (share.unsqueeze(1) * move).to(self.means.dtype))
        self.observed.index_add_(0, classes, (present & ~old).to(self.observed.dtype))

    def overall(self) -> Tensor:
        """Return the mean (D',) of the class means, with equal weights for all classes that have one."""
        means, has_mean = self()
        # A class without samples has a row of zeros.
        overall: Tensor = means.sum(dim=0) / has_mean.sum().clamp(min=1)
        return overall

    def completed(self) -> Tensor:
        """Return the class means (K, D'), with the overall mean for classes without samples.

        In float64, so that the centered mean of such a class is exactly zero.
        """
        means = self.means.to(torch.float64)
        overall = means.sum(dim=0) / self.has_mean.sum().clamp(min=1)
        return torch.where(self.has_mean.unsqueeze(1), means, overall)

    def initial_buffers(self) -> dict[str, Tensor]:
        """Return zeros: no class has a mean."""
        return {name: torch.zeros(buffer.shape, device="cpu") for name, buffer in self.named_buffers()}

    def extra_repr(self) -> str:
        """Return the momentum for ``print(model)``."""
        return f"momentum={self.momentum}"


def from_former_means(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a head's part of a checkpoint of version 0.2, which counted the samples of each class, as it is now."""
    state = dict(state)
    if (counts := state.pop("class_means.counts", None)) is not None:
        state["class_means.observed"] = (counts > 0).to(state["class_means.means"].dtype)
    return state


def _several_processes() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


@torch.no_grad()
def broadcast_from_first(tensor: Tensor) -> None:
    """Copy the tensor of the first process to all others, in place; with one process, do nothing."""
    if _several_processes():
        dist.broadcast(tensor, src=0)
