"""What a final run reports: the one reading of the test set, and all that goes with it."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from nc_tools._support.signals import StopSignal
from nc_tools.evaluation.evaluator import accuracy_metrics, collapse_metrics, collect, with_prefix
from nc_tools.experiment.build import Data, DataFacts
from nc_tools.experiment.evaluate.noisy_labels import measure_noise
from nc_tools.experiment.evaluate.ood import measure_ood
from nc_tools.experiment.evaluate.run_figures import write_figures
from nc_tools.experiment.evaluate.transfer_set import measure_transfer
from nc_tools.experiment.job import Job
from nc_tools.experiment.weight_files import load_weights, save_tensors
from nc_tools.metrics import calibration, fit_temperature, per_class
from nc_tools.models.classifier import Classifier
from nc_tools.records import Collected
from nc_tools.run_records import RunRecord, read_run
from nc_tools.run_records.json_files import write_json
from nc_tools.seeds import stream


def measure_final(
    job: Job,
    data: Data,
    facts: DataFacts,
    model: Classifier,
    indices: Tensor,
    record: RunRecord,
    stop: StopSignal | None = None,
) -> dict[str, float]:
    """Measure a trained model on all its sets; write predictions and figures beside its record.

    The test set is read here and nowhere else. What was chosen beforehand (temperature, best epoch) comes from the
    hold-out run; the oracle temperature, fitted on images outside the training subset, is kept apart.
    """
    dtype = job.config.training.dtype_on(data.device)
    counts = torch.tensor(facts.class_counts)
    train = collect(model, data.plain_batches(data.sources.train, indices), dtype=dtype)
    test = collect(model, data.plain_batches(data.sources.test), dtype=dtype)
    values = (
        accuracy_metrics(test, counts, "test")
        | collapse_metrics(model, test, "test")
        | collapse_metrics(model, train, "train")
    )
    values["train/gen/accuracy"] = float((train.logits.argmax(1) == train.labels).double().mean())
    temperatures = _temperatures(job, data, model, dtype)
    for name, temperature in temperatures.items():
        values[f"cal/{name}"] = temperature
        scaled = calibration(test.logits / temperature, test.labels)
        values |= with_prefix("test/cal_ts" if name == "temperature" else "test/cal_oracle", scaled)
    values |= measure_noise(job, data, model, train, test, indices, record)
    values |= _best_epoch(job, data, facts, model, record, dtype)
    values |= measure_transfer(job, data, model, record, stop)
    values |= measure_ood(data, model, train, test, dtype)
    _write(record, test, facts, temperatures)
    curves = record.read().curves()
    write_figures(record.figures, test.logits, test.labels, temperatures.get("temperature"), curves)
    return values


def _temperatures(job: Job, data: Data, model: Classifier, dtype: torch.dtype) -> dict[str, float]:
    found: dict[str, float] = {}
    if job.holdout_run is not None:
        found["temperature"] = read_run(job.holdout_run).final["cal/temperature"]
    outside = data.subsets.outside
    if len(outside):
        if len(outside) > 2000:
            outside = outside[torch.randperm(len(outside), generator=stream(job.seed, "subsample"))[:2000]]
        logits = collect(model, data.plain_batches(data.sources.train, outside), dtype=dtype)
        clean = data.clean_labels(outside)  # an oracle may know them; it is told apart, and nothing follows from it
        found["temperature_oracle"] = fit_temperature(logits.logits, logits.labels if clean is None else clean)
    return found


def _best_epoch(
    job: Job, data: Data, facts: DataFacts, model: Classifier, record: RunRecord, dtype: torch.dtype
) -> dict[str, float]:
    path = record.path / "best.safetensors"
    if not path.exists() or job.holdout_run is None:
        return {}
    best = copy.deepcopy(model)
    load_weights(best, path)
    path.unlink()
    test = collect(best, data.plain_batches(data.sources.test), dtype=dtype)
    values = accuracy_metrics(test, torch.tensor(facts.class_counts), "best")
    return values | {"best/epoch": read_run(job.holdout_run).final["best/epoch"]}


def _write(record: RunRecord, test: Collected, facts: DataFacts, temperatures: dict[str, float]) -> None:
    told = per_class(test.logits, test.labels, torch.tensor(facts.class_counts))
    text = {
        "classes": list(facts.classes),
        "train_counts": list(facts.class_counts),
        "test_counts": told.test_counts,
        "recall": told.recall,
        "group": told.group,
    }
    write_json(record.path / "per_class.json", text)
    tensors = {"test_logits": test.logits, "test_labels": test.labels}
    tensors |= {name: torch.tensor([value]) for name, value in temperatures.items()}
    save_tensors(tensors, record.path / "predictions.safetensors")
