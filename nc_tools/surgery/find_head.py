"""Tell which layer of a model is its head."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from nc_tools._support.suggestions import did_you_mean
from nc_tools.heads.head import Head
from nc_tools.surgery import errors
from nc_tools.surgery.example_inputs import Example
from nc_tools.surgery.head_layers import could_be_head, output_width
from nc_tools.surgery.trace import Call, trace, trace_with_example_input


@dataclass(frozen=True)
class FoundHead:
    """A model's head: its dotted path, the layer, and the input that showed it (None where it was given by name)."""

    name: str
    module: nn.Module
    example: Example | None


def find_head(model: nn.Module, *, example: Example | None = None, name: str | None = None) -> str:
    """Return the dotted path of a model's head: the module whose output object *is* the model's logits.

    Names and order of definition do not tell: the last linear layer of ``named_modules`` is wrong for models with two
    heads, and is no head at all where a pooling follows.

    Args:
        model: Any classifier.
        example: An input: a tensor, a tuple of arguments or a mapping of named ones. Without one, zeros of a shape that
            the first layer takes are tried.
        name: The dotted path, where you know it better: then nothing is run, and nothing checked.

    Raises:
        ValueError: If the head cannot be told; the candidates are named.

    Example:
        >>> find_head(nn.Sequential(nn.Flatten(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3)))
        '3'
    """
    return find(model, example, name).name


def find(model: nn.Module, example: Example | None, name: str | None) -> FoundHead:
    """Return a model's head; arguments and errors as for :func:`find_head`."""
    if (refusal := errors.wrapped(model.modules() if name is None else [model])) is not None:
        raise refusal
    if name is not None:
        return _named(model, name)
    seen = trace(model, example) if example is not None else trace_with_example_input(model)
    if (refusal := errors.no_classes(model, seen.logits if seen else None)) is not None:
        raise refusal
    if seen is None:
        raise errors.not_run(model)
    heads = seen.heads()
    if not heads:
        raise errors.no_head(model, seen)
    idle = _idle_heads(model, seen.calls, output_width(heads[0].module))
    if idle:
        raise errors.auxiliary(model, heads[0].name, idle)
    return _swappable(model, heads[0].name, heads[0].module, seen.example)


# These read the weights of the layers inside them without calling those (the second in eval mode).
_READS_ITS_LAYERS = (nn.MultiheadAttention, nn.TransformerEncoderLayer, Head)


def _idle_heads(model: nn.Module, calls: list[Call], width: int) -> list[str]:
    """Name the layers as wide as the logits that did not run: heads of train mode."""
    passed = {call.module for call in calls}
    for module in model.modules():
        if isinstance(module, _READS_ITS_LAYERS):
            passed |= {part for part in module.modules() if part is not module}
    return [n for n, m in model.named_modules() if could_be_head(m) and m not in passed and output_width(m) == width]


def _named(model: nn.Module, name: str) -> FoundHead:
    modules = dict(model.named_modules())
    linear = [n for n, m in modules.items() if isinstance(m, nn.Linear | Head)]
    if name not in modules:
        raise ValueError(f"{type(model).__name__} has no module {name!r}; {did_you_mean(name, linear)}")
    module = modules[name]
    if not could_be_head(module):
        inside = [n for n in linear if n.startswith(f"{name}.")] or linear
        raise ValueError(
            f"the head must be a linear layer, but {name!r} is a {type(module).__name__}: give name= with "
            f"{' or '.join(map(repr, inside[:5])) or 'a linear layer'}"
        )
    return _swappable(model, name, module, None)


def _swappable(model: nn.Module, name: str, module: nn.Module, example: Example | None) -> FoundHead:
    if isinstance(module, nn.Conv2d):
        raise ValueError(errors.convolution(name, module))
    if not name:
        raise ValueError(
            "the model is nothing but its head: wrap it, as in nn.Sequential(model), so that it can be replaced"
        )
    if (refusal := errors.tied(model, name, module)) is not None:
        raise refusal
    return FoundHead(name, module, example)
