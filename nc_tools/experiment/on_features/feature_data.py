"""The data of runs on fixed features: what ``RunData`` is for images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from nc_tools._support.by_content import ByContent
from nc_tools.data import DataConfig, class_counts, make_subsets, with_noise
from nc_tools.data.image_set import Images
from nc_tools.data.label_layers import with_label_files
from nc_tools.data.mixing import Batches
from nc_tools.data.sampling import Sampling
from nc_tools.data.sources import Sources
from nc_tools.evaluation.evaluator import Evaluator
from nc_tools.experiment.build import DataFacts
from nc_tools.experiment.on_features.feature_sources import FeatureSources, open_feature_sources
from nc_tools.experiment.on_features.head_evaluator import HeadEvaluator
from nc_tools.experiment.run_config import RunConfig
from nc_tools.experiment.run_data import RunData
from nc_tools.features import FeatureLoader, FeatureSet, feature_batches, fit_standardize
from nc_tools.losses.loss_term import LossTerm
from nc_tools.models.classifier import Classifier
from nc_tools.records import Batch

_EVALUATED_AT_ONCE = 8192


@dataclass(frozen=True)
class FeatureData(RunData):
    """The feature sets of the runs of one seed; its training labels include the label noise.

    Attributes:
        features: The sets, with what their records say about the images.
        kept_results: What the evaluations of the seed's runs share: scaled features, and measures of features alone.
    """

    features: FeatureSources
    kept_results: ByContent = field(default_factory=ByContent, compare=False, repr=False)

    def evaluator(self, model: Classifier, facts: DataFacts) -> Evaluator:
        """Return an evaluator of a model; what concerns the features alone is computed once for the runs of a seed."""
        return HeadEvaluator(
            model,
            self.plain_batches,
            class_counts=facts.class_counts,
            dtype=self.config.training.dtype_on(self.device),
            kept_results=self.kept_results,
        )

    @property
    def train(self) -> FeatureSet:
        """The training set, with the labels that training uses."""
        return cast(FeatureSet, self.sources.train)

    def training_batches(self, indices: Tensor, views: int = 1, *, sampling: Sampling | None = None) -> Batches:  # type: ignore[override]
        """Return shuffled batches of the training samples at the given indices.

        Raises:
            ValueError: If two views of each sample are requested in one batch.
        """
        if views != 1:
            raise ValueError("a batch of features has one view of each sample, got views=2: use a loss that needs one")
        training = self.config.training
        return FeatureLoader(
            self.train,
            indices,
            batch_size=training.batch_size,
            seed=self.seed,
            sampling=sampling or self.config.data.sampling,
            epochs=training.epochs,
            device=self.device,
        )

    def batches_for(self, loss: LossTerm, indices: Tensor) -> Batches:
        """Return training batches with what the loss needs; features come without views and outliers.

        Raises:
            ValueError: If the loss needs outliers.
        """
        if loss.needs_outliers:
            raise ValueError(f"{type(loss).__name__} trains against outlier images, which fixed features do not have")
        return self.training_batches(indices, loss.views)

    def plain_batches(self, images: Images, indices: Tensor | None = None) -> Iterator[Batch]:
        """Yield batches of a data set without shuffling: of all its samples, or of those at the given indices."""
        return feature_batches(cast(FeatureSet, images), indices, _EVALUATED_AT_ONCE, self.device)

    def first_lines(self) -> list[str]:
        """Return what is to be said about the data before anything trains."""
        return []  # said by what computed or read the features

    def scaling(self, indices: Tensor, *, standardize: bool) -> nn.Module:
        """Return the module before the head: standardization fitted on the samples at ``indices``, or the identity."""
        return (fit_standardize(self.train, indices) if standardize else nn.Identity()).to(self.device)

    def facts(self, indices: Tensor) -> DataFacts:
        """Return facts about the data, and the class counts of the samples at ``indices``."""
        sources, train = self.features, self.train
        channels, size, _ = sources.image_shape
        return DataFacts(
            in_channels=channels,
            image_size=size,
            num_classes=train.num_classes,
            class_counts=tuple(class_counts(train.labels[indices], train.num_classes).tolist()),
            classes=train.classes,
            mean=sources.mean,
            std=sources.std,
            fingerprint=self.sources.fingerprint,
            num_samples=len(train),
            images_fingerprint=sources.images_fingerprint,
        )


@lru_cache(maxsize=8)
def labeled_sources(path: Path, config: DataConfig) -> Sources:
    """Return the feature sets of a comparison with the labels and corrections of a configuration.

    Args:
        path: The file of the feature sets.
        config: The data settings. The result is cached: the runs of a process share it.

    Raises:
        FileNotFoundError: If a file of labels is missing.
        ValueError: If it does not fit the samples.
    """
    sources = open_feature_sources(path).as_sources()
    if sources.train.paths is None and any((config.labels, config.clean, config.corrections)):
        raise ValueError(
            f"labels of another file are matched by id, but {path.name} has no ids: save it with ids=, one for each "
            "row, equal to the column of the label file that names the samples"
        )
    return with_label_files(sources, config)


def open_feature_data(config: RunConfig, path: Path, *, seed: int, device: torch.device) -> FeatureData:
    """Open the features of a comparison, with an arm's labels, and apply the label noise and the subsets of a seed.

    Args:
        config: The arm.
        path: The file of the feature sets.
        seed: Seed of the runs.
        device: Where batches go.
    """
    features = open_feature_sources(path)
    sources = labeled_sources(path, config.data)
    # A long tail is cut by these, before labels are corrected or made wrong.
    given = sources.train.labels if sources.given_labels is None else sources.given_labels
    if config.data.noise is not None:
        sources = replace(sources, train=with_noise(sources.train, config.data.noise, seed))
    subsets = make_subsets(sources, config.data, seed, given)
    subsets.check_holdout()
    return FeatureData(sources, subsets, given, config, seed, device, features)
