"""Running a model once to see which of its modules returned the logits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any

from torch import Tensor, nn

from nc_tools.surgery.example_inputs import Example, example_inputs
from nc_tools.surgery.head_layers import could_be_head
from nc_tools.surgery.untouched import trial_run


@dataclass(frozen=True)
class Call:
    """One call of a module that could be a head, recorded during a forward pass."""

    name: str
    module: nn.Module
    features: Any
    output: Tensor
    version: int

    def returned(self, logits: Tensor | None) -> bool:
        """Return True if the call returned ``logits``: the same tensor, not modified in place since."""
        return logits is self.output and self.is_unmodified()

    def returned_for_one_token(self, logits: Tensor | None) -> bool:
        """Return True if the call scored all tokens (N, T, K), and ``logits`` (N, K) are the scores of one token.

        So do language models that classify by their last token. The values decide: exactly one token of each sample
        must match, so a mean over equal tokens does not count. On the meta device the answer is always False.
        """
        if logits is None or logits.is_meta or not self.scored_tokens(logits) or not self.is_unmodified():
            return False
        return bool(((self.output == logits[:, None]).all(-1).sum(1) == 1).all())

    def scored_tokens(self, logits: Tensor | None) -> bool:
        """Return True if the call scored every token, but the model returns one score vector per sample."""
        return (
            logits is not None and logits.ndim == 2 and self.output.ndim == 3 and self.output.shape[::2] == logits.shape
        )

    def is_unmodified(self) -> bool:
        """Return True if the output was not modified in place after the call."""
        return _version(self.output) == self.version


def _version(tensor: Tensor) -> int:
    """Return how often a tensor was modified in place, as by ``x += y`` or ``nn.ReLU(inplace=True)``."""
    return 0 if tensor.is_inference() else tensor._version


def logits_of(output: Any) -> Tensor | None:
    """Return the logits in a model's output: the tensor itself, the item ``logits``, or the first of a tuple."""
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
    if isinstance(logits, tuple | list) and logits:
        logits = logits[0]
    return logits if isinstance(logits, Tensor) else None


@dataclass(frozen=True)
class Trace:
    """One forward pass of a model: its input, the calls of layers that could be the head, and the logits.

    Attributes:
        example: The input.
        calls: The calls of layers that could be the head.
        logits: What :func:`logits_of` takes for the logits.
        returns_tensor: False if the logits were inside a tuple or a record.
        others: The other tensors that the model returned, if nothing says which are the logits: all but the first of a
            tuple, or all items of a mapping or record without an item ``logits``.
    """

    example: Example
    calls: list[Call]
    logits: Tensor | None
    returns_tensor: bool
    others: tuple[Tensor, ...] = ()

    def heads(self) -> list[Call]:
        """Return the calls whose output is the logits; if none, those that scored tokens, one of them the logits."""
        direct = [call for call in self.calls if call.returned(self.logits)]
        return direct or [call for call in self.calls if call.returned_for_one_token(self.logits)]

    def returned_beside(self) -> list[Call]:
        """Return the calls whose output is another of the tensors that the model returned, one call of each layer."""
        calls = {call.module: call for call in self.calls if any(call.returned(other) for other in self.others)}
        return list(calls.values())


def trace(model: nn.Module, example: Example) -> Trace:
    """Run ``model`` in eval mode without gradients, and record the calls of modules that could be heads."""
    calls: list[Call] = []
    names = {module: name for name, module in model.named_modules()}

    def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor):
            calls.append(Call(names[module], module, inputs[0] if inputs else None, output, _version(output)))

    handles = [m.register_forward_hook(record) for m in model.modules() if could_be_head(m)]
    try:
        with trial_run(model):
            if isinstance(example, Mapping):
                output = model(**example)
            else:
                output = model(*example) if isinstance(example, tuple) else model(example)
    finally:
        for handle in handles:
            handle.remove()
    logits = logits_of(output)
    named = isinstance(output, Tensor) or not (isinstance(output, tuple | list) or logits is None)
    others = () if named else tuple(t for t in tensors_in(output) if t is not logits)
    return Trace(example, calls, logits, isinstance(output, Tensor), others)


def tensors_in(output: Any) -> Iterator[Tensor]:
    """Yield the tensors in a model's output: in tuples, mappings and records, one inside the other."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        yield from (tensor for part in output.values() for tensor in tensors_in(part))
    elif isinstance(output, tuple | list):
        yield from (tensor for part in output for tensor in tensors_in(part))
    elif is_dataclass(output):
        yield from (tensor for part in vars(output).values() for tensor in tensors_in(part))


# The errors that models raise for an input of the wrong kind or shape.
FAILS_ON_A_WRONG_INPUT = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)


def trace_with_example_input(model: nn.Module) -> Trace | None:
    """Trace a model on the first example input that it accepts; return None if it accepts none."""
    for example in example_inputs(model):
        try:
            return trace(model, example)
        except FAILS_ON_A_WRONG_INPUT:
            continue
    return None
