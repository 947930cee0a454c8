"""What a loss on watched features needs in a model that FSDP shards.

``fully_shard`` gathers the parameters of a group before its forward pass and before the gradients of its outputs. A
loss on features has no gradient for the outputs of the whole model, so that the gradients of the outermost group would
stay on their process, not reduced. And the class vectors of the head are shards again when the loss reads them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nc_tools.surgery.trace import tensors_in


def is_sharded(model: nn.Module) -> bool:
    """Return True if ``fully_shard`` was applied to a module of the model.

    Raises:
        ValueError: If the model is wrapped by FullyShardedDataParallel, which reduces only gradients of losses on the
            returned logits.
    """
    if torch.compiler.is_compiling() or not (dist.is_available() and dist.is_initialized()):
        return False
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
    from torch.distributed.fsdp._flat_param import FlatParameter

    wrapped = any(isinstance(module, FullyShardedDataParallel) for module in model.modules())
    flattened = any(isinstance(p, FlatParameter) or hasattr(p, "_fsdp_flattened") for p in model.parameters())
    if wrapped or flattened:
        raise ValueError(
            "a watched model must not be wrapped by FullyShardedDataParallel, which does not reduce the gradients of a "
            "loss on features: use torch.distributed.fsdp.fully_shard"
        )
    return any(isinstance(module, FSDPModule) for module in model.modules())


def gather(model: nn.Module, head: nn.Module) -> None:
    """Gather the parameters of the group that holds the head, if they are shards now."""
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor

    if any(isinstance(parameter, DTensor) for parameter in head.parameters()):
        groups = [m for m in model.modules() if isinstance(m, FSDPModule) and any(part is head for part in m.modules())]
        if groups:
            groups[-1].unshard()  # modules() yields the outermost first


def tied(tensor: Tensor, outputs: Any) -> Tensor:
    """Return the same values as ``tensor``, connected to the model's outputs by a gradient of 0.

    So the backward pass reaches every output, where hooks wait that gather or release sharded weights.
    """
    for output in tensors_in(outputs):
        if output.requires_grad:
            tensor = tensor + output.flatten()[:0].sum().to(tensor)
    return tensor
