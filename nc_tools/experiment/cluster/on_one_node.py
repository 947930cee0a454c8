"""Measure the cost of a comparison on a node of the cluster that will run it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nc_tools._support.signals import Killed, StopSignal
from nc_tools.experiment.cluster.node_task import Origin

if TYPE_CHECKING:
    from nc_tools.experiment.plan import Plan, RunOptions
    from nc_tools.experiment.plan_cost import PlanCost


def cost_on_one_node(plan: Plan, options: RunOptions, stop: StopSignal) -> PlanCost:
    """Return what :func:`~nc_tools.experiment.plan_cost.plan_cost` measures as a task of the cluster.

    Raises:
        ValueError: If the node cannot measure it, such as one without the data.
        Killed: If ``stop`` is set meanwhile.
    """
    import ray

    assert options.cluster is not None  # noqa: S101 (the caller has one)
    measure = ray.remote(_measure).options(num_cpus=options.cluster.cpus, num_gpus=options.cluster.gpus)
    answer = measure.remote(plan, replace(options, out=options.out.resolve(), cluster=None), Origin.here())
    while not ray.wait([answer], timeout=0.2)[0]:
        if stop.requested:
            ray.cancel(answer, force=True)
            raise Killed("stopped")
    try:
        cost: PlanCost = ray.get(answer)
    except ray.exceptions.RayTaskError as error:
        reason = " ".join(str(error.cause or error).split())
        raise ValueError(f"a node of the cluster cannot measure the comparison: {reason}") from error
    return cost


def _measure(plan: Plan, options: RunOptions, origin: Origin) -> PlanCost:
    from nc_tools.experiment.plan_cost import plan_cost

    origin.take()
    return plan_cost(plan, options, StopSignal(signals=()))
