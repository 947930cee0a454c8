"""Run a model once and see which of its modules produced the logits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nc_tools.surgery.example_inputs import Example, example_inputs
from nc_tools.surgery.head_layers import could_be_head


@dataclass(frozen=True)
class Call:
    """One call of a module that could be a head, seen during a forward pass."""

    name: str
    module: nn.Module
    output: Tensor
    version: int

    def made(self, logits: Tensor | None) -> bool:
        """Tell whether ``logits`` are what the call returned: the same tensor, not written to since."""
        return logits is self.output and self.untouched()

    def made_a_token_of(self, logits: Tensor | None) -> bool:
        """Tell whether ``logits`` (N, K) are one token's of the scores (N, T, K) that the call returned.

        Told by values, as a language model that classifies by its last token: exactly one token of each sample must
        match, so a mean over equal tokens does not pass for a choice. Nothing can be told on the meta device.
        """
        if logits is None or logits.is_meta or not self.scored_tokens(logits) or not self.untouched():
            return False
        return bool(((self.output == logits[:, None]).all(-1).sum(1) == 1).all())

    def scored_tokens(self, logits: Tensor | None) -> bool:
        """Tell whether the call scored every token where the model returns one score vector for each sample."""
        return (
            logits is not None and logits.ndim == 2 and self.output.ndim == 3 and self.output.shape[::2] == logits.shape
        )

    def untouched(self) -> bool:
        """Tell whether nothing was written into the output since."""
        return _version(self.output) == self.version


def _version(tensor: Tensor) -> int:
    """Count the writes into a tensor, which ``x += y`` and ``nn.ReLU(inplace=True)`` leave the same object."""
    return 0 if tensor.is_inference() else tensor._version


def logits_of(output: Any) -> Tensor | None:
    """Return the tensor that a model means as its logits: itself, ``logits`` in a record, or the first of a tuple."""
    found = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
    if isinstance(found, tuple | list) and found:
        found = found[0]
    return found if isinstance(found, Tensor) else None


@dataclass(frozen=True)
class Trace:
    """A forward pass: the input, the calls of modules that could be heads, in order, and what came out.

    ``bare`` tells logits returned as they are from those inside a tuple or a record.
    """

    example: Example
    calls: list[Call]
    logits: Tensor | None
    bare: bool

    def heads(self) -> list[Call]:
        """Return the calls whose output is the model's logits, or else holds them as one token of each sample."""
        direct = [call for call in self.calls if call.made(self.logits)]
        return direct or [call for call in self.calls if call.made_a_token_of(self.logits)]


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
    return Trace(example, calls, logits_of(output), isinstance(output, Tensor))


# What models raise on an input that they were not made for.
FAILS_ON_A_WRONG_INPUT = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)


def trace_with_example_input(model: nn.Module) -> Trace | None:
    """Trace a model on the first made-up input that it takes; None where it takes none."""
    for example in example_inputs(model):
        try:
            return trace(model, example)
        except FAILS_ON_A_WRONG_INPUT:
            continue
    return None
