"""Replacing the head of a model, or splitting it off."""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import nn

from nc_tools.heads.head import Head
from nc_tools.heads.linear import LinearHead
from nc_tools.heads.pixel_head import PixelHead
from nc_tools.specs import Spec
from nc_tools.surgery import errors
from nc_tools.surgery.example_inputs import Example
from nc_tools.surgery.find_head import find
from nc_tools.surgery.hf_saving import guard_saving
from nc_tools.surgery.num_classes import set_num_classes
from nc_tools.surgery.trace import trace


def split_head(
    model: nn.Module, *, example: Example | None = None, name: str | None = None
) -> tuple[nn.Module, nn.Module]:
    """Remove the head of a model, in place; return (backbone, head).

    The backbone is the same object, with ``nn.Identity`` in place of the head: it now returns features (N, D).

    Args:
        model: Any classifier; changed in place.
        example: As for :func:`~nc_tools.surgery.find_head`.
        name: As for :func:`~nc_tools.surgery.find_head`.

    Raises:
        ValueError: If the head cannot be found or removed; the message names a fix.

    Example:
        >>> backbone, head = split_head(nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3)))
        >>> backbone(torch.zeros(2, 8)).shape, head
        (torch.Size([2, 4]), Linear(in_features=4, out_features=3, bias=True))
    """
    head = find(model, example, name).module
    _replace(model, head, nn.Identity())
    return model, head


def swap_head(
    model: nn.Module,
    head: type[Head] | Spec[Head],
    *,
    num_classes: int | None = None,
    example: Example | None = None,
    name: str | None = None,
    generator: torch.Generator | None = None,
) -> Head:
    """Replace the head of a model, in place, and return the new head; your training loop does not change.

    The new head gets the width, number of classes, device and dtype of the old one. The model is then run once to check
    that its logits are the new head's output (not if ``name`` is given). If anything fails, the old head is restored.
    If K changes, the model's own settings change too: ``num_classes`` in timm, ``num_labels`` and ``config.num_labels``
    in Hugging Face.

    A 1 x 1 convolution over a map, the head of a segmentation network, becomes a
    :class:`~nc_tools.heads.PixelHead` with the new head inside: every pixel is then a sample. The output layer of a
    language model that shares its weight with the embedding takes a ``LinearHead`` only, which keeps that weight.

    ``save_pretrained`` of a Hugging Face model then raises an error, unless the model's class swaps the head itself:
    ``from_pretrained`` of any other class would put a random linear layer in its place.

    Call it before you build the optimizer, and before DDP or ``torch.compile`` wraps the model. Logits are at least
    float32, in a bfloat16 model too.

    Args:
        model: Any classifier; its head is a linear layer, a 1 x 1 convolution, a head of nc_tools, or a layer of your
            own with a matrix, such as a cosine layer. Changed in place.
        head: A head class, or a spec with arguments: ``ETFHead``, or ``spec(ETFHead, scale=8.0)``.
        num_classes: K; None keeps that of the old head.
        example: As for :func:`~nc_tools.surgery.find_head`.
        name: As for :func:`~nc_tools.surgery.find_head`.
        generator: Draws the initial weights of the new head; the global one if None.

    Raises:
        ValueError: If the head cannot be found, or shares its weight with an embedding that the new one cannot keep; if
            the geometry does not exist for these sizes; or if the model is wrapped or compiled.
        TypeError: If ``head`` is neither a head class nor a spec of one.

    Example:
        >>> from nc_tools.heads import ETFHead
        >>> from nc_tools.specs import spec
        >>> model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3))
        >>> _ = swap_head(model, spec(ETFHead, scale=8.0))
        >>> nn.functional.cross_entropy(model(torch.randn(2, 8)), torch.tensor([0, 2])).shape
        torch.Size([])
    """
    head_spec = head if isinstance(head, Spec) else Spec(head)
    if not (isinstance(head_spec.cls, type) and issubclass(head_spec.cls, Head)):
        raise TypeError(f"swap_head needs a Head class or a spec of one, got {head!r}: use swap_head(model, ETFHead)")
    old = find(model, example, name)
    classes = old.num_classes if num_classes is None else num_classes
    tied = errors.tied_weights(model, old.name, old.module)
    if tied is not None and not (head_spec.cls is LinearHead and classes == old.num_classes):
        raise tied
    facts = {"feature_dim": old.feature_dim, "num_classes": classes, "generator": generator}
    new = head_spec.build(facts if tied is None else facts | {"bias": getattr(old.module, "bias", None) is not None})
    tensor = next(iter([*old.module.parameters(), *old.module.buffers()]))
    new.to(device=tensor.device, dtype=tensor.dtype).train(old.module.training)
    if tied is not None:
        _keep_tie(old.module, new)
    # A convolution has maps for features: the new head then sees every pixel as a sample.
    layer = PixelHead(new) if isinstance(old.module, nn.Conv2d | PixelHead) else new
    layer.train(old.module.training)
    with ExitStack() as undo:
        undo.callback(_replace, model, layer, old.module)
        _replace(model, old.module, layer)
        undo.callback(set_num_classes(model, old.name, old.num_classes, classes))
        if old.example is not None:
            _check_in_place(model, layer, old.name, old.example)
        undo.pop_all()
    guard_saving(model, old.name)
    return new


def _keep_tie(old: nn.Module, new: Head) -> None:
    """Let a LinearHead use the parameters of the layer that it replaces, so that an embedding still shares them."""
    for name, parameter in new.named_parameters(recurse=False):
        if (shared := getattr(old, name, None)) is not None and shared.shape == parameter.shape:
            setattr(new, name, shared)


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Replace ``old`` everywhere, because a model can have its head under two names."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is old:
                setattr(parent, name, new)


def _check_in_place(model: nn.Module, new: nn.Module, name: str, example: Example) -> None:
    if not any(call.module is new for call in trace(model, example).heads()):
        raise ValueError(
            f"the logits must be the output of the head, but the model does not return the output of the new head at "
            f"{name!r}. Perhaps it reads the weight of the old layer: call the layer in forward, or pass name='...' "
            f"with another layer"
        )
