"""Choose which layers of a model to read when the user names none."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from nc_tools.surgery.example_inputs import Example
from nc_tools.surgery.layers import candidate_layers


def default_layers(model: nn.Module, example: Example, head: str, *, least: int = 6, most: int = 16) -> list[str]:
    """Return the stages of a model, from the first to the one before the head.

    Containers are opened level by level until there are at least ``least`` stages. If there are more than ``most``, an
    evenly spaced subset that includes the first and the last is returned.

    Args:
        model: Any model.
        example: An input with about two samples.
        head: Dotted path of the head, which is left out.
        least: Open further containers below this number of stages.
        most: Return at most this many.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), nn.Linear(3, 2))
        >>> default_layers(model, torch.zeros(2, 4), "1")
        ['0.0', '0.1']
    """
    names = list(candidate_layers(model, example))
    stages: list[str] = []
    for depth in range(1, 1 + max((name.count(".") + 1 for name in names), default=0)):
        stages = [name for name in names if _is_stage(name, names, depth) and not _contains_or_within(name, head)]
        if len(stages) >= least:
            break
    if len(stages) > most:
        step = (len(stages) - 1) / (most - 1)
        stages = [stages[round(step * place)] for place in range(most)]
    return stages


def backbone_blocks(backbone: nn.Module) -> tuple[str, ...]:
    """Return the names of a backbone's top-level layers or blocks that hold weight matrices, in their order.

    These are the children of the first module, from the top, that has more than one child with weights: the
    convolutions of a plain network, the blocks or stages of a residual one. Normalization layers have no weight matrix
    and are not listed.

    Example:
        >>> from nc_tools.models import ConvNet
        >>> backbone_blocks(ConvNet(1, 8))
        ('layers.0', 'layers.3', 'layers.6')
    """
    module, path = backbone, ""
    while True:
        blocks = [(name, child) for name, child in module.named_children() if _has_weights(child)]
        if len(blocks) != 1:
            return tuple(f"{path}{name}" for name, _ in blocks)
        name, child = blocks[0]
        if not any(_has_weights(inner) for inner in child.children()):
            return (f"{path}{name}",)
        module, path = child, f"{path}{name}."


def _has_weights(module: nn.Module) -> bool:
    return any(parameter.ndim >= 2 for parameter in module.parameters())


def _is_stage(name: str, names: Sequence[str], depth: int) -> bool:
    """Return True if a layer lies at this depth, or above it with nothing inside it."""
    level = name.count(".") + 1
    return level == depth or (level < depth and not any(other.startswith(f"{name}.") for other in names))


def _contains_or_within(name: str, head: str) -> bool:
    return name == head or head.startswith(f"{name}.") or name.startswith(f"{head}.")
