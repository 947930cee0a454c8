"""Finding the layer of a model that is its head."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from nc_tools._support.suggestions import did_you_mean
from nc_tools.heads.head import Head
from nc_tools.heads.pixel_head import PixelHead
from nc_tools.surgery import errors
from nc_tools.surgery.example_inputs import Example
from nc_tools.surgery.head_layers import could_be_head, input_width, is_own_layer, output_width
from nc_tools.surgery.trace import Call, trace, trace_with_example_input


@dataclass(frozen=True)
class FoundHead:
    """A model's head.

    Attributes:
        name: The dotted path.
        module: The layer.
        example: The input that found it; None if its name was given.
        feature_dim: D.
        num_classes: K.
    """

    name: str
    module: nn.Module
    example: Example | None
    feature_dim: int
    num_classes: int

    @property
    def class_vectors(self) -> Tensor | None:
        """The matrix of the layer with a row for each class (K, D'); None if it has no such matrix."""
        module = self.module.head if isinstance(self.module, PixelHead) else self.module
        weight = getattr(module, "weight", None)
        if isinstance(module, nn.Conv2d):  # 1 x 1
            weight = module.weight.flatten(1)
        if is_own_layer(self.module):
            matrices = [part for part in self.module.parameters() if part.ndim == 2]
            weight = matrices[0] if len(matrices) == 1 else None
            if weight is not None and weight.shape == (self.feature_dim, self.num_classes) != weight.shape[::-1]:
                weight = weight.T
        return weight.detach() if isinstance(weight, Tensor) and weight.ndim == 2 else None


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
    """Return a model's head, to replace or remove it; arguments and errors are those of :func:`find_head`."""
    head = locate(model, example, name)
    if not head.name:
        raise ValueError(
            "the model is only a head, which cannot be replaced in place: wrap it first, as in nn.Sequential(model)"
        )
    return head


def locate(model: nn.Module, example: Example | None, name: str | None) -> FoundHead:
    """Return a model's head, to look at it: as :func:`find`, and the whole model may be the head."""
    if (error := errors.wrapped_model(model.modules() if name is None else [model])) is not None:
        raise error
    if name is not None:
        return _named(model, example, name)
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
    head = _found(heads[0], forward.example)
    idle = _idle_heads(model, forward.calls, head.num_classes)
    if idle:
        raise errors.auxiliary_heads(model, head.name, idle)
    return head


def _found(call: Call, example: Example | None) -> FoundHead:
    """Return the head that a call shows; its tensors give the widths that a layer of one's own may not state."""
    axis = 1 if isinstance(call.module, nn.Conv2d | PixelHead) else -1
    return FoundHead(call.name, call.module, example, call.features.shape[axis], call.output.shape[axis])


# These use the weights of layers inside them without calling the layers (TransformerEncoderLayer in eval mode).
_READS_ITS_LAYERS = (nn.MultiheadAttention, nn.TransformerEncoderLayer, Head)


def _idle_heads(model: nn.Module, calls: list[Call], width: int) -> list[str]:
    """Return the names of layers as wide as the logits that did not run: heads that run only in train mode."""
    used = {call.module for call in calls}
    for module in model.modules():
        if isinstance(module, _READS_ITS_LAYERS):
            used |= {part for part in module.modules() if part is not module}
    return [n for n, m in model.named_modules() if could_be_head(m) and m not in used and output_width(m) == width]


def _named(model: nn.Module, example: Example | None, name: str) -> FoundHead:
    modules = dict(model.named_modules())
    candidates = [n for n, m in modules.items() if could_be_head(m)]
    if name not in modules:
        raise ValueError(f"{type(model).__name__} has no module {name!r}; {did_you_mean(name, candidates)}")
    module = modules[name]
    if not could_be_head(module):
        inside = [n for n in candidates if n.startswith(f"{name}.")] or candidates
        raise ValueError(
            f"the head must be a linear layer, but {name!r} is a {type(module).__name__}: pass name= with "
            f"{' or '.join(map(repr, inside[:5])) or 'a linear layer'}"
        )
    if (error := errors.lazy_layers(model, only=name)) is not None:
        raise error
    feature_dim, num_classes = input_width(module), output_width(module)
    if feature_dim is not None and num_classes is not None:
        return FoundHead(name, module, None, feature_dim, num_classes)
    forward = trace(model, example) if example is not None else trace_with_example_input(model)
    call = next((call for call in forward.calls if call.module is module), None) if forward else None
    if call is None:
        raise ValueError(
            f"{name!r} is a {type(module).__name__}, which does not state its widths, and it did not run on "
            f"{'an input of zeros' if example is None else 'the example'}: pass example= with an input on which it runs"
        )
    return replace(_found(call, None), name=name)
