"""The flags by which the runs of a recipe are made on a cluster."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nc_tools.experiment.cluster.ray_connection import Cluster, connected


def add_cluster_flags(add: Callable[..., Any]) -> None:
    """Add the flags, with the method ``add_argument`` of a parser or a group."""
    add("--cluster", metavar="ADDRESS", help="make the runs on a Ray cluster: auto for the one of this machine, or "
        "ray://HOST:PORT (default: on this machine, without Ray)")  # fmt: skip
    add("--gpus-per-task", type=float, metavar="SHARE", help="with --cluster: share of a GPU that a run, or a pack of "
        "runs, takes; 0.25 makes four at once on each (default: 1)")  # fmt: skip


@contextmanager
def chosen_cluster(args: argparse.Namespace) -> Iterator[Cluster | None]:
    """Connect to the cluster that the flags name, for the duration of the ``with`` block; None without one.

    Raises:
        ValueError: If flags contradict each other, or as by
            :func:`~nc_tools.experiment.cluster.ray_connection.connected`.
        ConnectionError: If no cluster answers.
    """
    if args.cluster is None:
        if args.gpus_per_task is not None:
            raise ValueError(
                f"--gpus-per-task {args.gpus_per_task:g} is for runs on a cluster: add --cluster, or leave it out"
            )
        yield None
        return
    if args.workers is not None:
        raise ValueError(
            f"--workers {args.workers} is for runs on this machine, and --cluster {args.cluster} makes as many at once "
            f"as the cluster has room for: leave one of them out"
        )
    with connected(args.cluster, device=args.device, gpus=args.gpus_per_task) as cluster:
        yield cluster
