"""Divide the layers of a backbone into groups from input to output, for rates by depth and for partial training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from torch import nn

from nc_tools.surgery.layer_choice import backbone_blocks

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def layer_groups(backbone: nn.Module) -> list[list[str]]:
    """Return the names of a backbone's parameters in groups, from the input to the output.

    A group is a block of the network, such as a residual or a transformer block. What comes before the first block is
    the first group: the stem, the embedding of patches, positions. A normalization layer belongs to the block before
    it. A network without repeated blocks is divided at its layers with weights, see
    :func:`~nc_tools.surgery.backbone_blocks`.

    Blocks are found by structure: the entries of a ``Sequential`` or ``ModuleList`` of which at least two are of one
    class with layers inside. The order is that in which the modules are defined.

    Args:
        backbone: Images to features, or any other module.

    Example:
        >>> block = lambda: nn.TransformerEncoderLayer(4, 2, 8)
        >>> net = nn.Sequential(nn.Linear(3, 4), nn.Sequential(block(), block()), nn.LayerNorm(4))
        >>> [(group[0], len(group)) for group in layer_groups(net)]
        [('0.weight', 2), ('1.0.self_attn.in_proj_weight', 12), ('1.1.self_attn.in_proj_weight', 14)]
    """
    parts = list(_parts(backbone, "")) if _holds_stack(backbone) else list(_plain_parts(backbone))
    groups: list[list[str]] = []
    complete = True  # whether the last group holds a layer with weights, and not only such as the class token
    for is_block, names in parts:
        has_weights = is_block and any(backbone.get_parameter(name).ndim >= 2 for name in names)
        if not groups or (has_weights and complete):
            groups.append([])
            complete = False
        groups[-1] += names
        complete = complete or has_weights
    return groups


def _parts(module: nn.Module, path: str) -> Iterator[tuple[bool, list[str]]]:
    """Yield the parameters of a module and its layers in order: whether they may start a group, and their names."""
    if own := [f"{path}{name}" for name, _ in module.named_parameters(recurse=False)]:
        yield False, own
    for name, child in module.named_children():
        if not _parameters(child):
            continue
        if _holds_stack(child):
            yield from _parts(child, f"{path}{name}.")
        else:
            yield True, [f"{path}{name}.{inner}" for inner in _parameters(child)]


def _plain_parts(backbone: nn.Module) -> Iterator[tuple[bool, list[str]]]:
    blocks = backbone_blocks(backbone)
    names = _parameters(backbone)
    for name in names:
        block = next((block for block in blocks if name.startswith(f"{block}.")), None)
        first = block is not None and name == next(n for n in names if n.startswith(f"{block}."))
        yield first, [name]


def _holds_stack(module: nn.Module) -> bool:
    return any(_is_stack(part) for part in module.modules())


def _is_stack(module: nn.Module) -> bool:
    """Return True for a container in which at least two entries are blocks of one class."""
    if not isinstance(module, _CONTAINERS):
        return False
    blocks = [
        type(child)
        for child in module.children()
        if not isinstance(child, _CONTAINERS) and _parameters(child) and any(True for _ in child.children())
    ]
    return any(count >= 2 for count in Counter(blocks).values())


def _parameters(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_parameters()]
