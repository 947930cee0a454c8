"""Which runs of a comparison train side by side, and how many."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch

from nc_tools.experiment.build import DataFacts, build_model
from nc_tools.experiment.job import Job
from nc_tools.experiment.plan import Plan, RunOptions
from nc_tools.experiment.run_config import RunConfig
from nc_tools.experiment.run_pack import PackJob
from nc_tools.training.step import why_alone

CPU_PACK = 24
"""Largest number of runs that train side by side on a CPU, unless a number is given."""
CPU_LIMIT = 5_000_000
"""Multiply-adds of a batch above which runs on a CPU train one by one: the products themselves then take the time."""


@dataclass(frozen=True)
class Packing:
    """How many runs of each arm train side by side in a worker.

    Attributes:
        sizes: Arm -> number of runs; 1 for an arm whose runs train one by one.
        notes: What people should read about it.
    """

    sizes: Mapping[str, int]
    notes: tuple[str, ...] = ()


def packing_of(plan: Plan, options: RunOptions, facts: Mapping[str, DataFacts]) -> Packing:
    """Choose how many runs of each arm train side by side.

    If ``options.pack`` is given, it is this number. Otherwise it is ``CPU_PACK`` for small networks on a CPU (at most
    ``CPU_LIMIT`` multiply-adds for a batch), and 1 for all others. It is always 1 for arms that cannot share passes and
    for heads in closed form.

    Args:
        plan: The comparison.
        options: Device, and ``pack``.
        facts: Arm -> facts about its data.
    """
    sizes: dict[str, int] = {}
    reasons: dict[str, list[str]] = {}
    small: dict[Hashable, bool] = {}
    for arm, config in plan.arms.items():
        reason = why_alone(config.training, config.optim)
        if config.is_closed_form:
            sizes[arm] = 1
        elif options.pack is None:
            key = (config.model, config.training.batch_size)
            if key not in small:
                small[key] = options.device == "cpu" and batch_cost(config, facts[arm]) <= CPU_LIMIT
            sizes[arm] = CPU_PACK if small[key] and reason is None else 1
        else:
            sizes[arm] = 1 if reason is not None else options.pack
            if reason is not None and options.pack > 1:
                reasons.setdefault(reason, []).append(arm)
    notes = tuple(f"{', '.join(arms)}: runs train one by one, because {reason}" for reason, arms in reasons.items())
    return Packing(sizes, notes)


def batch_cost(config: RunConfig, facts: DataFacts) -> float:
    """Return the multiply-adds of a forward pass of an arm's backbone over a batch; infinity if they are not known.

    A network with pretrained weights is not built for this, because none is small.
    """
    from torch.utils.flop_counter import FlopCounterMode  # here, because it imports Triton

    if config.model.weights is not None:
        return math.inf
    backbone = copy.deepcopy(build_model(config, facts, seed=0, frame_seed=0).backbone).to("meta").eval()
    images = torch.empty(config.training.batch_size, *facts.image_shape, device="meta")
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            backbone(images)
    except Exception:  # noqa: BLE001  an own network may do anything, such as read a number from a tensor
        return math.inf
    return float(counter.get_total_flops()) / 2


def make_packs(jobs: Sequence[Job], packing: Packing, workers: int) -> list[PackJob]:
    """Divide runs into packs of about equal size, in their order, so that every worker has one.

    Runs of one pack have the same network, length, batch size and arithmetic.

    Args:
        jobs: Runs of one kind.
        packing: How many runs of an arm may be in a pack.
        workers: Number of worker processes.
    """
    groups: dict[Hashable, list[Job]] = {}
    packs: list[PackJob] = []
    for job in jobs:
        config = job.config
        training = config.training
        shape = (training.epochs, training.batch_size, training.precision, training.deterministic)
        key = (config.model, *shape, packing.sizes[job.arm])
        groups.setdefault(key, []).append(job)
    for group in groups.values():
        size = packing.sizes[group[0].arm]
        count = max(math.ceil(len(group) / size), min(workers, len(group)) if size > 1 else len(group))
        bounds = [round(i * len(group) / count) for i in range(count + 1)]
        packs += [PackJob(tuple(group[a:b])) for a, b in itertools.pairwise(bounds)]
    order = {id(job): number for number, job in enumerate(jobs)}
    return sorted(packs, key=lambda pack: order[id(pack.jobs[0])])
