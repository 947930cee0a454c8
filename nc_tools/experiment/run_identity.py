"""The identity of a run: what is written into run.json, and the hash that names the run's folder."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import torch

from nc_tools.experiment.build import DataFacts
from nc_tools.experiment.job import Job
from nc_tools.experiment.run_backbone import backbone_record
from nc_tools.experiment.run_config import RunConfig
from nc_tools.experiment.serialize import encode, run_hash, settings
from nc_tools.losses.loss_term import LossTerm
from nc_tools.run_records import RunIdentity

_LONGEST_ABOUT = 300


def identify(job: Job, facts: DataFacts, backbone: Mapping[str, Any] | None = None) -> RunIdentity:
    """Return the identity of a run, the contents of run.json; runs with equal hashes would give equal results.

    Args:
        job: The run.
        facts: Facts of the samples trained on.
        backbone: What :func:`~nc_tools.experiment.run_backbone.backbone_record` returns, if it is known already: a
            process with features at hand need not load the backbone.
    """
    if backbone is None:
        backbone = backbone_record(job.config.model, in_channels=facts.in_channels, image_size=facts.image_size)
    return RunIdentity(
        kind=job.kind,
        arm=job.arm,
        seed=job.seed,
        draw=job.draw,
        frame_seed=job.frame_seed,
        experiment=job.experiment,
        suite=job.suite,
        config=settings(job.config),
        about={cls.__name__: text for cls in _methods(job.config) if (text := _first_sentence(cls))},
        data={"name": job.config.data.source, **dataclasses.asdict(facts), **_outliers(job.config), **backbone},
        config_hash=config_hash(job, facts, backbone),
        group_hash=run_hash(job.config, *_decisive(job, facts, backbone)),
    )


def config_hash(job: Job, facts: DataFacts, backbone: Mapping[str, Any]) -> str:
    """Return the hash of all that decides the result of a run, 16 hex digits, without the rest of its identity.

    Args:
        job: The run.
        facts: Facts of the samples trained on.
        backbone: What :func:`~nc_tools.experiment.run_backbone.backbone_record` returns.
    """
    return run_hash(job.config, *_decisive(job, facts, backbone), job.seed, job.draw, job.frame_seed)


def _decisive(job: Job, facts: DataFacts, backbone: Mapping[str, Any]) -> list[object]:
    """Return what decides the result of a run besides its configuration, seed, draw and frame."""
    protocol = job.protocol
    decisive: list[object] = [job.kind, facts.fingerprint, str(job.config.training.dtype_on(torch.device(job.device)))]
    decisive += [backbone] if backbone else []
    if job.kind != "tuning":
        decisive += [protocol.curve_points, protocol.curve_samples, protocol.transfer_samples]
        decisive += [] if protocol.suspects is None else [protocol.suspects]
    if job.kind == "final":
        decisive += [] if protocol.fine_tuning is None else [encode(protocol.fine_tuning)]
        decisive += ["rank_layers"] if protocol.rank_layers else []
    if job.frame_seed is not None:
        # The group's hash must be equal for all seeds: it covers the rule for frames, and the run's own hash the frame.
        decisive += ["a frame for every seed and draw" if job.protocol.frame_seed is None else job.protocol.frame_seed]
    return decisive


def _methods(config: RunConfig) -> dict[type, None]:
    """Return the classes of an arm's head and loss, including those inside a sum of losses."""
    return dict.fromkeys((*config.head.classes(), *config.loss.classes()))


def _first_sentence(cls: type) -> str:
    """Return the first paragraph of a class's docstring, with which a report explains it; "" without one."""
    text = " ".join((inspect.getdoc(cls) or "").partition("\n\n")[0].split()).replace("``", "")
    generated = text.startswith(f"{cls.__name__}(")  # a dataclass without a docstring lists its fields
    return "" if generated else text[:_LONGEST_ABOUT]


def _outliers(config: RunConfig) -> dict[str, str]:
    """Return the source of the outlier images that a run trains against; an empty mapping if its loss uses none."""
    needed = any(issubclass(cls, LossTerm) and cls.needs_outliers for cls in config.loss.classes())
    return {"outliers": config.data.outliers} if needed and config.data.outliers is not None else {}
