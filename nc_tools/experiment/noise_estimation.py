"""Estimate the label noise of a run's training set, for losses that need a transition matrix."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nc_tools._support.signals import StopSignal
from nc_tools.experiment.build import DataFacts, build_model
from nc_tools.experiment.job import Job
from nc_tools.experiment.run_data import RunData
from nc_tools.losses import CrossEntropyLoss
from nc_tools.metrics import anchor_transition, transition_problem
from nc_tools.training import fit
from nc_tools.training.in_steps import Steps, in_steps


@dataclass(frozen=True)
class NoiseEstimate:
    """The estimated label noise, a transition matrix (K, K) or None, with the seconds and epochs that it took."""

    transition: Tensor | None = None
    seconds: float = 0.0
    epochs: int = 0


@in_steps
def estimate_noise(
    job: Job, data: RunData, facts: DataFacts, indices: Tensor, checkpoint: Path, stop: StopSignal
) -> Steps[NoiseEstimate]:
    """Train a model with cross-entropy and estimate the label noise, a transition matrix, from its predictions.

    The arm is refused if the estimate cannot be trusted (see :func:`~nc_tools.metrics.transition_problem`): corrected
    by a wrong matrix, a loss is worse than the plain one. ``check_transition`` of the protocol switches that off.

    This stage comes before the run's own training and has the same initial weights, samples, rate and length: an arm
    whose loss needs a transition matrix takes twice the training time. Only the noisy labels are used. Nothing is done
    for other losses.

    Raises:
        ValueError: If the estimate cannot be trusted, for example because the model assigns too few samples to a class.
    """
    if not job.config.loss.leaves_open("transition"):
        return NoiseEstimate()
    model = build_model(job.config, facts, seed=job.seed, frame_seed=job.frame_seed)
    training, device = job.config.training, data.device
    training.place(model, device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(job.seed)
        fitted = yield from fit.steps(
            model,
            CrossEntropyLoss(),
            data.training_batches(indices),
            training,
            job.config.optim,
            seed=job.seed,
            class_counts=facts.class_counts,
            checkpoint=checkpoint,
            resume=job.resume,
            stop=stop,
            keep_last=True,
        )
    outputs = data.evaluator(fitted.model, facts).collect(data.sources.train, indices)
    transition = anchor_transition(outputs.logits)
    decided = outputs.logits.argmax(1).bincount(minlength=len(transition)).cpu()
    problem = transition_problem(transition, decided) if job.protocol.check_transition else None
    if problem:
        raise ValueError(
            f"the transition matrix of label noise cannot be estimated, because {problem}: give the loss a matrix "
            "(transition=), train longer or on more images, or leave this arm out"
        )
    return NoiseEstimate(transition, fitted.seconds, training.epochs)
