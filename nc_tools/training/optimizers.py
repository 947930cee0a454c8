"""The optimizer and its parameter groups: learning rate and weight decay of each."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nc_tools.models.classifier import Classifier
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
    optimizer: torch.optim.Optimizer = config.optimizer.build({"params": groups, "lr": config.lr, "weight_decay": 0.0})
    return optimizer if config.sam is None else SAM(optimizer, config.sam.rho)


def parameter_groups(model: Classifier, config: OptimConfig, loss: nn.Module | None = None) -> list[dict[str, Any]]:
    """Return the parameter groups of a model and its loss for an optimizer.

    There are up to five: backbone with and without weight decay, head with and without, and the loss. Empty groups
    are left out. Each group keeps its peak learning rate under "peak_lr".

    - Parameters with two or more dimensions decay.
    - Parameters with one dimension (biases, normalization gains) decay if ``config.decay_norm_and_bias`` is set.
    - Scalars never decay: decay on a scale would be a temperature schedule.
    - Parameters of the loss have the backbone's learning rate and never decay.

    Args:
        model: The classifier.
        config: Learning rate and weight decay.
        loss: The loss, whose parameters are trained too.

    Raises:
        ValueError: If no parameter of the model is trainable.
    """
    groups: list[dict[str, Any]] = []
    for module, lr in ((model.backbone, config.lr), (model.head, config.lr * config.head_lr_ratio)):
        trainable = [p for p in module.parameters() if p.requires_grad]
        decayed = [p for p in trainable if _decays(p, config)]
        plain = [p for p in trainable if not _decays(p, config)]
        for parameters, decay in ((decayed, config.weight_decay), (plain, 0.0)):
            if parameters:
                groups.append({"params": parameters, "lr": lr, "peak_lr": lr, "weight_decay": decay})
    if not groups:
        raise ValueError(
            "no parameter of the model can be trained: all have requires_grad=False. "
            "Set requires_grad=True for the parameters to train"
        )
    if loss is not None:
        of_model = set(model.parameters())
        own = [p for p in loss.parameters() if p.requires_grad and p not in of_model]
        if own:
            groups.append({"params": own, "lr": config.lr, "peak_lr": config.lr, "weight_decay": 0.0})
    return groups


def _decays(parameter: nn.Parameter, config: OptimConfig) -> bool:
    return parameter.ndim >= 2 or (parameter.ndim == 1 and config.decay_norm_and_bias)
