"""The plan of a comparison (its arms and their common rules), and the options by which its runs are made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nc_tools.comparison.references import loss_kind
from nc_tools.experiment.cluster.ray_connection import Cluster
from nc_tools.experiment.run_config import Protocol, RunConfig
from nc_tools.experiment.serialize import encode
from nc_tools.training.processes import Processes


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of a comparison: its question, its arms (the compared methods), and the rules that they share.

    Attributes:
        name: Name of the comparison, and of its MLflow experiment.
        question: What the comparison asks, in one sentence or more; shown above the report.
        arms: Arms by name; the first is the baseline.
        protocol: The rules that all arms share.
        smoke: Whether the runs only check that everything works; the report then gives no verdict.

    Raises:
        ValueError: If an arm and its reference in ``protocol.references`` have different losses.
    """

    name: str
    question: str
    arms: Mapping[str, RunConfig]
    protocol: Protocol
    smoke: bool = False

    def __post_init__(self) -> None:
        for pair in self.protocol.references.items():
            if not all(name in self.arms for name in pair):
                continue  # tested only where both were chosen
            losses = [self.arms[name].loss for name in pair]
            if loss_kind(encode(losses[0])) != loss_kind(encode(losses[1])):
                names = " and ".join(
                    f"{name} with {loss.cls.__name__}" for name, loss in zip(pair, losses, strict=True)
                )
                raise ValueError(
                    f"an arm and its reference must have the same loss, so that their difference is that of the heads, "
                    f"got {names} in protocol.references: leave this pair out, and compare the arms with nc-tools "
                    f"compare OUT --baseline {pair[1]}"
                )

    @property
    def baseline(self) -> str:
        """Name of the arm that the other arms are compared with, which is the first."""
        return next(iter(self.arms))

    @cached_property
    def suite(self) -> str:
        """Hash of name, arms and protocol, which tells apart the comparisons in one output folder."""
        text = json.dumps([self.name, encode(dict(self.arms)), encode(self.protocol)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options such as output folder and device; they change the results only by rounding and precision.

    Attributes:
        out: The output folder.
        device: Where the runs are made, such as "cpu" or "cuda:0".
        workers: Number of runs, or packs of runs, made in parallel.
        threads: CPU threads of each worker.
        pack: Number of runs that train side by side in a worker; None to choose it by the network and the device.
        cluster: The Ray cluster that makes the runs; None for this machine.
        resume: Continue unfinished runs from their checkpoints.
        tracking_uri: MLflow store or server to send runs to; None for a store in the output folder.
        processes: The processes that train each run together; None if every run is made by one.
    """

    out: Path
    device: str
    workers: int
    threads: int
    pack: int | None = None
    cluster: Cluster | None = None
    resume: bool = False
    tracking_uri: str | None = None
    processes: Processes | None = None
