"""Several backbones of one kind, computed in one pass: their parameters and buffers are views of stacked tensors."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from operator import is_

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from nc_tools._support.out_of_memory import is_out_of_memory
from nc_tools.training.in_steps import BackbonePass, autocast
from nc_tools.training.stack_in_place import laid_out_as, stack_in_place

_OF_EVERY_MODULE = set(vars(nn.Module())) - {"training"}


class BackboneStack:
    """Backbones of R trainings that compute their features in one pass.

    Parameters and buffers of each backbone become views of the stacked tensors. So an optimizer that steps on a
    backbone's parameters changes the stack, each training has its own batch statistics, and every backbone can be
    evaluated or saved at any time.

    Args:
        backbones: One for each training. :func:`backbone_kind` must return the same for all.
    """

    def __init__(self, backbones: Sequence[nn.Module]) -> None:
        self._backbones = list(backbones)
        first = backbones[0]
        self._of_members = {
            name: [backbone.get_parameter(name) for backbone in backbones] for name, _ in first.named_parameters()
        }
        self._parameters = {name: stack_in_place(own) for name, own in self._of_members.items()}
        self._buffers = {
            name: stack_in_place([backbone.get_buffer(name) for backbone in backbones])
            for name, _ in first.named_buffers()
        }
        self._features: Tensor | None = None

    def is_of(self, backbones: Sequence[nn.Module]) -> bool:
        """Return whether these are the stack's backbones, in its order."""
        return len(backbones) == len(self._backbones) and all(map(is_, backbones, self._backbones))

    def why_not(self, passes: Sequence[BackbonePass]) -> str | None:
        """Return why the backbones cannot be computed together, found by trying it on copies; None if they can."""
        name = type(self._backbones[0]).__name__
        parameters = {key: value.detach().clone().requires_grad_() for key, value in self._parameters.items()}
        buffers = {key: value.clone() for key, value in self._buffers.items()}
        own = {key: value[0].detach().clone() for key, value in (self._parameters | self._buffers).items()}
        copies = {id(request.inputs): request.inputs.clone() for request in passes}
        inputs = [copies[id(request.inputs)] for request in passes]
        try:
            features = self._together(inputs, passes[0].dtype, parameters, buffers)
            torch.autograd.grad(features.sum(), list(parameters.values()), allow_unused=True)
            with torch.no_grad(), autocast(inputs[0].device, passes[0].dtype):
                alone = functional_call(self._backbones[0], own, (passes[0].inputs.clone(),))
        except Exception as error:
            if is_out_of_memory(error):  # a smaller stack may fit
                raise
            if "randomness" in str(error):
                return f"{name} draws random numbers, such as those of dropout"
            return f"{name} cannot be computed by torch.func.vmap ({' '.join(str(error).split())[:150]})"
        if not all(map(torch.equal, inputs, (request.inputs for request in passes))):
            return f"{name} changes its inputs in place"
        if alone.shape != features[0].shape or not (features[0] - alone).abs().max() <= 0.1 * alone.abs().max():
            return f"{name} gives other features under torch.func.vmap"
        return None

    def compute(self, passes: Sequence[BackbonePass]) -> None:
        """Compute the features of all passes and store them there; ``passes`` are in the order of the backbones."""
        started = time.perf_counter()
        for name, own in self._of_members.items():
            self._parameters[name].requires_grad_(own[0].requires_grad)
        features = self._together(
            [request.inputs for request in passes], passes[0].dtype, self._parameters, self._buffers
        )
        self._features = features if features.requires_grad else None
        for request, rows in zip(passes, features.detach().unbind(), strict=True):
            request.features = rows.requires_grad_(features.requires_grad)
        _share_seconds(passes, started)

    def compute_gradients(self, passes: Sequence[BackbonePass]) -> None:
        """Add to the gradients of each backbone's parameters, given the gradients of the features of ``passes``.

        Call it once after each :meth:`compute`, with the same passes.
        """
        features, self._features = self._features, None
        of_features = [None if request.features is None else request.features.grad for request in passes]
        if features is None or all(gradient is None for gradient in of_features):
            return
        started = time.perf_counter()
        zero = torch.zeros_like(features[0])
        learned = [name for name, value in self._parameters.items() if value.requires_grad]
        gradients: Sequence[Tensor | None] = torch.autograd.grad(
            features,
            [self._parameters[name] for name in learned],
            torch.stack([zero if gradient is None else gradient for gradient in of_features]),
            allow_unused=True,
        )
        for name, gradient in zip(learned, gradients, strict=True):
            if gradient is None:
                continue
            laid_out = laid_out_as(self._parameters[name], gradient)
            for parameter, own, of in zip(self._of_members[name], laid_out.unbind(), of_features, strict=True):
                if of is not None:  # else its loss does not use the features: no gradient, rather than one of zero
                    parameter.grad = own if parameter.grad is None else parameter.grad + own
        _share_seconds(passes, started)

    def _together(
        self,
        inputs: Sequence[Tensor],
        dtype: torch.dtype,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
    ) -> Tensor:
        """Return the features (R, B, D) of the inputs (B, ...) of each training."""
        first = self._backbones[0]

        def features_of(own: Mapping[str, Tensor], statistics: Mapping[str, Tensor], batch: Tensor) -> Tensor:
            features: Tensor = functional_call(first, (dict(own), dict(statistics)), (batch,))
            return features

        shared = all(batch is inputs[0] for batch in inputs)  # trainings of one seed have the same batches
        batches, over = (inputs[0], None) if shared else (torch.stack(list(inputs)), 0)
        with autocast(batches.device, dtype):
            features: Tensor = vmap(features_of, in_dims=(0, 0, over))(parameters, buffers, batches)
        return features


def backbone_kind(backbone: nn.Module) -> tuple[object, ...] | None:
    """Return what backbones of one stack have in common: modules, settings, shapes, and what is trained.

    None for a backbone with hooks: they would be called with the values of all trainings at once.

    Example:
        >>> backbone_kind(nn.Linear(2, 3)) == backbone_kind(nn.Linear(2, 3))
        True
        >>> backbone_kind(nn.Dropout(0.1)) == backbone_kind(nn.Dropout(0.2))
        False
    """
    modules = dict(backbone.named_modules())
    if any(hooks for module in modules.values() for name, hooks in vars(module).items() if name.endswith("_hooks")):
        return None
    settings = [(name, type(module), _settings(module)) for name, module in modules.items()]
    tensors = [
        (name, tuple(value.shape), value.dtype, value.device, value.requires_grad)
        for name, value in [*backbone.named_parameters(), *backbone.named_buffers()]
    ]
    return tuple(settings), tuple(tensors)


def _settings(module: nn.Module) -> str:
    """Return the attributes of a module that are not tensors, submodules or hooks, as text."""
    own = {name: value for name, value in vars(module).items() if name not in _OF_EVERY_MODULE}
    return repr({name: value for name, value in own.items() if not isinstance(value, Tensor | nn.Module)})


def _share_seconds(passes: Sequence[BackbonePass], started: float) -> None:
    for request in passes:
        request.seconds += (time.perf_counter() - started) / len(passes)
