"""What a final run measures on the transfer set: frozen features, each layer's features, fine-tuning."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from nc_tools._support.atomic_write import atomic_write
from nc_tools._support.printable import csv_row
from nc_tools._support.signals import StopSignal
from nc_tools.data import Sources
from nc_tools.data.image_set import Images
from nc_tools.evaluation.evaluator import EvaluationSet, Evaluator
from nc_tools.experiment.job import Job
from nc_tools.experiment.run_config import Protocol
from nc_tools.experiment.run_data import RunData
from nc_tools.metrics import CollapseRanking, rank_by_collapse, ridge_probe
from nc_tools.metrics.transfer.transfer_report import TARGET_COLLAPSE
from nc_tools.run_records import RunRecord
from nc_tools.seeds import stream
from nc_tools.transfer import fine_tune, image_target, layer_features

LAYERS = "layers.csv"


def check_transfer(protocol: Protocol, sources: Sources) -> None:
    """Raise a ValueError if the protocol needs a transfer set and the data have none."""
    needs = {
        f"protocol.primary={protocol.primary}": protocol.primary.startswith("transfer/"),
        "protocol.fine_tuning": protocol.fine_tuning is not None,
        "protocol.rank_layers": protocol.rank_layers,
    }
    settings = [name for name, needed in needs.items() if needed]
    if settings and sources.transfer_train is None:
        raise ValueError(
            f"{settings[0]} needs a transfer set, but the data have none: give --transfer-data DATA, hold classes out "
            f"with --set data.held_out_classes=N, or train on groups of classes with --set data.coarse=FILE.csv"
        )


def evaluate_transfer(
    job: Job, data: RunData, evaluator: Evaluator, record: RunRecord, stop: StopSignal | None = None
) -> dict[str, float]:
    """Return the metrics of a run's transfer set, as ``transfer/``; empty where it has none.

    Frozen features are always measured; layers and fine-tuning if the protocol asks for them. Nothing that training
    chose depends on what is measured here.
    """
    if data.sources.transfer_train is None or data.sources.transfer_test is None:
        return {}
    train, test = (_sample(part, job.protocol) for part in (data.sources.transfer_train, data.sources.transfer_test))
    values = evaluator.transfer(EvaluationSet("transfer_train", train), EvaluationSet("transfer_test", test), job.seed)
    evaluator.release()  # the layers' features and fine-tuning need the memory
    if job.protocol.rank_layers:
        values |= _rank_layers(evaluator, train, test, record.path / LAYERS)
    return values | _fine_tune(job, data, evaluator.model.backbone, train, test, stop)


def _sample(images: Images, protocol: Protocol) -> Images:
    """Return at most ``protocol.transfer_samples`` random images, the same for every run."""
    most = protocol.transfer_samples
    if len(images) <= most:
        return images
    return images.subset(torch.randperm(len(images), generator=stream(0, "transfer"))[:most].sort().values)


def _rank_layers(evaluator: Evaluator, train: Images, test: Images, path: Path) -> dict[str, float]:
    """Return how the layers' collapse on training images correlates with a ridge probe's accuracy; write layers.csv."""
    (features, labels), (test_features, test_labels) = (
        layer_features(evaluator.model.backbone, evaluator.plain_batches(part, None), dtype=evaluator.dtype)
        for part in (train, test)
    )
    accuracies = {name: ridge_probe(features[name], labels, test_features[name], test_labels) for name in features}
    ranking = rank_by_collapse(features, labels, accuracies)
    _write_layers(path, ranking, features)
    correlation = ranking.correlations["nc1_pinv"]
    values = {"spearman": correlation.spearman, "kendall": correlation.kendall, "number": float(correlation.n)}
    return {f"transfer/layers/{key}": value for key, value in values.items() if value is not None}


def _write_layers(path: Path, ranking: CollapseRanking, features: dict[str, Tensor]) -> None:
    """Write a row for each layer, the most collapsed first."""
    with atomic_write(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["layer", "width", *TARGET_COLLAPSE, "ridge_accuracy"])
        for row in ranking.rows:
            measures = [f"{row.collapse[key]:.6g}" if key in row.collapse else "" for key in TARGET_COLLAPSE]
            writer.writerow(csv_row([row.name, features[row.name].shape[1], *measures, f"{row.outcome:.6f}"]))


def _fine_tune(
    job: Job, data: RunData, backbone: nn.Module, train: Images, test: Images, stop: StopSignal | None
) -> dict[str, float]:
    """Return test accuracy and chosen rate of each fine-tuning method; a method that always diverged has none."""
    config = job.protocol.fine_tuning
    if config is None:
        return {}
    options = replace(
        data.batch_options(),
        batch_size=config.training.batch_size,
        channels_last=config.training.layout_on(data.device) is torch.channels_last,
    )
    target = image_target(train, test, options)
    values: dict[str, float] = {}
    for method in config.methods:
        result = fine_tune(backbone, target, method, config, seed=job.seed, stop=stop)
        if result is not None:
            values[f"transfer/{method.key}/accuracy"] = result.accuracy
            values[f"transfer/{method.key}/lr"] = result.lr
    return values
