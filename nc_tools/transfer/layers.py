"""What the layers of a model make of a set: features of each, by forward hooks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from nc_tools._support.suggestions import did_you_mean
from nc_tools.records import Batch
from nc_tools.surgery.trace import eval_mode
from nc_tools.training.loop import autocast

FEATURES = "features"
"""The name of what the backbone itself gives."""


def candidate_layers(backbone: nn.Module) -> tuple[str, ...]:
    """Return the names of a backbone's layers or blocks that hold weights, in their order.

    The children of the first module, from the top, that has more than one with weights: convolutions of a plain
    network, blocks or stages of a residual one. Normalizations, which have no weight matrix, belong to what comes
    before them.

    Example:
        >>> from nc_tools.models import ConvNet
        >>> candidate_layers(ConvNet(1, 8))
        ('layers.0', 'layers.3', 'layers.6')
    """
    module, path = backbone, ""
    while True:
        having = [
            (name, child) for name, child in module.named_children() if any(p.ndim >= 2 for p in child.parameters())
        ]
        if len(having) != 1:
            return tuple(f"{path}{name}" for name, _ in having)
        name, child = having[0]
        if not any(any(p.ndim >= 2 for p in inner.parameters()) for inner in child.children()):
            return (f"{path}{name}",)
        module, path = child, f"{path}{name}."


def layer_features(
    backbone: nn.Module,
    batches: Iterable[Batch],
    layers: Sequence[str] | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> tuple[dict[str, Tensor], Tensor]:
    """Run a backbone in eval mode over a set, once, and keep the features of several of its layers.

    A map (N, C, H, W) is averaged over its pixels and a sequence (N, T, C) over its tokens. The output of a layer that
    is called several times is that of its last call.

    Args:
        backbone: Images to features (N, D).
        batches: The set, in its own order and not augmented.
        layers: Names as in ``named_modules``; None for :func:`candidate_layers`.
        dtype: Arithmetic of the backbone, as in training.

    Returns:
        Features (N, C) by layer, float32, and last, under "features", what the backbone gives; and the labels (N,).

    Raises:
        ValueError: If there is no such layer (the nearest names are offered), a layer is never called or gives no
            tensor with a feature dimension, or there is no batch.

    Example:
        >>> from nc_tools.models import ConvNet
        >>> batch = Batch(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]), torch.arange(2))
        >>> {name: tuple(values.shape) for name, values in layer_features(ConvNet(1, 8), [batch])[0].items()}
        {'layers.0': (2, 16), 'layers.3': (2, 32), 'layers.6': (2, 64), 'features': (2, 64)}
    """
    names = candidate_layers(backbone) if layers is None else tuple(layers)
    found: dict[str, list[Tensor]] = {name: [] for name in (*names, FEATURES)}
    labels = []
    with eval_mode(backbone), torch.no_grad():
        for batch in batches:
            with autocast(batch.inputs.device, dtype), caught(backbone, names) as seen:
                features = backbone(batch.inputs)
            for name in names:
                found[name].append(seen[name].float())
            found[FEATURES].append(features.float())
            labels.append(batch.labels)
    if not labels:
        raise ValueError("a set to look at needs at least one sample, got none")
    return {name: torch.cat(parts) for name, parts in found.items()}, torch.cat(labels)


@contextmanager
def caught(backbone: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Collect what these layers give, pooled to (N, C), while the backbone runs inside.

    Pooled at once: what comes next may write into a layer's output.

    Raises:
        ValueError: If there is no such layer, or at the end one of them was not called.
    """
    check_layers(backbone, layers)
    seen: dict[str, Tensor] = {}

    def keeper(name: str) -> RemovableHandle:
        def keep(_module: nn.Module, _inputs: object, output: object) -> None:
            seen[name] = pooled(output, name)

        return backbone.get_submodule(name).register_forward_hook(keep)

    handles = [keeper(name) for name in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
    if missing := [name for name in layers if name not in seen]:
        raise ValueError(f"the layer {missing[0]!r} is never called by {type(backbone).__name__}: choose another")


def check_layers(backbone: nn.Module, layers: Sequence[str]) -> None:
    """Refuse the name of a layer that is not there.

    Raises:
        ValueError: Offering the nearest names, and those of the layers that hold weights.

    Example:
        >>> check_layers(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), ["1"])
    """
    known = {name for name, _ in backbone.named_modules() if name}
    for name in layers:
        if name not in known:
            told = ", ".join(candidate_layers(backbone)[:8])
            raise ValueError(f"there is no layer {name!r}; {did_you_mean(name, known)} (layers with weights: {told})")


def pooled(output: object, name: str = "a layer") -> Tensor:
    """Return features (N, C) of what a layer gives: averaged over pixels or tokens.

    Example:
        >>> pooled(torch.ones(2, 3, 4, 4)).shape, pooled(torch.ones(2, 5, 3)).shape
        (torch.Size([2, 3]), torch.Size([2, 3]))
    """
    first = output[0] if isinstance(output, tuple | list) and output else output
    if isinstance(first, Tensor) and first.is_floating_point() and 2 <= first.ndim <= 4:
        # A copy of what needs no averaging: an activation after it may write in place.
        return first.clone() if first.ndim == 2 else first.mean((2, 3) if first.ndim == 4 else 1)
    shape = tuple(first.shape) if isinstance(first, Tensor) else type(first).__name__
    raise ValueError(f"{name} must give (N, C), (N, T, C) or (N, C, H, W) to be looked at, got {shape}")
