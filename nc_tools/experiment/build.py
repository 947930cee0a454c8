"""From a job to the objects that a run is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nc_tools.data import (
    BatchLoader,
    BatchOptions,
    BlendedOutliers,
    DataConfig,
    Sources,
    Subsets,
    WithOutliers,
    augment_for,
    class_counts,
    load_data,
    make_loader,
    make_subsets,
    with_noise,
)
from nc_tools.data.image_set import Images
from nc_tools.data.loader import evaluation_batches
from nc_tools.data.mixing import Batches
from nc_tools.data.sampling import Sampling
from nc_tools.experiment.run_config import RunConfig
from nc_tools.heads.head import Head
from nc_tools.losses.loss_term import LossTerm
from nc_tools.models.backbones import build_backbone, feature_width
from nc_tools.models.classifier import Classifier
from nc_tools.records import Batch
from nc_tools.seeds import stream, stream_seed

Told = Callable[[int, int], None]
EVALUATION_BATCH = 512


@dataclass(frozen=True)
class DataFacts:
    """What a model must know of its data, and all that is needed to build it again without them."""

    in_channels: int
    image_size: int
    num_classes: int
    class_counts: tuple[int, ...]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    num_samples: int = 0


@lru_cache(maxsize=1)
def loaded(config: DataConfig, cache: Path, told: Told | None = None) -> Sources:
    """Load a run's images; a worker that makes several runs loads them once."""
    return load_data(config, cache, told)


def facts_of(sources: Sources, labels: Tensor) -> DataFacts:
    """Gather the facts of a training set with these labels."""
    channels, size, _ = sources.train.shape
    return DataFacts(
        in_channels=channels,
        image_size=size,
        num_classes=sources.num_classes,
        class_counts=tuple(class_counts(labels, sources.num_classes).tolist()),
        classes=tuple(sources.train.classes),
        mean=tuple(sources.mean.tolist()),
        std=tuple(sources.std.tolist()),
        fingerprint=sources.fingerprint,
        num_samples=len(sources.train),
    )


def build_model(config: RunConfig, facts: DataFacts, *, seed: int, draw: int) -> Classifier:
    """Build an arm's classifier: the backbone from the stream "init", the head's learned part from the stream "head".

    The two streams are apart, so that all arms of a seed start from the same backbone whatever their heads draw.
    """
    shape = {"in_channels": facts.in_channels, "image_size": facts.image_size}
    backbone = build_backbone(config.model.name, width=config.model.width, seed=seed, **shape)
    width = feature_width(backbone, **shape)
    return Classifier(backbone, build_head(config, facts, width, generator=stream(seed, "head"), draw=draw))


def build_head(config: RunConfig, facts: DataFacts, feature_dim: int, *, generator: torch.Generator, draw: int) -> Head:
    """Build an arm's head: its learned part from the generator, its frame from the draw."""
    known: dict[str, Any] = {
        "feature_dim": feature_dim,
        "num_classes": facts.num_classes,
        "class_counts": facts.class_counts,
        "generator": generator,
        "frame_seed": draw,
    }
    head: Head = config.head.build(known)
    return head


def build_loss(config: RunConfig, facts: DataFacts, feature_dim: int, *, transition: Tensor | None = None) -> LossTerm:
    """Build an arm's loss from the class counts of the samples that it trains on.

    ``num_samples`` is the size of the whole training set, in which ``Batch.index`` counts; ``transition`` is an
    estimate of the label noise, where there is one.
    """
    known = {
        "feature_dim": feature_dim,
        "num_classes": facts.num_classes,
        "class_counts": facts.class_counts,
        "num_samples": facts.num_samples,
        **({} if transition is None else {"transition": transition}),
    }
    loss: LossTerm = config.loss.build(known)
    return loss


def check_outliers(config: RunConfig, loss: LossTerm) -> None:
    """Refuse a loss that trains against outliers where the data have none.

    Raises:
        ValueError: If so.
    """
    if loss.needs_outliers and config.data.outliers is None:
        raise ValueError(
            f"{type(loss).__name__} trains against images of no class, and data.outliers names none: write "
            f"--set data.outliers=imagefolder:PATH, or data.outliers=blended for averages of training images"
        )


@dataclass(frozen=True)
class Data:
    """The sets of one run on its device; the training labels are those that training sees, noise included."""

    sources: Sources
    subsets: Subsets
    config: RunConfig
    seed: int
    device: torch.device

    def training_batches(self, indices: Tensor, views: int = 1, *, sampling: Sampling | None = None) -> BatchLoader:
        """Shuffled, augmented batches of these training samples, in one or two views as the loss needs.

        They are drawn as the arm says, or by another sampling that is given.
        """
        options = replace(self._batch_options(), views=views, sampling=sampling or self.config.data.sampling)
        return make_loader(self.sources.train, indices, options)

    def batches_for(self, loss: LossTerm, indices: Tensor) -> Batches:
        """Return :meth:`training_batches` as a loss needs them: with a second view, with outliers.

        Outliers are augmented and normalized as training images are, as many to a batch. Those of a set come in an
        order of their own, from the stream "outliers".

        Raises:
            ValueError: If the loss needs outliers and the data have none.
        """
        batches = self.training_batches(indices, loss.views)
        if not loss.needs_outliers:
            return batches
        check_outliers(self.config, loss)
        outliers = self.sources.outliers
        if outliers is None:
            return BlendedOutliers(batches)
        options = replace(self._batch_options(), seed=stream_seed(self.seed, "outliers"))
        return WithOutliers(batches, make_loader(outliers, torch.arange(len(outliers)), options))

    def clean_labels(self, indices: Tensor) -> Tensor | None:
        """Return the true labels of these training samples, where others are trained on; to report, never to choose."""
        clean = self.sources.train.clean_labels
        return None if clean is None else clean[indices].to(self.device)

    def plain_batches(self, images: Images, indices: Tensor | None = None) -> Iterator[Batch]:
        """Batches of a set in its own order, not augmented."""
        return evaluation_batches(images, indices, replace(self._batch_options(), batch_size=EVALUATION_BATCH))

    def _batch_options(self) -> BatchOptions:
        """Return how all batches of this run are made: training images and outliers alike."""
        training = self.config.training
        return BatchOptions(
            batch_size=training.batch_size,
            mean=self.sources.mean,
            std=self.sources.std,
            augment=augment_for(self.config.data, self.sources.train.shape[1]),
            seed=self.seed,
            epochs=training.epochs,
            device=self.device,
            channels_last=training.layout_on(self.device) is torch.channels_last,
        )


def open_data(config: RunConfig, *, seed: int, device: torch.device, cache: Path, told: Told | None = None) -> Data:
    """Load the images of a configuration, draw the label noise of a seed, and its subsets."""
    sources = loaded(config.data, cache, told)
    tail_labels = sources.train.labels
    if config.data.noise is not None:
        sources = replace(sources, train=with_noise(sources.train, config.data.noise, seed))
    return Data(sources, make_subsets(sources, config.data, seed, tail_labels), config, seed, device)
