"""Parameter groups: which parameters decay, and whose rate is whose."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nc_tools.models.classifier import Classifier
from nc_tools.training.sam import SAM
from nc_tools.training.train_config import OptimConfig


def make_optimizer(model: Classifier, config: OptimConfig, loss: nn.Module | None = None) -> torch.optim.Optimizer:
    """Build the optimizer over up to five groups: backbone and head, decayed and not, and what the loss learns.

    Weights (two dimensions and more) decay; biases and normalization gains only if asked; scales never: decay on a
    scale is a temperature schedule that nobody asked for. A head without parameters leaves its groups out. What a loss
    learns, such as thresholds, goes at the backbone's rate and never decays. Each group keeps its peak rate under
    "peak_lr". Where sharpness-aware steps are asked for, the optimizer comes wrapped in SAM.

    Args:
        model: The classifier.
        config: Rates and decay.
        loss: The loss, whose own parameters are trained too.

    Raises:
        ValueError: If nothing in the model is trainable.
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
        raise ValueError("nothing in the model can be trained: every parameter has requires_grad=False")
    if loss is not None:
        of_model = set(model.parameters())
        own = [p for p in loss.parameters() if p.requires_grad and p not in of_model]
        if own:
            groups.append({"params": own, "lr": config.lr, "peak_lr": config.lr, "weight_decay": 0.0})
    optimizer: torch.optim.Optimizer = config.optimizer.build({"params": groups, "lr": config.lr, "weight_decay": 0.0})
    return optimizer if config.sam is None else SAM(optimizer, config.sam.rho)


def _decays(parameter: nn.Parameter, config: OptimConfig) -> bool:
    return parameter.ndim >= 2 or (parameter.ndim == 1 and config.decay_norm_and_bias)


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set each group's rate to its peak times the factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
