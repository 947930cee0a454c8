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
    features: Tensor
    output: Tensor


def could_be_head(module: nn.Module) -> bool:
    """Tell whether a module maps features to scores: a linear layer, a 1 x 1 convolution, or one of our heads."""
    return isinstance(module, nn.Linear | Head) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1))


def output_width(module: nn.Module) -> int:
    """Return how many scores such a module gives."""
    if isinstance(module, nn.Linear):
        return module.out_features
    return module.num_classes if isinstance(module, Head) else int(module.out_channels)  # type: ignore[arg-type]


def logits_of(output: Any) -> Tensor | None:
    """Return the tensor that a model means as its logits: itself, ``.logits``, or the first of a tuple."""
    found = getattr(output, "logits", output)
    if isinstance(found, tuple | list) and found:
        found = found[0]
    return found if isinstance(found, Tensor) else None


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode, so that no statistics move, and put every module back as it was."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in before:
            module.training = training


def trace(model: nn.Module, example: Example) -> tuple[list[Call], Any]:
    """Run ``model`` in eval mode without gradients; return the calls that could be heads, and its output."""
    calls: list[Call] = []
    names = {module: name for name, module in model.named_modules()}

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
            calls.append(Call(names[module], module, inputs[0], output))

    handles = [m.register_forward_hook(note) for m in model.modules() if could_be_head(m)]
    try:
        with _eval_mode(model):
            if isinstance(example, Mapping):
                output = model(**example)
            else:
                output = model(*example) if isinstance(example, tuple) else model(example)
    finally:
        for handle in handles:
            handle.remove()
    return calls, output


_FAILS_ON_A_WRONG_SIZE = (RuntimeError, ValueError, TypeError, IndexError, AssertionError)


def trace_with_made_up_input(model: nn.Module) -> tuple[list[Call], Any] | None:
    """Trace a model on zeros of a shape that its first layer takes; None where no such shape is found."""
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, nn.Conv2d) and isinstance(weight, Tensor):
            shapes: list[tuple[int, ...]] = [(2, module.in_channels, size, size) for size in (224, 32, 299, 64, 28, 8)]
        elif isinstance(module, nn.Linear) and isinstance(weight, Tensor):
            shapes = [(2, module.in_features)]
        else:
            continue
        for shape in shapes:
            try:
                return trace(model, torch.zeros(shape, device=weight.device, dtype=weight.dtype))
            except _FAILS_ON_A_WRONG_SIZE:
                continue
        return None
    return None
