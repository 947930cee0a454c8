"""Modules that can make their own tensors again, as they were when the module was built."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class InitialTensors(nn.Module):
    """A module that can make its parameters and buffers again, and does so by itself where their memory was lost.

    A module that is built on the meta device has no numbers, and ``to_empty`` gives it uninitialized memory. Parameters
    are then drawn by ``reset_parameters``, as in every layer of PyTorch. Buffers are computed from the arguments of the
    module, so they are computed again at once: training with uninitialized fixed class vectors would raise no error.

    transformers builds a model on the meta device too, loads a checkpoint, and gives memory to what the checkpoint
    lacks. It then reads ``_is_hf_initialized`` of each module, and the module makes its missing tensors at that moment.

    A subclass registers small buffers by :meth:`keep_buffer`, or defines :meth:`initial_buffers`; and it defines
    :meth:`draw_parameters` if it has parameters of its own.
    """

    _kept: Mapping[str, Tensor] = MappingProxyType({})
    _asked_by_transformers = False
    _built_on_meta = False

    def initial_buffers(self) -> Mapping[str, Tensor]:
        """Return the initial values of the module's own buffers by name, on any device but meta."""
        return self._kept

    def keep_buffer(self, name: str, value: Tensor | None, *, persistent: bool = True) -> None:
        """Register a buffer, on the default device, and keep its initial values on the CPU."""
        if value is not None and not value.is_meta:
            self._kept = {**self._kept, name: value.detach().to("cpu", copy=True)}
        placed = value if value is None or not value.is_cpu else value.to(torch.get_default_device())
        self.register_buffer(name, placed, persistent)

    def draw_parameters(self, generator: torch.Generator | None) -> None:
        """Draw the module's own parameters anew, in place.

        Raises:
            NotImplementedError: If the module has parameters and its class does not define this method.
        """
        del generator
        if names := [name for name, parameter in self._parameters.items() if parameter is not None]:
            raise NotImplementedError(
                f"{type(self).__name__} cannot draw its parameters {', '.join(names)} again: define "
                f"draw_parameters(generator) in the class"
            )

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Reset the module and its children: draw the parameters, and compute the buffers again from the arguments.

        The value drawn for a parametrized tensor (``torch.nn.utils.parametrize``) is assigned to it, so that the
        parametrization stores the parameters that give this value.

        Args:
            generator: Draws the parameters; the global one if None.

        Raises:
            RuntimeError: If a hook computes a parameter before each call, as pruning does: what is drawn would be lost.
            NotImplementedError: If the class does not say how its parameters or buffers are made.
        """
        _check_hooks(self)
        self._make_buffers(self._buffers)
        parametrized = tuple(getattr(self, "parametrizations", ()))
        with parametrize.cached():  # so that what is drawn into a tensor is kept until it is set
            self.draw_parameters(generator)
            drawn = {name: getattr(self, name) for name in parametrized}
        for name, value in drawn.items():
            setattr(self, name, value)
        for child in self.children():
            _reset(child, generator)

    @torch.no_grad()
    def _make_buffers(self, names: Iterable[str]) -> None:
        chosen = [name for name in names if (buffer := self._buffers[name]) is not None and not buffer.is_meta]
        if chosen:
            initial = self.initial_buffers()
            if unknown := [name for name in chosen if name not in initial]:
                raise NotImplementedError(
                    f"{type(self).__name__} cannot make its buffers {', '.join(unknown)} again: return them from "
                    f"initial_buffers() in the class, or register them with keep_buffer"
                )
            for name in chosen:
                _set(self._buffers, name, initial[name])

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:  # noqa: FBT001, FBT002 (PyTorch's signature)
        """Register a buffer, as in PyTorch."""
        super().register_buffer(name, tensor, persistent)
        self._built_on_meta |= tensor is not None and tensor.is_meta

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Register a parameter, as in PyTorch."""
        super().register_parameter(name, param)
        self._built_on_meta |= param is not None and param.is_meta

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:  # noqa: FBT001, FBT002 (likewise)
        self._make_unsaved_buffers()
        before = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._make_buffers([name for name, old in before.items() if _is_lost(old, self._buffers[name])])
        tensors = [*self._parameters.values(), *self._buffers.values()]
        self._built_on_meta |= any(tensor is not None and tensor.is_meta for tensor in tensors)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        self._built_on_meta = False
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._make_unsaved_buffers()

    def _make_unsaved_buffers(self) -> None:
        """Compute the non-persistent buffers that are on meta, if a persistent one has been loaded on another device.

        ``load_state_dict(assign=True)`` and accelerate's dispatch replace only tensors that a checkpoint holds.
        """
        saved = [
            t for name, t in self._buffers.items() if t is not None and name not in self._non_persistent_buffers_set
        ]
        devices = {tensor.device for tensor in saved if not tensor.is_meta}
        for name in self._non_persistent_buffers_set if devices else ():
            buffer = self._buffers[name]
            if buffer is not None and buffer.is_meta:
                self._buffers[name] = self.initial_buffers()[name].to(next(iter(devices)), buffer.dtype)

    @property
    def _is_hf_initialized(self) -> bool:
        if self._built_on_meta:
            self._make_what_transformers_did_not_load()
        return self._asked_by_transformers

    @_is_hf_initialized.setter
    def _is_hf_initialized(self, value: bool) -> None:
        self._asked_by_transformers = value

    @torch.no_grad()
    def _make_what_transformers_did_not_load(self) -> None:
        own = {**self._parameters, **self._buffers}
        tensors = {name: tensor for name, tensor in own.items() if tensor is not None}
        if any(tensor.is_meta for tensor in tensors.values()):
            return
        self._built_on_meta, self._asked_by_transformers = False, True
        missing = {name for name, tensor in tensors.items() if not getattr(tensor, "_is_hf_initialized", False)}
        self._make_buffers(missing & self._buffers.keys())
        if missing & self._parameters.keys():
            loaded = {name: tensors[name].clone() for name in self._parameters.keys() & tensors.keys() - missing}
            self.draw_parameters(None)
            for name, value in loaded.items():
                tensors[name].copy_(value)


