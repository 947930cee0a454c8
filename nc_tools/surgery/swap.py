"""Take the head off a model that already exists, or put another in its place."""

from __future__ import annotations

import torch
from torch import nn

from nc_tools.heads.head import Head
from nc_tools.spec import Spec
from nc_tools.surgery.example_inputs import Example
from nc_tools.surgery.find_head import find
from nc_tools.surgery.head_layers import input_width, output_width
from nc_tools.surgery.num_classes import set_num_classes
from nc_tools.surgery.trace import trace


def split_head(
    model: nn.Module, *, example: Example | None = None, name: str | None = None
) -> tuple[nn.Module, nn.Module]:
    """Take the head off a model, in place; return (backbone, head).

    The backbone is the same object, with ``nn.Identity`` where the head was: it now returns features (N, D).

    Args:
        model: Any classifier; changed in place.
        example: As for :func:`~nc_tools.heads.find_head`.
        name: As for :func:`~nc_tools.heads.find_head`.

    Raises:
        ValueError: If the head cannot be told; the candidates are named.

    Example:
        >>> backbone, head = split_head(nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3)))
        >>> backbone(torch.zeros(2, 8)).shape, head
        (torch.Size([2, 4]), Linear(in_features=4, out_features=3, bias=True))
    """
    found = find(model, example, name)
    _replace(model, found.module, nn.Identity())
    return model, found.module


def swap_head(
    model: nn.Module,
    head: type[Head] | Spec[Head],
    *,
    num_classes: int | None = None,
    example: Example | None = None,
    name: str | None = None,
    generator: torch.Generator | None = None,
) -> Head:
    """Put another head on a model, in place, and return it; the training loop stays as it is.

    The new head takes the old one's width, number of classes, device and dtype, which are those of the features. The
    model is run once more to see that the new head's output is what comes out (not where ``name`` says which layer it
    is); whatever goes wrong, the old head is back in its place. Where K changes, what the model says of itself changes
    with it: ``num_classes`` in timm, ``num_labels`` and ``config.num_labels`` in Hugging Face.

    Swap before the optimizer takes the parameters and before DDP or ``torch.compile`` wraps the model. Logits are at
    least float32, in a bfloat16 model too.

    Args:
        model: Any classifier with one linear output layer; changed in place.
        head: ``ETFHead``, or ``spec(ETFHead, scale=8.0)``.
        num_classes: K; None keeps the old head's.
        example: As for :func:`~nc_tools.heads.find_head`.
        name: As for :func:`~nc_tools.heads.find_head`.
        generator: Draws what the new head learns.

    Raises:
        ValueError: If the head cannot be told, is a convolution, shares its weight with an embedding, or the geometry
            does not exist for these sizes; or if the model is already wrapped or compiled.
        TypeError: If ``head`` is neither a head class nor a spec of one.

    Example:
        >>> from nc_tools.heads import ETFHead
        >>> from nc_tools.spec import spec
        >>> model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3))
        >>> _ = swap_head(model, spec(ETFHead, scale=8.0))
        >>> nn.functional.cross_entropy(model(torch.randn(2, 8)), torch.tensor([0, 2])).shape
        torch.Size([])
    """
    wanted = head if isinstance(head, Spec) else Spec(head)
    if not (isinstance(wanted.cls, type) and issubclass(wanted.cls, Head)):
        raise TypeError(f"swap_head puts on a Head, got {head!r}: write swap_head(model, ETFHead)")
    old = find(model, example, name)
    before = output_width(old.module)
    classes = before if num_classes is None else num_classes
    new = wanted.build({"feature_dim": input_width(old.module), "num_classes": classes, "generator": generator})
    like = next(iter([*old.module.parameters(), *old.module.buffers()]))
    new.to(device=like.device, dtype=like.dtype).train(old.module.training)
    _replace(model, old.module, new)
    take_back = set_num_classes(model, old.name, before, classes)
    if old.example is not None:
        try:
            _check_in_place(model, new, old.name, old.example)
        except BaseException:
            take_back()
            _replace(model, new, old.module)
            raise
    return new


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put ``new`` wherever ``old`` is: a model may hold its head under two names."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is old:
                setattr(parent, name, new)


def _check_in_place(model: nn.Module, new: Head, name: str, example: Example) -> None:
    if not any(call.module is new for call in trace(model, example).heads()):
        raise ValueError(
            f"the model's logits must come from its head, but what the new one at {name!r} returns is not what comes "
            f"out, as in a model that reads the old one's weight itself: call the layer in forward, or give name="
        )
