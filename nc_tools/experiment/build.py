"""Build the model and the loss of a training run from its configuration and the shape of its data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nc_tools.experiment.run_backbone import new_backbone, preprocessing_of, restored_backbone
from nc_tools.experiment.run_config import RunConfig
from nc_tools.heads.head import Head
from nc_tools.losses.loss_term import LossTerm
from nc_tools.models.classifier import Classifier
from nc_tools.models.feature_width import feature_width
from nc_tools.models.image_preprocessing import ImagePreprocessing
from nc_tools.seeds import stream


@dataclass(frozen=True)
class DataFacts:
    """Facts about a data set, such as image size and class counts, that suffice to build its model without the data.

    Attributes:
        in_channels: Number of channels of the data's images, C.
        image_size: Side of the data's images in pixels.
        num_classes: K.
        class_counts: Number of training samples of each class (K,).
        classes: Names of the classes (K,).
        mean: Mean of each channel (C,).
        std: Standard deviation of each channel (C,).
        fingerprint: Fingerprint of the data.
        num_samples: Size of the whole training set.
        preprocessing: What the backbone expects of its images; None for images as the data have them.
        images_fingerprint: Fingerprint of the data without the training labels.
        reading: How the source was read, as pairs of a choice and its value.
    """

    in_channels: int
    image_size: int
    num_classes: int
    class_counts: tuple[int, ...]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    num_samples: int = 0
    preprocessing: ImagePreprocessing | None = None
    images_fingerprint: str = ""
    reading: tuple[tuple[str, str], ...] = ()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of the network's input: that of the preprocessing, or else that of the data."""
        if self.preprocessing is None:
            return self.in_channels, self.image_size, self.image_size
        return self.preprocessing.channels, self.preprocessing.size, self.preprocessing.size


def build_model(
    config: RunConfig, facts: DataFacts, *, seed: int, frame_seed: int | None, restore: Path | None = None
) -> Classifier:
    """Return the untrained classifier of a configuration; the two seeds decide its random weights.

    The backbone reads the random stream "init", the head the stream "head". The streams are separate, so all arms of a
    seed start from the same backbone, whatever their heads draw.

    Args:
        config: The arm.
        facts: Facts about its data.
        seed: Seed of the random weights.
        frame_seed: Seed of the head's random frame; None for a head without one.
        restore: The folder of a finished run, whose weights are to be loaded next: no pretrained weights are read.
    """
    channels, size = facts.in_channels, facts.image_size
    model, samples = config.model, facts.num_samples
    if restore is None:
        backbone = new_backbone(model, in_channels=channels, image_size=size, num_samples=samples, seed=seed)
        preprocessing = preprocessing_of(model, in_channels=channels, image_size=size)
        channels, size, _ = replace(facts, preprocessing=preprocessing).image_shape
    else:
        backbone = restored_backbone(
            model, facts.preprocessing, restore, in_channels=channels, image_size=size, num_samples=samples
        )
        channels, size, _ = facts.image_shape
    width = feature_width(backbone, in_channels=channels, image_size=size, name=model.name)
    return Classifier(backbone, build_head(config, facts, width, generator=stream(seed, "head"), frame_seed=frame_seed))


def build_head(
    config: RunConfig, facts: DataFacts, feature_dim: int, *, generator: torch.Generator, frame_seed: int | None
) -> Head:
    """Return the head of a configuration; the generator decides its learned weights, ``frame_seed`` its fixed vectors.

    A head without fixed vectors has no argument ``frame_seed`` and ignores it.
    """
    values: dict[str, Any] = {
        "feature_dim": feature_dim,
        "num_classes": facts.num_classes,
        "class_counts": facts.class_counts,
        "generator": generator,
        "frame_seed": 0 if frame_seed is None else frame_seed,
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
