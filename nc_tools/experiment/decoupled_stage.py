"""The second stage of a run: change or retrain the classifier after training, with the backbone frozen."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor

from nc_tools._support.signals import StopSignal
from nc_tools.data import BalancedSampling
from nc_tools.experiment.build import DataFacts, build_head
from nc_tools.experiment.job import Job
from nc_tools.experiment.run_data import RunData
from nc_tools.models.classifier import Classifier
from nc_tools.seeds import stream
from nc_tools.training import PostHocStage, RetrainingStage, retrain
from nc_tools.training.in_steps import Steps, in_steps
from nc_tools.training.loop import EpochEnd


@in_steps
def run_second_stage(
    job: Job,
    data: RunData,
    facts: DataFacts,
    model: Classifier,
    indices: Tensor,
    *,
    epoch_end: EpochEnd,
    checkpoint: Path,
    stop: StopSignal,
) -> Steps[float]:
    """Change or retrain the classifier of a trained model; return the seconds spent, without evaluation.

    The numbers of its epochs continue those of training, and each of them can be the best epoch. An arm without a
    second stage takes 0 seconds and nothing is done.

    Args:
        job: The run.
        data: Its samples.
        facts: Facts of the samples trained on.
        model: The trained model. Its head is changed in place.
        indices: The samples trained on (M,), int64.
        epoch_end: Called after each epoch of the stage, as for :func:`~nc_tools.training.fit`.
        checkpoint: File for the state of this stage.
        stop: Checked after each step; if it is set, ``Killed`` is raised.
    """
    config, first = job.config, job.config.training.epochs
    stage = config.second_stage
    if isinstance(stage, PostHocStage):
        start = time.perf_counter()
        stage.apply(model.head, lambda: data.evaluator(model, facts).collect(data.sources.train, indices))
        seconds = time.perf_counter() - start
        epoch_end(first + 1, {}, model)
        return seconds
    if not isinstance(stage, RetrainingStage):
        return 0.0
    generator = stream(job.seed, "head", 1)
    # The frame is that of the first stage: its features were trained towards those class vectors.
    new_head = build_head(config, facts, model.head.feature_dim, generator=generator, frame_seed=job.frame_seed).to(
        data.device
    )
    torch.manual_seed(job.seed)  # as before training, so that a resumed run draws the same numbers
    fitted = yield from retrain.steps(
        model,
        stage,
        new_head,
        data.training_batches(indices, sampling=BalancedSampling()),
        config.training,
        config.optim,
        epoch_end=lambda epoch, values, retrained: epoch_end(first + epoch, values, retrained),
        checkpoint=checkpoint,
        resume=job.resume,
        stop=stop,
    )
    return fitted.seconds
