"""What runs on noisy labels tell besides: measures under true labels, the noise estimated, labels that look wrong."""

from __future__ import annotations

import torch
from safetensors.torch import load_file
from torch import Tensor

from nc_tools.evaluation.evaluator import accuracy_metrics, label_noise_metrics, on_clean_labels, with_prefix
from nc_tools.experiment.build import Data
from nc_tools.experiment.evaluate.suspects_csv import write_suspects
from nc_tools.experiment.job import Job
from nc_tools.experiment.weight_files import save_tensors
from nc_tools.metrics import (
    anchor_transition,
    confusion_transition,
    counted_transition,
    precision_at,
    rank_suspects,
    transition_error,
)
from nc_tools.models.classifier import Classifier
from nc_tools.records import Collected
from nc_tools.run_records import RunRecord, read_run

TRANSITION = "transition.safetensors"
LISTED = 2000


def measure_noise(
    job: Job, data: Data, model: Classifier, train: Collected, test: Collected, indices: Tensor, record: RunRecord
) -> dict[str, float]:
    """Measure the training set of a final run on given and on true labels, and list the labels that look wrong.

    No values where no true labels are known. The test set has true labels. Nothing that was chosen depends on what is
    told here.
    """
    clean = data.clean_labels(indices)
    rows = (LISTED if clean is not None else 0) if job.protocol.suspects is None else job.protocol.suspects
    if clean is None and not rows:
        return {}
    told = rank_suspects(train.features, train.logits, train.labels)
    if rows:
        known = None if clean is None else clean.cpu()
        write_suspects(record.path / "suspects.csv", told, data.sources.train, indices, known, rows)
    if clean is None:
        return {}
    number = data.sources.num_classes
    counts = torch.bincount(train.labels, minlength=number).cpu()
    values = accuracy_metrics(train, counts, "train") | on_clean_labels(model, train, clean, counts, "train")
    values |= label_noise_metrics(train, clean, "train")
    values |= {k: v for k, v in label_noise_metrics(test, test.labels, "test").items() if k == "test/noise/dilation"}
    counted = counted_transition(clean.cpu(), train.labels.cpu(), number)
    anchor = anchor_transition(train.logits)
    tensors = {"counted": counted, "anchor": anchor}
    values["noise/transition_error_anchor"] = transition_error(anchor, counted)
    if job.holdout_run is not None:
        tensors |= {"confusion": load_file(job.holdout_run / TRANSITION)["confusion"]}
        key = "noise/transition_error_confusion"
        values[key] = read_run(job.holdout_run).final[key]
    save_tensors(tensors, record.path / TRANSITION)
    wrong = (train.labels != clean).cpu()
    rankings = {
        "precision": told.order,
        "precision_loss": told.loss_rank.argsort(),
        "precision_distance": told.distance_rank.argsort(),
    }
    found = {name: precision_at(order, wrong) for name, order in rankings.items()}
    return values | with_prefix("train/suspects", {name: p for name, p in found.items() if p is not None})


def transition_values(data: Data, held: Collected, record: RunRecord) -> dict[str, float]:
    """Estimate the transition matrix on the hold-out of a hold-out run, write it down, and tell how wrong it is."""
    given, true = data.sources.train.labels, data.sources.train.clean_labels
    if true is None:
        return {}
    estimate = confusion_transition(held.logits, held.labels)
    save_tensors({"confusion": estimate}, record.path / TRANSITION)
    fit = data.subsets.fit
    counted = counted_transition(true[fit], given[fit], data.sources.num_classes)
    return {"noise/transition_error_confusion": transition_error(estimate, counted)}