def _reset(module: nn.Module, generator: torch.Generator | None) -> None:
    if isinstance(module, InitialTensors):
        module.reset_parameters(generator)
    elif callable(reset := getattr(module, "reset_parameters", None)):
        reset()
    else:
        for child in module.children():
            _reset(child, generator)


def check_memory(tensor: Tensor, features: Tensor, module: nn.Module) -> None:
    """Check that a module's tensor is not on the meta device while its input has numbers.

    PyTorch may compute with both, and then returns uninitialized memory.

    Raises:
        RuntimeError: If the tensor is on the meta device and the features are not.
    """
    if tensor.is_meta and not features.is_meta:
        raise RuntimeError(
            f"{type(module).__name__} has no values, because it is on the meta device: load a checkpoint with "
            f"load_state_dict(state, assign=True), or call to_empty(device='cpu') and reset_parameters(). If its "
            f"tensors were offloaded, keep the buffers in memory (offload_buffers=False)"
        )


def _check_hooks(module: nn.Module) -> None:
    """Raise RuntimeError if pruning, or weight norm of PyTorch's older kind, computes a tensor before each call."""
    for hook in module._forward_pre_hooks.values():
        if type(hook).__module__.startswith("torch.nn.utils."):
            raise RuntimeError(
                f"{type(module).__name__} cannot draw its parameters while {type(hook).__name__} computes one before "
                f"each call: remove it first, with prune.remove or remove_weight_norm of torch.nn.utils"
            )


def _set(buffers: dict[str, Tensor | None], name: str, value: Tensor) -> None:
    old = buffers[name]
    if old is not None and old.shape == value.shape:
        old.copy_(value)
    else:
        buffers[name] = value if old is None else value.to(old)


def _is_lost(before: Tensor | None, after: Tensor | None) -> bool:
    """Return True if a buffer lost its numbers when its module was moved, converted or given new memory."""
    if before is None or after is None or after is before or after.is_meta or type(after) is not Tensor:
        return False
    if before.is_meta:
        return True
    expected = before.to(after)
    return not bool(((after == expected) | ((after != after) & (expected != expected))).all())
