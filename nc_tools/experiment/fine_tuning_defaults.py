"""Optimizer and learning rates that suit a pretrained network, where a recipe has those of training from scratch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch

from nc_tools.decoding.image_file import FileInterpolation
from nc_tools.experiment.run_config import Protocol, RunConfig, TunedParameter
from nc_tools.models.pretrained import expected_preprocessing
from nc_tools.specs import spec
from nc_tools.training import OptimConfig
from nc_tools.training.trained_part import TrainedPart

# Half a decade apart, around the rates of published fine-tuning with AdamW at batches of about 128.
_RATES = {
    "all": (3e-6, 1e-5, 3e-5, 1e-4, 3e-4),
    "last": (1e-5, 3e-5, 1e-4, 3e-4, 1e-3),
    "lora": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    "head": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
}
_WEIGHT_DECAY = 1e-2
_HEAD_RATIO = 10.0


def fine_tuning_config(config: RunConfig) -> RunConfig:
    """Return an arm with AdamW instead of SGD, and ten times the rate for its new head; or the arm as it is.

    Only an arm with the default settings of the optimizer is changed. One optimizer holds for all arms: AdamW, because
    one rate serves networks of every kind. The head starts at random and the backbone does not, so the head has ten
    times the backbone's rate; where only the head is trained, the rate is the head's.

    Example:
        >>> from nc_tools.experiment import ModelConfig
        >>> from nc_tools.heads import LinearHead
        >>> from nc_tools.losses import CrossEntropyLoss
        >>> network = ModelConfig(name="torchvision:resnet18", weights="pretrained")
        >>> arm = RunConfig(head=spec(LinearHead), loss=spec(CrossEntropyLoss), model=network)
        >>> fine_tuning_config(arm).optim.optimizer.cls.__name__
        'AdamW'
    """
    if not (config.model.is_pretrained and config.optim == OptimConfig()):
        return config
    kind = TrainedPart.parse(config.model.train).kind
    optim = dataclasses.replace(
        config.optim,
        optimizer=spec(torch.optim.AdamW),
        lr=_RATES[kind][2],
        weight_decay=_WEIGHT_DECAY,
        head_lr_ratio=1.0 if kind == "head" else _HEAD_RATIO,
    )
    tuned = config.tuned
    if tuned == TunedParameter():
        tuned = dataclasses.replace(tuned, values=(_WEIGHT_DECAY / 10, _WEIGHT_DECAY * 10))
    return dataclasses.replace(config, optim=optim, tuned=tuned)


def with_files_read_for(arms: Mapping[str, RunConfig]) -> dict[str, RunConfig]:
    """Return arms whose image files are read with the side and the interpolation that their pretrained networks expect.

    All arms of a comparison need the same data, so they get the largest side from which a network crops, and the
    interpolation of the first pretrained network.
    """
    expected = [
        expected_preprocessing(
            config.model.name, image_size=config.model.image_size, crop_fraction=config.model.crop_fraction
        )
        for config in arms.values()
        if config.model.is_pretrained
    ]
    if not expected:
        return dict(arms)
    side = max(preprocessing.resize_size for preprocessing in expected)
    interpolation: FileInterpolation = "bicubic" if expected[0].interpolation == "bicubic" else "bilinear"
    return {
        name: dataclasses.replace(
            config, data=dataclasses.replace(config.data, size_limit=side, interpolation=interpolation)
        )
        for name, config in arms.items()
    }


def fine_tuning_rates(protocol: Protocol, config: RunConfig) -> Protocol:
    """Return the protocol with rates for fine-tuning the baseline, unless it has rates of its own."""
    if not config.model.is_pretrained or protocol.rates != Protocol().rates:
        return protocol
    return dataclasses.replace(protocol, rates=_RATES[TrainedPart.parse(config.model.train).kind])
