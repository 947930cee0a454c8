"""The start of a run's head: computed from the features of the training samples, before it is trained or instead."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from nc_tools.experiment.build import DataFacts
from nc_tools.experiment.job import Job
from nc_tools.experiment.run_data import RunData
from nc_tools.features import FeatureSet, Standardize, fit_standardize
from nc_tools.models.classifier import Classifier
from nc_tools.seeds import stream
from nc_tools.training import StartSamples


def compute_start(job: Job, data: RunData, facts: DataFacts, model: Classifier, indices: Tensor) -> float:
    """Fit the standardization of a new model's features, and compute its arm's start; return the seconds spent.

    Nothing is done for an arm without either.

    Args:
        job: The run.
        data: Its samples.
        facts: Facts of the samples trained on.
        model: Changed in place.
        indices: The samples trained on (M,), int64.
    """
    start, standardize = job.config.start, job.config.model.standardize
    if start is None and not standardize:
        return 0.0
    started = time.perf_counter()
    collected = data.evaluator(model, facts).collect(data.sources.train, indices)
    features = collected.features
    if standardize:
        labels = torch.zeros(len(features), dtype=torch.int64)
        part = FeatureSet(features.cpu(), labels, ("any",), "features to standardize")
        scaling = fit_standardize(part, torch.arange(len(features))).to(features.device)
        standardization_of(model).copy_from(scaling)
        features = scaling(features)
    if start is not None:
        samples = StartSamples(features, collected.labels, facts.num_classes)
        start.apply(model.head, samples, start_generator(job.seed))
    return time.perf_counter() - started


def standardization_of(model: Classifier) -> Standardize:
    """Return the standardization of the features of a model that has one."""
    return next(module for module in model.backbone.modules() if isinstance(module, Standardize))


def start_generator(seed: int) -> torch.Generator:
    """Return the generator of a start's random choices."""
    return stream(seed, "head", 2)
