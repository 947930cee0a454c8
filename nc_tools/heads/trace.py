"""Run a model once and see which of its modules produced the logits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nc_tools.heads.base import Head

Example = Tensor | tuple[Any, ...] | Mapping[str, Any]


@dataclass(frozen=True)
class Call:
    """One call of a module that could be a head, seen during a forward pass."""

    name: str
    module: nn.Module
    output: Tensor
    version: int

    def made(self, logits: Tensor | None) -> bool:
        """Tell whether ``logits`` are what the call returned: the same tensor, not written to since."""
        return logits is self.output and _version(self.output) == self.version


def _version(tensor: Tensor) -> int:
    """Count the writes into a tensor, which ``x += y`` and ``nn.ReLU(inplace=True)`` leave the same object."""
    return 0 if tensor.is_inference() else tensor._version


def could_be_head(module: nn.Module) -> bool:
    """Tell whether a module maps features to scores: a linear layer, a 1 x 1 convolution, or one of our heads."""
    return isinstance(module, nn.Linear | Head) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1))


def output_width(module: nn.Module) -> int:
    """Return how many scores such a module gives."""
    if isinstance(module, nn.Linear):
        return module.out_features
    return module.num_classes if isinstance(module, Head) else int(module.out_channels)  # type: ignore[arg-type]


def input_width(module: nn.Module) -> int:
    """Return how wide the features are that such a module takes."""
    if isinstance(module, nn.Linear):
        return module.in_features
    return module.feature_dim if isinstance(module, Head) else int(module.in_channels)  # type: ignore[arg-type]


def logits_of(output: Any) -> Tensor | None:
    """Return the tensor that a model means as its logits: itself, ``logits`` in a record, or the first of a tuple."""
    found = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
    if isinstance(found, tuple | list) and found:
        found = found[0]
    return found if isinstance(found, Tensor) else None


@dataclass(frozen=True)
class Trace:
    """A forward pass: the input, the calls of modules that could be heads, in order, and what came out."""

    example: Example
    calls: list[Call]
    logits: Tensor | None

    def heads(self) -> list[Call]:
        """Return the calls whose output is the model's logits."""
        return [call for call in self.calls if call.made(self.logits)]


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Run without gradients in eval mode, so that no statistics move; put every module and the generators back."""
    before = [(module, module.training) for module in model.modules()]
    devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices):
            yield
    finally:
        for module, training in before:
            module.training = training


def trace(model: nn.Module, example: Example) -> Trace:
    """Run ``model`` in eval mode without gradients."""
    calls: list[Call] = []
    names = {module: name for name, module in model.named_modules()}

    def note(module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor):
            calls.append(Call(names[module], module, output, _version(output)))

    handles = [m.register_forward_hook(note) for m in model.modules() if could_be_head(m)]
    try:
        with eval_mode(model):
            if isinstance(example, Mapping):
                output = model(**example)
            else:
                output = model(*example) if isinstance(example, tuple) else model(example)
    finally:
        for handle in handles:
            handle.remove()
    return Trace(example, calls, logits_of(output))


# What models raise on an input that they were not made for.
FAILS_ON_A_WRONG_INPUT = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)
_SIDES = (224, 32, 299, 64, 28, 8)


def trace_with_made_up_input(model: nn.Module) -> Trace | None:
    """Trace a model on zeros of a shape that its first layer takes; None where no such shape is found."""
    for shape, like in _made_up_shapes(model):
        try:
            return trace(model, torch.zeros(shape, device=like.device, dtype=like.dtype))
        except FAILS_ON_A_WRONG_INPUT:
            continue
    return None


def _made_up_shapes(model: nn.Module) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """Yield input shapes and a tensor of their device and type: images where there is a convolution, then rows."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            yield from (((2, module.in_channels, side, side), module.weight) for side in _SIDES)
            break
    for module in model.modules():
        if isinstance(module, nn.Linear | Head):
            yield (2, input_width(module)), module.weight
            break
