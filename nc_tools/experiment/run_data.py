"""The data of one training run: its image sets, and batches of them for training and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path

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
    load_images,
    make_loader,
    make_subsets,
    with_noise,
)
from nc_tools.data.first_lines import first_lines
from nc_tools.data.image_set import ImageFiles, Images
from nc_tools.data.label_layers import with_label_files
from nc_tools.data.loader import evaluation_batches
from nc_tools.data.mixing import Batches
from nc_tools.data.resplit import resplit
from nc_tools.data.sampling import Sampling
from nc_tools.evaluation.collect import evaluation_batch
from nc_tools.evaluation.evaluator import Evaluator
from nc_tools.experiment.build import DataFacts, check_outliers
from nc_tools.experiment.run_backbone import preprocessing_of
from nc_tools.experiment.run_config import RunConfig
from nc_tools.losses.loss_term import LossTerm
from nc_tools.models.classifier import Classifier
from nc_tools.models.image_preprocessing import ImagePreprocessing
from nc_tools.records import Batch
from nc_tools.seeds import stream_seed
from nc_tools.training import Processes


@dataclass(frozen=True)
class RunData:
    """The image sets of one run, and what their batches depend on.

    Attributes:
        sources: The image sets; the training labels include label noise and corrections.
        subsets: The training subset, the hold-out and other subsets, as indices into ``sources.train``.
        given_labels: Training labels before label noise or corrections (N,), int64.
        config: The arm.
        seed: Seed of the run.
        device: Where batches go.
        processes: The processes that take the same training batches and make them together; None: this one alone.
    """

    sources: Sources
    subsets: Subsets
    given_labels: Tensor
    config: RunConfig
    seed: int
    device: torch.device
    processes: Processes | None = field(default=None, kw_only=True)

    def training_batches(self, indices: Tensor, views: int = 1, *, sampling: Sampling | None = None) -> BatchLoader:
        """Return shuffled, augmented batches of the training images at the given indices.

        Args:
            indices: (M,), int64.
            views: 1 or 2 augmented views of each sample, as the loss needs.
            sampling: Replaces the sampling of the arm's configuration.
        """
        images = self.sources.train
        options = replace(self._options_for(images), views=views, sampling=sampling or self.config.data.sampling)
        return make_loader(images, indices, options)

    def batches_for(self, loss: LossTerm, indices: Tensor) -> Batches:
        """Return training batches with what the loss needs: a second augmented view of each image, or outlier images.

        Outliers are augmented and normalized as training images are, and there are as many of them in a batch. Their
        order is drawn from the random stream "outliers".

        Raises:
            ValueError: If the loss needs outlier images but the configuration names none.
        """
        batches = self.training_batches(indices, loss.views)
        if not loss.needs_outliers:
            return batches
        check_outliers(self.config, loss)
        outliers = self.sources.outliers
        if outliers is None:
            return BlendedOutliers(batches)
        options = replace(self._options_for(outliers), seed=stream_seed(self.seed, "outliers"))
        return WithOutliers(batches, make_loader(outliers, torch.arange(len(outliers)), options))

    def _options_for(self, images: Images) -> BatchOptions:
        """Return the options of training batches; several processes read files together if all of them read files."""
        processes = self.processes
        if processes is None or processes.any(not isinstance(images, ImageFiles)):
            return self.batch_options()
        return replace(self.batch_options(), readers=processes)

    def plain_batches(self, images: Images, indices: Tensor | None = None) -> Iterator[Batch]:
        """Yield batches of a data set without shuffling and augmentation: of all images, or those at the indices."""
        options = self.batch_options()
        size = images.shape[1] if self.preprocessing is None else self.preprocessing.size
        return evaluation_batches(images, indices, replace(options, batch_size=evaluation_batch(size)))

    def evaluator(self, model: Classifier, facts: DataFacts) -> Evaluator:
        """Return an evaluator of a model on this run's images, with the run's number format, such as bfloat16."""
        dtype = self.config.training.dtype_on(self.device)
        return Evaluator(model, self.plain_batches, class_counts=facts.class_counts, dtype=dtype)

    def first_lines(self) -> list[str]:
        """Return what is to be said about the data before anything trains."""
        return first_lines(self.sources, self.config.data, self.subsets, self.given_labels)

    @cached_property
    def preprocessing(self) -> ImagePreprocessing | None:
        """What the backbone expects of its images; None for images as the data have them."""
        channels, size, _ = self.sources.train.shape
        return preprocessing_of(self.config.model, in_channels=channels, image_size=size)

    def batch_options(self) -> BatchOptions:
        """Return the options of all batches of this run, of training images and of outlier images."""
        training, expected = self.config.training, self.preprocessing
        return BatchOptions(
            batch_size=training.batch_size,
            mean=self.sources.mean if expected is None else expected.mean,
            std=self.sources.std if expected is None else expected.std,
            geometry=None if expected is None else expected.geometry,
            augment=augment_for(self.config.data, self.sources.train.shape[1]),
            seed=self.seed,
            epochs=training.epochs,
            device=self.device,
            channels_last=training.layout_on(self.device) is torch.channels_last,
        )


def open_data(
    config: RunConfig,
    *,
    seed: int,
    device: torch.device,
    cache: Path,
    progress: Callable[[int, int], None] | None = None,
) -> RunData:
    """Load the images of a configuration, then draw the label noise and the subsets that a seed decides.

    Args:
        config: The arm.
        seed: Seed of the run.
        device: Where batches go.
        cache: Folder for decoded image folders.
        progress: Called as ``progress(done, total)`` while image files are decoded.
    """
    images = _load_once(config.data.without_labels(), cache, progress)
    if config.data.resplit is not None:
        images = resplit(images, config.data.resplit, seed)
    sources = with_label_files(images, config.data)
    given = sources.train.labels if sources.given_labels is None else sources.given_labels
    if config.data.noise is not None:
        sources = replace(sources, train=with_noise(sources.train, config.data.noise, seed))
    subsets = make_subsets(sources, config.data, seed, given)
    subsets.check_holdout()
    return RunData(sources, subsets, given, config, seed, device)


@lru_cache(maxsize=1)
def _load_once(config: DataConfig, cache: Path, progress: Callable[[int, int], None] | None) -> Sources:
    """Load a run's images; a worker that makes several runs of one comparison loads them once, for any labels."""
    return load_images(config, cache, progress)


def facts_of(sources: Sources, labels: Tensor) -> DataFacts:
    """Return facts about loaded data, such as the image size, and the class counts of these training labels."""
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
        images_fingerprint=sources.images_fingerprint,
        reading=tuple(sorted(sources.reading.choices.items())),
        num_samples=len(sources.train),
    )
