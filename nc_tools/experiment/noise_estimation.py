"""The first of two stages: learn the noisy labels as they are, and estimate from that how noisy they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nc_tools._support.signals import StopSignal
from nc_tools.evaluation.evaluator import collect
from nc_tools.experiment.build import Data, DataFacts, build_model
from nc_tools.experiment.job import Job
from nc_tools.losses import CrossEntropyLoss
from nc_tools.metrics import anchor_transition
from nc_tools.training import fit


@dataclass(frozen=True)
class FirstStage:
    """What the first stage gave: a transition matrix (K, K) or None, and the seconds and epochs that it took."""

    transition: Tensor | None = None
    seconds: float = 0.0
    epochs: int = 0


def first_stage(
    job: Job, data: Data, facts: DataFacts, indices: Tensor, checkpoint: Path, stop: StopSignal
) -> FirstStage:
    """Train the arm's model with cross-entropy on the same samples, and estimate the transition matrix from it.

    The same start, batches, rate and length as the second stage, so an arm with two stages costs twice the training;
    its time says so. The estimate looks at given labels alone. Nothing is done where the loss asks for none.
    """
    if not job.config.loss.leaves_open("transition"):
        return FirstStage()
    model = build_model(job.config, facts, seed=job.seed, draw=job.draw)
    training, device = job.config.training, data.device
    training.place(model, device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(job.seed)
        fitted = fit(
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
    seen = collect(fitted.model, data.plain_batches(data.sources.train, indices), dtype=training.dtype_on(device))
    return FirstStage(anchor_transition(seen.logits), fitted.seconds, training.epochs)
