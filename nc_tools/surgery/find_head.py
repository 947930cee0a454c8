"""Finding the layer of a model that is its head."""

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
    """A model's head: its dotted path, the layer, and the example input that found it (None if given by name)."""

    name: str
    module: nn.Module
    example: Example | None


def find_head(model: nn.Module, *, example: Example | None = None, name: str | None = None) -> str:
    """Return the dotted path of a model's head: the layer whose output *is* the model's logits.

    The model is run once, in eval mode and without gradients. Names and the order of definition are not used: the last
    linear layer of ``named_modules`` is wrong for models with two heads, and is no head if a pooling follows.

    Args:
        model: Any classifier.
        example: An input: a tensor, a tuple of arguments or a mapping of named arguments. If None, inputs of zeros that
            fit the model's configuration or its first layer are tried.
        name: The dotted path, if you know it; the model is then not run.

    Raises:
        ValueError: If no layer is the head; the message names the candidates and a fix.

    Example:
        >>> find_head(nn.Sequential(nn.Flatten(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3)))
        '3'
    """
    return find(model, example, name).name


def find(model: nn.Module, example: Example | None, name: str | None) -> FoundHead:
    """Return path and layer of a model's head; arguments and errors are those of :func:`find_head`."""
    if (error := errors.wrapped_model(model.modules() if name is None else [model])) is not None:
        raise error
    if name is not None:
        return _named(model, name)
    if (error := errors.lazy_layers(model)) is not None:
        raise error
    forward = trace(model, example) if example is not None else trace_with_example_input(model)
    if (error := errors.zero_classes(model, forward.logits if forward else None)) is not None:
        raise error
    if forward is None:
        raise errors.not_run(model)
    heads = forward.heads()
    if not heads:
        raise errors.no_head(model, forward)
    if (error := errors.several_outputs(model, forward)) is not None:
        raise error
    idle = _idle_heads(model, forward.calls, output_width(heads[0].module))
    if idle:
        raise errors.auxiliary_heads(model, heads[0].name, idle)
    return _replaceable(model, heads[0].name, heads[0].module, forward.example)


# These use the weights of layers inside them without calling the layers (TransformerEncoderLayer in eval mode).
_READS_ITS_LAYERS = (nn.MultiheadAttention, nn.TransformerEncoderLayer, Head)


def _idle_heads(model: nn.Module, calls: list[Call], width: int) -> list[str]:
    """Return the names of layers as wide as the logits that did not run: heads that run only in train mode."""
    used = {call.module for call in calls}
    for module in model.modules():
        if isinstance(module, _READS_ITS_LAYERS):
            used |= {part for part in module.modules() if part is not module}
    return [n for n, m in model.named_modules() if could_be_head(m) and m not in used and output_width(m) == width]


def _named(model: nn.Module, name: str) -> FoundHead:
    modules = dict(model.named_modules())
    linear = [n for n, m in modules.items() if isinstance(m, nn.Linear | Head)]
    if name not in modules:
        raise ValueError(f"{type(model).__name__} has no module {name!r}; {did_you_mean(name, linear)}")
    module = modules[name]
    if not could_be_head(module):
        inside = [n for n in linear if n.startswith(f"{name}.")] or linear
        raise ValueError(
            f"the head must be a linear layer, but {name!r} is a {type(module).__name__}: pass name= with "
            f"{' or '.join(map(repr, inside[:5])) or 'a linear layer'}"
        )
    if (error := errors.lazy_layers(model, only=name)) is not None:
        raise error
    return _replaceable(model, name, module, None)


def _replaceable(model: nn.Module, name: str, module: nn.Module, example: Example | None) -> FoundHead:
    if isinstance(module, nn.Conv2d):
        raise ValueError(errors.convolution_message(name, module))
    if not name:
        raise ValueError(
            "the model is only a head, which cannot be replaced in place: wrap it first, as in nn.Sequential(model)"
        )
    if (error := errors.tied_weights(model, name, module)) is not None:
        raise error
    return FoundHead(name, module, example)
