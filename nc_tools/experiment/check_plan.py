"""Check a comparison before anything trains: read its data, and build the model and loss of every arm once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from nc_tools._support.signals import Killed, StopSignal
from nc_tools.comparison.metric_info import check_metric_key
from nc_tools.data import DataConfig
from nc_tools.experiment.build import DataFacts, build_loss, build_model, check_outliers
from nc_tools.experiment.evaluate.ood import check_outlier_sets
from nc_tools.experiment.evaluate.transfer_set import check_transfer
from nc_tools.experiment.overrides import put
from nc_tools.experiment.plan import Plan, RunOptions
from nc_tools.experiment.progress_display import ProgressDisplay
from nc_tools.experiment.run_backbone import describe_backbone
from nc_tools.experiment.run_config import RunConfig
from nc_tools.experiment.run_data import RunData, facts_of, open_data
from nc_tools.losses.loss_term import LossTerm
from nc_tools.training.mixed_loss import check_mixing
from nc_tools.training.optimizers import make_optimizer
from nc_tools.type_check import check_types


def check_plan(plan: Plan, options: RunOptions, display: ProgressDisplay, stop: StopSignal) -> dict[str, DataFacts]:
    """Read a comparison's data, build every arm's model and loss once, and return each arm's facts about its data.

    Raises:
        ValueError: If the arms differ in their data (training labels may differ), or an arm cannot be built; the
            message names it.
        TypeError: Likewise.
        Killed: If ``stop`` is set while images are read.
    """

    def progress(done: int, total: int) -> None:
        if stop.requested:
            raise Killed
        display.reading(done, total)

    check_metric_key(plan.protocol.primary)
    check_same_images([config.data for config in plan.arms.values()])
    _check_features_only(plan)
    baseline = plan.arms[plan.baseline]
    cpu = torch.device("cpu")
    seed, cache = plan.protocol.seeds[0], options.out / "cache"
    data = {
        config.data: open_data(config, seed=seed, device=cpu, cache=cache, progress=progress)
        for config in {config.data: config for config in plan.arms.values()}.values()
    }
    check_transfer(plan.protocol, data[baseline.data].sources)
    check_outlier_sets(plan.protocol, data[baseline.data].sources)
    by_data = {key: facts_of(of.sources, of.sources.train.labels[of.subsets.train]) for key, of in data.items()}
    facts = {name: by_data[config.data] for name, config in plan.arms.items()}
    for line in _data_lines(plan, {name: data[config.data] for name, config in plan.arms.items()}):
        display.note(line)
    for backbone in dict.fromkeys(describe_backbone(config.model) for config in plan.arms.values()):
        if backbone is not None:
            display.note(backbone)
    against_outliers = []
    for name, config in plan.arms.items():
        try:
            check_types(config)
            losses = _build_variants(config, facts[name])
        except (ValueError, TypeError) as error:
            raise type(error)(f"arm {name}: {error}") from error
        against_outliers += [name] if any(loss.needs_outliers for loss in losses) else []
    if baseline.data.outliers is not None:
        used = f"used by {', '.join(against_outliers)}" if against_outliers else "not used, because no loss needs them"
        display.note(f"training against outlier images from {baseline.data.outliers}: {used}")
    return facts


def check_same_images(configs: Sequence[DataConfig]) -> None:
    """Check that the arms of a comparison have the same images and the same test: they may differ in training labels.

    Raises:
        ValueError: If they differ in another setting, or in given labels while a long tail is cut by these.
    """
    if len({replace(config, labels=None, corrections=None) for config in configs}) != 1:
        raise ValueError(
            "all arms of a comparison must have the same data settings (data=DataConfig(...)) but for labels and "
            "corrections, and these arms differ: give them the same settings, or compare them in separate recipes"
        )
    first = configs[0]
    if len({config.labels for config in configs}) > 1 and (first.imbalance != 1 or first.class_counts is not None):
        raise ValueError(
            f"arms with other labels would get other images of a long tail, which is cut by the labels, got imbalance "
            f"{first.imbalance:g}: set imbalance=1 and class_counts=None"
        )


def _data_lines(plan: Plan, data: Mapping[str, RunData]) -> list[str]:
    """Return the first lines about the data: those of the baseline, and those of other arms that differ.

    Raises:
        ValueError: If the arms' images or test labels are not the same.
    """
    lines = data[plan.baseline].first_lines()
    described = {plan.arms[plan.baseline].data}
    for name, of in data.items():
        if of.sources.images_fingerprint != data[plan.baseline].sources.images_fingerprint:
            raise ValueError(
                f"the images of arm {name} are not those of {plan.baseline}: give all arms the same images"
            )
        if plan.arms[name].data not in described:
            described.add(plan.arms[name].data)
            lines += [f"arm {name}: {line}" for line in of.first_lines() if line not in lines]
    return lines


def _check_features_only(plan: Plan) -> None:
    """Refuse what only runs on fixed features can do."""
    if (views := plan.arms[plan.baseline].data.views) != 1:
        raise ValueError(
            f"data.views={views} is for runs on fixed features, and the images of these runs are augmented anew in "
            f"every epoch: leave it out, or use nc-tools choose"
        )
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
