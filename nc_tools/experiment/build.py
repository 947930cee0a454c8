"""Build the model and the loss of a training run from its configuration and the shape of its data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nc_tools.experiment.run_config import RunConfig
from nc_tools.heads.head import Head
from nc_tools.losses.loss_term import LossTerm
from nc_tools.models.backbones import build_backbone, feature_width
from nc_tools.models.classifier import Classifier
from nc_tools.seeds import stream


@dataclass(frozen=True)
class DataFacts:
    """Facts about a data set, such as image size and class counts, that suffice to build its model without the data."""

    in_channels: int
    image_size: int
    num_classes: int
    class_counts: tuple[int, ...]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    num_samples: int = 0
    images_fingerprint: str = ""
    reading: tuple[tuple[str, str], ...] = ()


def build_model(config: RunConfig, facts: DataFacts, *, seed: int, draw: int) -> Classifier:
    """Return the untrained classifier of a configuration; its random weights are decided by seed and draw.

    The backbone reads the random stream "init", the head the stream "head". The streams are separate, so all arms of a
    seed start from the same backbone, whatever their heads draw.
    """
    shape = {"in_channels": facts.in_channels, "image_size": facts.image_size}
    backbone = build_backbone(config.model.name, width=config.model.width, seed=seed, **shape)
    width = feature_width(backbone, **shape)
    return Classifier(backbone, build_head(config, facts, width, generator=stream(seed, "head"), draw=draw))


def build_head(config: RunConfig, facts: DataFacts, feature_dim: int, *, generator: torch.Generator, draw: int) -> Head:
    """Return the head of a configuration; the generator decides its learned weights, ``draw`` its fixed vectors."""
    values: dict[str, Any] = {
        "feature_dim": feature_dim,
        "num_classes": facts.num_classes,
        "class_counts": facts.class_counts,
        "generator": generator,
        "frame_seed": draw,
    }
    head: Head = config.head.build(values)
    return head


def build_loss(config: RunConfig, facts: DataFacts, feature_dim: int, *, transition: Tensor | None = None) -> LossTerm:
    """Return the loss function of a configuration.

    Args:
        config: The arm.
        facts: Class counts are those of the samples trained on; ``num_samples`` is the size of the whole training set,
            to which ``Batch.index`` refers.
        feature_dim: Width of the features.
        transition: Estimated transition matrix (K, K) of the label noise, where there is one.
    """
    values = {
        "feature_dim": feature_dim,
        "num_classes": facts.num_classes,
        "class_counts": facts.class_counts,
        "num_samples": facts.num_samples,
        **({} if transition is None else {"transition": transition}),
    }
    loss: LossTerm = config.loss.build(values)
    return loss


def check_outliers(config: RunConfig, loss: LossTerm) -> None:
    """Raise a ValueError if the loss needs outlier images but the configuration names none."""
    if loss.needs_outliers and config.data.outliers is None:
        raise ValueError(
            f"{type(loss).__name__} trains against outlier images, but data.outliers is None: set data.outliers to "
            f"'imagefolder:PATH', or to 'blended' for averages of training images"
        )
