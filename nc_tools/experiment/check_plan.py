"""Check a comparison before anything trains: read its data, and build the model and loss of every arm once."""

from __future__ import annotations

import torch

from nc_tools._support.signals import Killed, StopSignal
from nc_tools.comparison.metric_info import check_metric_key
from nc_tools.experiment.build import DataFacts, build_loss, build_model, check_outliers
from nc_tools.experiment.evaluate.transfer_set import check_transfer
from nc_tools.experiment.overrides import put
from nc_tools.experiment.plan import Plan, RunOptions
from nc_tools.experiment.progress_display import ProgressDisplay
from nc_tools.experiment.run_backbone import describe_backbone
from nc_tools.experiment.run_config import RunConfig
from nc_tools.experiment.run_data import facts_of, open_data
from nc_tools.losses.loss_term import LossTerm
from nc_tools.training.mixed_loss import check_mixing
from nc_tools.training.optimizers import make_optimizer
from nc_tools.type_check import check_types


def check_plan(plan: Plan, options: RunOptions, display: ProgressDisplay, stop: StopSignal) -> DataFacts:
    """Read a comparison's data, build every arm's model and loss once, and return facts such as the class counts.

    Raises:
        ValueError: If the arms differ in their data, or an arm cannot be built; the message names it.
        TypeError: Likewise.
        Killed: If ``stop`` is set while images are read.
    """

    def progress(done: int, total: int) -> None:
        if stop.requested:
            raise Killed
        display.reading(done, total)

    check_metric_key(plan.protocol.primary)
    if len({config.data for config in plan.arms.values()}) != 1:
        raise ValueError(
            "all arms of a comparison must have the same data settings (data=DataConfig(...)), but these arms differ: "
            "give them the same settings, or compare them in separate recipes"
        )
    _check_tuning(plan)
    baseline = plan.arms[plan.baseline]
    cpu = torch.device("cpu")
    data = open_data(baseline, seed=plan.protocol.seeds[0], device=cpu, cache=options.out / "cache", progress=progress)
    check_transfer(plan.protocol, data.sources)
    facts = facts_of(data.sources, data.sources.train.labels[data.subsets.train])
    for line in data.first_lines():
        display.note(line)
    for backbone in dict.fromkeys(describe_backbone(config.model) for config in plan.arms.values()):
        if backbone is not None:
            display.note(backbone)
    against_outliers = []
    for name, config in plan.arms.items():
        try:
            check_types(config)
            losses = _build_variants(config, facts)
        except (ValueError, TypeError) as error:
            raise type(error)(f"arm {name}: {error}") from error
        against_outliers += [name] if any(loss.needs_outliers for loss in losses) else []
    if baseline.data.outliers is not None:
        used = f"used by {', '.join(against_outliers)}" if against_outliers else "not used, because no loss needs them"
        display.note(f"training against outlier images from {baseline.data.outliers}: {used}")
    return facts


def _check_tuning(plan: Plan) -> None:
    if plan.protocol.tune_each_seed:
        raise ValueError(
            "protocol.tune_each_seed is for runs on fixed features, which take seconds: use nc-tools choose, or set it "
            "to false"
        )


def _build_variants(config: RunConfig, facts: DataFacts) -> list[LossTerm]:
    """Build an arm's model as configured and with every value of its tuned parameter; return the loss functions."""
    variants = [put(config, config.tuned.path, value) for value in config.tuned.values]
    builds_differ = config.tuned.path.partition(".")[0] in ("head", "loss", "model")
    losses = []
    for variant in [config, *variants] if builds_differ else [config]:
        model = build_model(variant, facts, seed=0, frame_seed=0)
        loss = build_loss(variant, facts, model.head.feature_dim)
        check_outliers(variant, loss)
        check_mixing(variant.training.mixing, loss, model.head)
        make_optimizer(model, variant.optim, loss)
        if variant.optim.sam is not None:
            variant.optim.sam.ascent_loss(loss, facts.class_counts)
        if variant.second_stage is not None:
            variant.second_stage.check(model.head)
        if variant.start is not None:
            variant.start.check(model.head)
        losses.append(loss)
    return losses
