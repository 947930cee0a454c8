"""What a final model is worth for the transfer set: frozen, layer by layer, and fine-tuned."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from torch import Tensor, nn

from nc_tools._support.atomic_write import atomic_write
from nc_tools._support.signals import StopSignal
from nc_tools.data import BatchOptions, Sources, augment_for
from nc_tools.data.image_set import Images
from nc_tools.evaluation.evaluator import collect, with_prefix
from nc_tools.experiment.build import Data
from nc_tools.experiment.job import Job
from nc_tools.experiment.run_config import Protocol
from nc_tools.metrics import CollapseRanking, rank_by_collapse, ridge_probe, transfer_report
from nc_tools.metrics.transfer.transfer_report import TARGET_COLLAPSE
from nc_tools.models.classifier import Classifier
from nc_tools.run_records import RunRecord
from nc_tools.seeds import stream
from nc_tools.transfer import fine_tune, image_target, layer_features

LAYERS = "layers.csv"


def check_transfer(rules: Protocol, sources: Sources) -> None:
    """Refuse a comparison that is decided by transfer, or asks more of it, where there is no transfer set.

    Raises:
        ValueError: Naming the ways to get one.
    """
    asked = {
        f"protocol.primary={rules.primary}": rules.primary.startswith("transfer/"),
        "protocol.fine_tuning": rules.fine_tuning is not None,
        "protocol.rank_layers": rules.rank_layers,
    }
    wanting = [name for name, wanted in asked.items() if wanted]
    if wanting and sources.transfer_train is None:
        raise ValueError(
            f"{wanting[0]} needs a transfer set, and these data have none: give --transfer-data DATA, hold classes out "
            f"with --set data.held_out_classes=N, or train on groups of them with --set data.coarse=FILE.csv"
        )


def measure_transfer(
    job: Job, data: Data, model: Classifier, record: RunRecord, stop: StopSignal | None = None
) -> dict[str, float]:
    """Measure a trained model on the run's transfer set, as ``transfer/...``; nothing where there is none.

    Readers of the frozen features always; layers and fine-tuning where the protocol asks for them. Nothing that was
    chosen in training depends on what is told here.
    """
    if data.sources.transfer_train is None or data.sources.transfer_test is None:
        return {}
    train, test = (_some(part, job.protocol) for part in (data.sources.transfer_train, data.sources.transfer_test))
    dtype = job.config.training.dtype_on(data.device)
    seen, asked = (collect(model, data.plain_batches(part), dtype=dtype) for part in (train, test))
    values = transfer_report(seen.features, seen.labels, asked.features, asked.labels, job.seed)
    if job.protocol.rank_layers:
        values |= _layers(model.backbone, data, train, test, record.path / LAYERS, dtype)
    return with_prefix("transfer", values | _fine_tuned(job, data, model.backbone, train, test, stop))


def _some(images: Images, rules: Protocol) -> Images:
    """Return the same random images for every run, where a set has more than the protocol's number."""
    most = rules.transfer_samples
    if len(images) <= most:
        return images
    return images.subset(torch.randperm(len(images), generator=stream(0, "transfer"))[:most].sort().values)


def _layers(
    backbone: nn.Module, data: Data, train: Images, test: Images, path: Path, dtype: torch.dtype
) -> dict[str, float]:
    """Rank the backbone's layers by collapse of the transfer set's training part, against what a probe reads there."""
    (seen, labels), (asked, answers) = (
        layer_features(backbone, data.plain_batches(part), dtype=dtype) for part in (train, test)
    )
    outcomes = {name: ridge_probe(seen[name], labels, asked[name], answers) for name in seen}
    ranking = rank_by_collapse(seen, labels, outcomes)
    _write(path, ranking, seen)
    told = ranking.correlations["nc1_pinv"]
    found = {"layers/spearman": told.spearman, "layers/kendall": told.kendall, "layers/number": float(told.n)}
    return {key: value for key, value in found.items() if value is not None}


def _write(path: Path, ranking: CollapseRanking, features: dict[str, Tensor]) -> None:
    """Write a row a layer, the most collapsed first."""
    with atomic_write(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["layer", "width", *TARGET_COLLAPSE, "ridge_accuracy"])
        for row in ranking.rows:
            measures = [f"{row.collapse[key]:.6g}" if key in row.collapse else "" for key in TARGET_COLLAPSE]
            writer.writerow([row.name, features[row.name].shape[1], *measures, f"{row.outcome:.6f}"])


def _fine_tuned(
    job: Job, data: Data, backbone: nn.Module, train: Images, test: Images, stop: StopSignal | None
) -> dict[str, float]:
    """Return test accuracy and chosen rate of each way to fine-tune; a way that diverged at every rate has none."""
    how = job.protocol.fine_tuning
    if how is None:
        return {}
    options = BatchOptions(
        batch_size=how.training.batch_size,
        mean=data.sources.mean,
        std=data.sources.std,
        augment=augment_for(job.config.data, train.shape[1]),
        seed=job.seed,
        device=data.device,
        channels_last=how.training.layout_on(data.device) is torch.channels_last,
    )
    target = image_target(train, test, options)
    values: dict[str, float] = {}
    for method in how.methods:
        told = fine_tune(backbone, target, method, how, seed=job.seed, stop=stop)
        if told is not None:
            values |= {f"{method.key}/accuracy": told.accuracy, f"{method.key}/lr": told.lr}
    return values
