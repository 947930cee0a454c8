"""What the first process of torchrun tells the others: which run they train with it."""

from __future__ import annotations

import pickle
from typing import NamedTuple

from torch import Tensor

from nc_tools.experiment.job import Job
from nc_tools.training.processes import Processes


class SharedTraining(NamedTuple):
    """A training in which all processes take part.

    Attributes:
        job: The run.
        run_id: The name of its folder, which is the same where data, weights and configuration are.
        transition: The estimated transition matrix (K, K) of the label noise, on the CPU, where the loss needs one.
    """

    job: Job
    run_id: str
    transition: Tensor | None


def announce(processes: Processes, training: SharedTraining | None) -> None:
    """Let the other processes take part in a training, or end; called by the first process while they wait."""
    # Jobs reach worker processes in the same way: both ends are processes of one command.
    processes.send(pickle.dumps(training))


def next_training(processes: Processes) -> SharedTraining | None:
    """Wait for the first process; return the training to take part in, or None to end."""
    training: SharedTraining | None = pickle.loads(processes.send(b""))  # noqa: S301
    return training
