"""Refuse settings of arms and protocol that would change nothing where heads are trained on fixed features."""

from __future__ import annotations

from typing import Any

from nc_tools.experiment.model_config import ModelConfig
from nc_tools.experiment.run_config import Protocol, RunConfig
from nc_tools.training import OptimConfig, TrainConfig

_OF_A_TRAINED_BACKBONE: dict[str, tuple[str, ...]] = {
    "optim": ("layer_decay", "head_first"),
    "training": ("precision", "channels_last", "compile"),
    "model": ("freeze_norm", "lora_layers"),
}
_NOT_READ: tuple[str, ...] = ("holdout_draws", "curve_points", "curve_samples", "transfer_samples", "check_transition")
_NOT_READ += ("fine_tuning", "rank_layers")


def check_head_settings(name: str, arm: RunConfig) -> None:
    """Check that every setting of an arm has an effect on runs on fixed features.

    Args:
        name: Name of the arm.
        arm: Its configuration.

    Raises:
        ValueError: If one would change nothing; the message names it and says what to do.
    """
    plain: dict[str, Any] = {"optim": OptimConfig(), "training": TrainConfig(), "model": ModelConfig()}
    for section, fields in _OF_A_TRAINED_BACKBONE.items():
        for field in fields:
            value = getattr(getattr(arm, section), field)
            if value not in (getattr(plain[section], field), "float32"):  # heads train in float32 in any case
                raise ValueError(
                    f"arm {name}: {section}.{field}={value} is about a backbone that is trained, and the backbone of "
                    f"fixed features is not: leave it out, or train the network too, with a recipe such as "
                    f"recipes/long_tail.py and --train last:1"
                )


def check_protocol_settings(protocol: Protocol) -> None:
    """Check that every rule of a protocol has an effect on runs on fixed features.

    Raises:
        ValueError: If one would change nothing; the message names it.
    """
    if not protocol.tune_each_seed:
        raise ValueError(
            "protocol.tune_each_seed=False is not possible on fixed features, where each seed tunes on a hold-out of "
            "its own: remove that setting"
        )
    plain = Protocol(seeds=protocol.seeds, tuning_seeds=protocol.tuning_seeds, curve_points=1)
    for field in _NOT_READ:
        value = getattr(protocol, field)
        if value != getattr(plain, field):
            raise ValueError(
                f"protocol.{field}={value} is not used by runs on fixed features: leave it out, or use a recipe"
            )
