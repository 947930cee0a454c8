"""A head whose classes are spread over several processes, for 100,000 classes and more."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_module, distribute_tensor
from torch.distributed.tensor.parallel import ParallelStyle

from nc_tools.heads.linear import CosineHead, LinearHead


class ClassParallel(ParallelStyle):
    """Spread the class vectors of a ``LinearHead`` or ``CosineHead`` over the processes of a mesh.

    Use it like PyTorch's own styles: every process has the same features, computes the logits of its share of the
    classes, and gets the logits of all. For the other layers of a tensor-parallel model use PyTorch's styles. A
    :class:`~nc_tools.heads.StructuredETFHead` stores no class vectors; its ``projection``, an ``nn.Linear``, takes
    ``ColwiseParallel(output_layouts=Replicate())``::

        parallelize_module(model, mesh, {"fc": ClassParallel()})
        parallelize_module(model, mesh, {"fc.projection": ColwiseParallel(output_layouts=Replicate())})

    The logits (N, K) are whole in each process; the class vectors, their gradients and their optimizer state are not.

    Raises:
        TypeError: If the module is another head: a fixed frame has no gradients to spread.
    """

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        if not isinstance(module, LinearHead | CosineHead):
            raise TypeError(
                f"ClassParallel spreads learned class vectors, of LinearHead or CosineHead, got "
                f"{type(module).__name__}: for many classes use StructuredETFHead, which stores none, and shard its "
                f"projection with ColwiseParallel"
            )
        # The stub says that these functions return nothing; what they return replaces inputs and outputs.
        return distribute_module(module, device_mesh, _spread, _replicated, _gathered)  # type: ignore[arg-type]


def _spread(name: str, module: nn.Module, mesh: DeviceMesh) -> None:
    """Replace the parameters of the head by shards over the classes; a scale stays whole."""
    for key, parameter in list(module._parameters.items()):
        if parameter is not None and not name:
            spread = distribute_tensor(parameter.detach(), mesh, [Shard(0)])
            module.register_parameter(key, nn.Parameter(spread, requires_grad=parameter.requires_grad))


def _replicated(_module: nn.Module, inputs: tuple[Any, ...], mesh: DeviceMesh) -> tuple[Any, ...]:
    """Return the inputs, which are the same in every process, as distributed tensors."""
    return tuple(DTensor.from_local(part, mesh, [Replicate()], run_check=False) for part in inputs)


def _gathered(_module: nn.Module, outputs: Any, _mesh: DeviceMesh) -> Tensor:
    """Return the logits of all classes (N, K) as a plain tensor."""
    logits: Tensor = outputs.redistribute(placements=[Replicate()]).to_local()
    return logits
