"""A process of torchrun that is not the first: it trains the runs that the first process makes with it."""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import replace

import torch

from nc_tools._support.signals import Killed, StopSignal
from nc_tools.experiment.build import build_loss, build_model
from nc_tools.experiment.run_job import open_job
from nc_tools.experiment.shared_training import SharedTraining, next_training
from nc_tools.experiment.torchrun import connected_processes, device_here, threads_here
from nc_tools.experiment.workers import set_arithmetic
from nc_tools.training import Processes, fit
from nc_tools.training.processes import LostProcess


def follow(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Train with the first process of torchrun until it has made all runs. Only the first process prints.

    A signal stops the run in all processes, with a checkpoint of the first.

    Args:
        parser: The parser of the recipe's flags.
        argv: The flags; None for those of this process.
    """
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        args = parser.parse_args(argv)
    if args.print_config:
        return
    set_arithmetic(threads_here())
    processes = connected_processes()  # until then a signal ends this process
    with StopSignal(patience=math.inf) as stop:
        try:
            _train_with_first(processes, stop)
        except LostProcess:
            sys.exit(1)
        except (ValueError, TypeError, OSError) as error:
            sys.exit(f"error in process {os.environ['RANK']} of torchrun: {error}")


def _train_with_first(processes: Processes, stop: StopSignal) -> None:
    while (training := next_training(processes)) is not None:
        job = replace(training.job, device=device_here(training.job.device))
        try:
            train_with_first(training._replace(job=job), processes, stop)
        except LostProcess:
            raise
        except Killed:  # this training has ended in all processes, and the first may begin another
            continue


def train_with_first(training: SharedTraining, processes: Processes, stop: StopSignal) -> None:
    """Take part in the training of a run that the first process makes; nothing is written here.

    Raises:
        ValueError: If this process has other data, weights or configuration than the first.
        Killed: When the training was stopped, has diverged or has failed in the first process.
    """
    job = training.job
    opened = open_job(job)
    data, facts, indices = replace(opened.data, processes=processes), opened.facts, opened.indices
    if opened.identity.run_id != training.run_id:
        raise ValueError(
            f"this process would make the run {opened.identity.run_id}, and the first process makes "
            f"{training.run_id}: give all machines the same images and weights, at the same paths"
        )
    torch.use_deterministic_algorithms(job.config.training.deterministic)
    model = build_model(job.config, facts, seed=job.seed, frame_seed=job.frame_seed)
    job.config.training.place(model, data.device)
    loss = build_loss(job.config, facts, model.head.feature_dim, transition=training.transition).to(data.device)
    fit(
        model,
        loss,
        data.batches_for(loss, indices),
        job.config.training,
        job.config.optim,
        seed=job.seed,
        class_counts=facts.class_counts,
        stop=stop,
        processes=processes,
    )
