"""The optimizer and its parameter groups: learning rate and weight decay of each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from nc_tools.models.classifier import Classifier
from nc_tools.specs import Spec
from nc_tools.surgery.layer_groups import layer_groups
from nc_tools.training.sam import SAM
from nc_tools.training.train_config import OptimConfig


def make_optimizer(model: Classifier, config: OptimConfig, loss: nn.Module | None = None) -> torch.optim.Optimizer:
    """Return an optimizer over the parameters of a model and its loss, with the groups of :func:`parameter_groups`.

    Args:
        model: The classifier.
        config: Learning rate and weight decay. If ``config.sam`` is set, the optimizer is wrapped in :class:`SAM`.
        loss: The loss, whose parameters are trained too.

    Raises:
        ValueError: If no parameter of the model is trainable.
    """
    groups = parameter_groups(model, config, loss)
    spec = fused(config.optimizer)
    optimizer: torch.optim.Optimizer = spec.build({"params": groups, "lr": config.lr, "weight_decay": 0.0})
    return optimizer if config.sam is None else SAM(optimizer, config.sam.rho)


def fused(optimizer: Spec[torch.optim.Optimizer]) -> Spec[torch.optim.Optimizer]:
    """Return the spec of an optimizer with PyTorch's fused kernel where there is one, unless the spec says otherwise.

    The fused kernel passes over the memory of all parameters once: three times as fast for a small network on a CPU.

    Example:
        >>> from nc_tools.specs import spec
        >>> fused(spec(torch.optim.SGD, momentum=0.9)).arguments
        {'momentum': 0.9, 'fused': True}
    """
    chosen = not all(optimizer.leaves_open(name) for name in ("fused", "foreach", "differentiable"))
    if chosen or not issubclass(optimizer.cls, torch.optim.SGD | torch.optim.Adam | torch.optim.AdamW):
        return optimizer
    return optimizer.with_arguments({"fused": True})


def parameter_groups(model: Classifier, config: OptimConfig, loss: nn.Module | None = None) -> list[dict[str, Any]]:
    """Return the parameter groups of a model and its loss for an optimizer.

    There are groups with and without weight decay for the backbone (for each block of it, if rates differ by depth)
    and for the head, and one for the loss. Empty groups are left out. Each group keeps its peak learning rate under
    "peak_lr", and under "joint_lr" the one that it has after ``head_first``.

    - Parameters with two or more dimensions decay.
    - Parameters with one dimension (biases, normalization gains) decay if ``config.decay_norm_and_bias`` is set.
    - Single numbers never decay: decay on a scale would be a temperature schedule.
    - Parameters of the loss have the backbone's learning rate and never decay.

    Args:
        model: The classifier.
        config: Learning rate and weight decay.
        loss: The loss, whose parameters are trained too.

    Raises:
        ValueError: If no parameter of the model is trainable.
    """
    groups: list[dict[str, Any]] = []
    head_lr = config.lr * config.head_lr_ratio
    parts = [(list(parameters), rate, rate) for parameters, rate in _backbone_rates(model.backbone, config)]
    parts.append((list(model.head.parameters()), head_lr, config.lr if config.head_first else head_lr))
    for parameters, lr, joint_lr in parts:
        trainable = [p for p in parameters if p.requires_grad]
        decayed = [p for p in trainable if _decays(p, config)]
        plain = [p for p in trainable if not _decays(p, config)]
        for chosen, decay in ((decayed, config.weight_decay), (plain, 0.0)):
            if chosen:
                rates = {"lr": lr, "peak_lr": lr, "joint_lr": joint_lr}
                groups.append({"params": chosen, **rates, "weight_decay": decay})
    if not groups:
        raise ValueError(
            "no parameter of the model can be trained: all have requires_grad=False. "
            "Set requires_grad=True for the parameters to train"
        )
    if loss is not None:
        of_model = set(model.parameters())
        own = [p for p in loss.parameters() if p.requires_grad and p not in of_model]
        if own:
            rates = dict.fromkeys(("lr", "peak_lr", "joint_lr"), config.lr)
            groups.append({"params": own, **rates, "weight_decay": 0.0})
    return groups


def _backbone_rates(backbone: nn.Module, config: OptimConfig) -> list[tuple[Iterable[nn.Parameter], float]]:
    """Return the parameters of a backbone with their peak learning rates: all of them, or those of each block."""
    if config.layer_decay == 1:
        return [(backbone.parameters(), config.lr)]
    groups = layer_groups(backbone)
    return [
        ([backbone.get_parameter(name) for name in names], config.lr * config.layer_decay**below)
        for below, names in zip(range(len(groups), 0, -1), groups, strict=True)
    ]


def _decays(parameter: nn.Parameter, config: OptimConfig) -> bool:
    return parameter.ndim >= 2 or (parameter.numel() > 1 and config.decay_norm_and_bias)
