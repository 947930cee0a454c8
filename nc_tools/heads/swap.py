"""Find the head of a model that already exists, take it off, or put another in its place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nc_tools.heads.base import Head
from nc_tools.heads.trace import Example, could_be_head, logits_of, output_width, trace, trace_with_made_up_input
from nc_tools.spec import Spec
from nc_tools.suggestions import did_you_mean


@dataclass(frozen=True)
class _Found:
    name: str
    module: nn.Module
    feature_dim: int


def find_head(model: nn.Module, *, example: Example | None = None, name: str | None = None) -> str:
    """Return the dotted path of a model's head: the module whose output object *is* the model's logits.

    Names and order of definition do not tell: the last linear layer of ``named_modules`` is wrong for models with two
    heads, and is no head at all where a pooling follows.

    Args:
        model: Any classifier.
        example: An input: a tensor, a tuple of arguments or a mapping of named ones. Without one, zeros of a shape that
            the first layer takes are tried.
        name: The dotted path, where you know it better: then nothing is run.

    Raises:
        ValueError: If the head cannot be told; the candidates are named.

    Example:
        >>> find_head(nn.Sequential(nn.Flatten(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3)))
        '3'
    """
    return _find(model, example, name).name


def split_head(
    model: nn.Module, *, example: Example | None = None, name: str | None = None
) -> tuple[nn.Module, nn.Module]:
    """Take the head off a model, in place; return (backbone, head).

    The backbone is the same object, with ``nn.Identity`` where the head was: it now returns features (N, D).

    Args:
        model: Any classifier; changed in place.
        example: As for :func:`find_head`.
        name: As for :func:`find_head`.

    Raises:
        ValueError: If the head cannot be told; the candidates are named.

    Example:
        >>> backbone, head = split_head(nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3)))
        >>> backbone(torch.zeros(2, 8)).shape, head
        (torch.Size([2, 4]), Linear(in_features=4, out_features=3, bias=True))
    """
    found = _find(model, example, name)
    model.set_submodule(found.name, nn.Identity())
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

    The new head takes the width of the features that reached the old one, its number of classes, device and dtype. The
    model is run once more to see that the new head's output is what comes out; if not, the old head is put back.

    Args:
        model: Any classifier with one linear output layer; changed in place.
        head: ``ETFHead``, or ``spec(ETFHead, scale=8.0)``.
        num_classes: K; None keeps the old head's.
        example: As for :func:`find_head`.
        name: As for :func:`find_head`.
        generator: Draws what the new head learns.

    Raises:
        ValueError: If the head cannot be told, is a convolution, or the geometry does not exist for these sizes.
        TypeError: If ``head`` is neither a head class nor a spec of one.

    Example:
        >>> from nc_tools.heads import ETFHead, spec
        >>> model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3))
        >>> _ = swap_head(model, spec(ETFHead, scale=8.0))
        >>> nn.functional.cross_entropy(model(torch.randn(2, 8)), torch.tensor([0, 2])).shape
        torch.Size([])
    """
    wanted = head if isinstance(head, Spec) else Spec(head)
    if not (isinstance(wanted.cls, type) and issubclass(wanted.cls, Head)):
        raise TypeError(f"swap_head puts on a Head, got {head!r}: write swap_head(model, ETFHead)")
    old = _find(model, example, name)
    classes = output_width(old.module) if num_classes is None else num_classes
    new = wanted.build({"feature_dim": old.feature_dim, "num_classes": classes, "generator": generator})
    like = next(iter([*old.module.parameters(), *old.module.buffers()]))
    new.to(device=like.device, dtype=like.dtype).train(old.module.training)
    model.set_submodule(old.name, new)
    seen = trace(model, example) if example is not None else trace_with_made_up_input(model)
    if seen is not None:
        calls, output = seen
        if not any(call.module is new and call.output is logits_of(output) for call in calls):
            model.set_submodule(old.name, old.module)
            raise ValueError(
                f"the model's logits must come from its head, but the output of {old.name!r} is not what it returns: "
                f"give name= with the dotted path of the layer whose output you train on"
            )
    return new


def _find(model: nn.Module, example: Example | None, name: str | None) -> _Found:
    if name is not None:
        return _named(model, name)
    seen = trace(model, example) if example is not None else trace_with_made_up_input(model)
    candidates = {n: m for n, m in model.named_modules() if could_be_head(m)}
    if seen is None:
        raise ValueError(
            f"{type(model).__name__} could not be run on made-up zeros to see where its logits come from: give "
            f"example= with an input, or name= with one of {', '.join(repr(n) for n in candidates) or 'its layers'}"
        )
    calls, output = seen
    logits = logits_of(output)
    heads = [call for call in calls if call.output is logits]
    if not heads:
        width = logits.shape[1] if isinstance(logits, Tensor) and logits.ndim > 1 else None
        fitting = [n for n, m in candidates.items() if output_width(m) == width]
        raise ValueError(
            f"no layer of {type(model).__name__} returns its logits unchanged, so that none can be swapped without a "
            f"change of meaning; layers of that width: {', '.join(map(repr, fitting)) or 'none'}. Give name= with one "
            f"of them if its output is what you train on"
        )
    called = {call.name for call in calls}
    idle = [n for n, m in candidates.items() if n not in called and output_width(m) == output_width(heads[0].module)]
    if idle:
        raise ValueError(
            f"{type(model).__name__} has auxiliary heads that run in train mode only ({', '.join(map(repr, idle))}): "
            f"build it without them (aux_logits=False in torchvision), or give name={heads[0].name!r} for that one"
        )
    return _swappable(heads[0].name, heads[0].module, heads[0].features.shape[-1])


def _named(model: nn.Module, name: str) -> _Found:
    modules = dict(model.named_modules())
    if name not in modules:
        raise ValueError(f"{type(model).__name__} has no module {name!r}; {did_you_mean(name, modules)}")
    module = modules[name]
    if not isinstance(module, nn.Linear | Head):
        raise ValueError(f"the head must be a linear layer, but {name!r} is a {type(module).__name__}")
    return _swappable(name, module, module.in_features if isinstance(module, nn.Linear) else module.feature_dim)


def _swappable(name: str, module: nn.Module, feature_dim: int) -> _Found:
    if isinstance(module, nn.Conv2d):
        raise ValueError(
            f"the head must be a linear layer, but {name!r} is a 1 x 1 convolution over a map: pool and flatten before "
            f"it and use a linear layer instead"
        )
    if not name:
        raise ValueError(
            "the model is nothing but its head: wrap it, as in nn.Sequential(model), so that it can be replaced"
        )
    return _Found(name, module, feature_dim)
