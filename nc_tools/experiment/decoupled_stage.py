"""The second stage of a run: mend the classifier on the features that the first one left."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor

from nc_tools._support.signals import StopSignal
from nc_tools.data import BalancedSampling
from nc_tools.evaluation.evaluator import collect
from nc_tools.experiment.build import Data, DataFacts, build_head
from nc_tools.experiment.job import Job
from nc_tools.models.classifier import Classifier
from nc_tools.records import Collected
from nc_tools.seeds import stream
from nc_tools.training import PostHocStage, RetrainingStage, retrain
from nc_tools.training.loop import EpochEnd


def second_stage(
    job: Job,
    data: Data,
    facts: DataFacts,
    model: Classifier,
    indices: Tensor,
    *,
    epoch_end: EpochEnd,
    checkpoint: Path,
    stop: StopSignal,
) -> float:
    """Do what the arm asks for after training, on the same samples; return the seconds it took, measuring left out.

    The record goes on: this stage's first epoch follows the last one of training, and is a candidate for the best epoch
    like any other. Nothing is done where the arm has no second stage.
    """
    config, first = job.config, job.config.training.epochs
    stage = config.second_stage
    if isinstance(stage, PostHocStage):
        begun = time.perf_counter()
        stage.apply(model.head, lambda: _seen(data, model, indices))
        seconds = time.perf_counter() - begun
        epoch_end(first + 1, {}, model)
        return seconds
    if not isinstance(stage, RetrainingStage):
        return 0.0
    generator = stream(job.seed, "head", 1)
    fresh = build_head(config, facts, model.head.feature_dim, generator=generator, draw=job.draw).to(data.device)
    torch.manual_seed(job.seed)  # as the first stage does, and whether or not this process ran it
    fitted = retrain(
        model,
        stage,
        fresh,
        data.training_batches(indices, sampling=BalancedSampling()),
        config.training,
        config.optim,
        epoch_end=lambda epoch, values, mended: epoch_end(first + epoch, values, mended),
        checkpoint=checkpoint,
        resume=job.resume,
        stop=stop,
    )
    return fitted.seconds


def _seen(data: Data, model: Classifier, indices: Tensor) -> Collected:
    dtype = data.config.training.dtype_on(data.device)
    return collect(model, data.plain_batches(data.sources.train, indices), dtype=dtype)
