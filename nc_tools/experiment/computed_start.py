"""The start of a run's head: computed from the features of the training samples, before it is trained or instead."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from nc_tools.experiment.build import DataFacts
from nc_tools.experiment.job import Job
from nc_tools.experiment.run_data import RunData
from nc_tools.models.classifier import Classifier
from nc_tools.seeds import stream
from nc_tools.training import StartSamples


def compute_start(job: Job, data: RunData, facts: DataFacts, model: Classifier, indices: Tensor) -> float:
    """Set the head of a new model to its arm's start; return the seconds that took.

    Nothing is done for an arm without a start.

    Args:
        job: The run.
        data: Its samples.
        facts: Facts of the samples trained on.
        model: Changed in place.
        indices: The samples trained on (M,), int64.
    """
    if job.config.start is None:
        return 0.0
    started = time.perf_counter()
    job.config.start.apply(model.head, start_samples(data, facts, model, indices, job.seed))
    return time.perf_counter() - started


def start_samples(data: RunData, facts: DataFacts, model: Classifier, indices: Tensor, seed: int) -> StartSamples:
    """Return the features of the training samples, by the model's backbone, with their labels."""
    collected = data.evaluator(model, facts).collect(data.sources.train, indices)
    generator = stream(seed, "head", 2, device=torch.device("cpu"))
    return StartSamples(collected.features, collected.labels, facts.num_classes, generator)
