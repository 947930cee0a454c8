"""Run a model without leaving a trace: not in its mode, its buffers and attributes, nor in the random generators."""

from __future__ import annotations

import copy
import random
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_CONTAINERS = (dict, OrderedDict, defaultdict, list, set)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Run a block in eval mode without gradients, then restore each module's mode and the random generators.

    The flag of each module is set, and ``model.eval()`` is not called: a model may do more there than switch the mode,
    for example merge weights (LoRA), which setting the flag back would not undo.
    """
    modes = [(module, module.training) for module in model.modules()]
    for module, _ in modes:
        module.training = False
    try:
        with torch.no_grad(), _random_state_restored(model):
            yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Restore the buffers and attributes of all modules after a block that runs the model.

    Some layers change what they hold in eval mode too: observers of quantization-aware training, caches, counters.
    Values are copied before the block and compared after it; only what has changed is written. Parameters, which a
    forward pass does not write, are not copied.
    """
    snapshots = [_ModuleState(module) for module in model.modules()]
    try:
        yield
    finally:
        for snapshot in snapshots:
            snapshot.restore()


@contextmanager
def trial_run(model: nn.Module) -> Iterator[None]:
    """Run a block that only looks at what a model computes: in eval mode, and :func:`untouched` by it."""
    with untouched(model), eval_mode(model):
        yield


class _ModuleState:
    """The attributes of one module: which objects they are, what the containers hold, and the values of the tensors."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._attributes = dict(vars(module))
        self._contents = [(v, copy.copy(v)) for v in self._attributes.values() if type(v) in _CONTAINERS]
        tensors = [*module._buffers.values(), *self._attributes.values()]
        self._values = [(tensor, tensor.detach().clone()) for tensor in tensors if _can_be_copied(tensor)]

    def restore(self) -> None:
        attributes = vars(self._module)
        attributes.clear()
        attributes.update(self._attributes)
        for container, content in self._contents:
            if isinstance(container, list):
                container[:] = content
            else:
                container.clear()
                container.update(content)
        for tensor, value in self._values:
            if tensor.shape != value.shape:  # an observer resizes its buffers at its first batch
                tensor.data = value
            elif not torch.equal(tensor, value):
                with torch.no_grad():
                    tensor.copy_(value)


def _can_be_copied(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and not isinstance(value, nn.Parameter)
        and not value.is_meta
        and value.layout == torch.strided
        and not value.is_quantized
    )


@contextmanager
def _random_state_restored(model: nn.Module) -> Iterator[None]:
    """Restore the random generators of PyTorch (on the CPU and the model's devices), Python and NumPy."""
    devices = {p.device for p in model.parameters() if p.device.type not in ("cpu", "meta")}
    numpy = sys.modules.get("numpy")  # heads and swaps do not need it
    python_state, numpy_state = random.getstate(), None if numpy is None else numpy.random.get_state()
    device_type = next(iter(devices)).type if devices else "cuda"
    try:
        with torch.random.fork_rng(devices, device_type=device_type):
            yield
    finally:
        random.setstate(python_state)
        if numpy is not None:
            numpy.random.set_state(numpy_state)
