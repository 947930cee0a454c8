"""What a final run measures after its last step: the test set, read here and nowhere else, and all other sets."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor

from nc_tools._support.signals import StopSignal
from nc_tools.evaluation.evaluator import EvaluationSet, Evaluator
from nc_tools.experiment.build import DataFacts
from nc_tools.experiment.evaluate.held_out_head import fitted_scalars, take_held_out
from nc_tools.experiment.evaluate.holdout_record import holdout_value
from nc_tools.experiment.evaluate.label_noise import evaluate_label_noise
from nc_tools.experiment.evaluate.mistake_images import keep_mistakes
from nc_tools.experiment.evaluate.ood import evaluate_ood
from nc_tools.experiment.evaluate.prediction_sets import CONFORMAL, SetCoverage, set_coverage, surest_predictions
from nc_tools.experiment.evaluate.run_figures import write_figures
from nc_tools.experiment.evaluate.scalings import SCALINGS, scaled_measures
from nc_tools.experiment.evaluate.test_outputs import write_test_outputs
from nc_tools.experiment.evaluate.transfer_set import evaluate_transfer
from nc_tools.experiment.job import Job
from nc_tools.experiment.run_data import RunData
from nc_tools.experiment.stage_checkpoints import StageCheckpoints
from nc_tools.experiment.weight_files import load_tensors, load_weights
from nc_tools.metrics import fit_temperature
from nc_tools.models.classifier import Classifier
from nc_tools.records import Collected
from nc_tools.run_records import RunRecord
from nc_tools.seeds import stream

_ORACLE_SAMPLES = 2000


def evaluate_final(
    job: Job,
    data: RunData,
    facts: DataFacts,
    model: Classifier,
    indices: Tensor,
    record: RunRecord,
    stop: StopSignal | None = None,
) -> dict[str, float]:
    """Return the final values of a final run; write predictions, figures and tables into its folder.

    Temperature, best epoch and what the head fits on held-out samples come from the hold-out run. The oracle
    temperature, fitted on images outside the training subset, has keys of its own.

    Args:
        job: The run.
        data: Its images.
        facts: Facts of the samples trained on.
        model: The trained model.
        indices: The samples trained on (M,), int64.
        record: Where files go.
        stop: Ends fine-tuning between two steps when it is set.
    """
    if job.holdout_run is not None:
        take_held_out(model.head, job.holdout_run)
    evaluator = data.evaluator(model, facts)
    train = EvaluationSet("train", data.sources.train, indices)
    test = EvaluationSet("test", data.sources.test)
    values = (
        fitted_scalars(model.head) | evaluator.accuracy(test) | evaluator.collapse(test) | evaluator.collapse(train)
    )
    values["train/gen/accuracy"] = share_correct(evaluator.outputs(train))
    values |= evaluator.further_measures(train, test)
    temperatures = _temperatures(job, data, evaluator)
    for name, temperature in temperatures.items():
        values[f"cal/{name}"] = temperature
        values |= evaluator.calibration(test, temperature, "cal_ts" if name == "temperature" else "cal_oracle")
    coverage = SetCoverage()
    if job.holdout_run is not None:
        values |= scaled_measures(evaluator, test, _held_out_tensors(job.holdout_run / SCALINGS))
        coverage = set_coverage(evaluator, test, _held_out_tensors(job.holdout_run / CONFORMAL))
        values |= coverage.values
    values |= surest_predictions(evaluator, test)
    values |= evaluate_label_noise(job, data, evaluator, train, test, record)
    values |= evaluate_ood(data, evaluator, train, test)
    if job.protocol.keep_mistakes:
        keep_mistakes(record.path, evaluator.outputs(test), data.sources)
    _write_predictions(record, evaluator.outputs(test), facts, temperatures, coverage)
    values |= _best_epoch(job, data, facts, model, test, record)
    return values | evaluate_transfer(job, data, evaluator, record, stop)


def share_correct(outputs: Collected) -> float:
    """Return the share of samples whose largest logit is that of their label."""
    return float((outputs.logits.argmax(1) == outputs.labels).double().mean())


def _held_out_tensors(path: Path) -> dict[str, Tensor]:
    """Return what a hold-out run fitted; empty for one of an earlier version, which fitted less."""
    return load_tensors(path) if path.exists() else {}


def _temperatures(job: Job, data: RunData, evaluator: Evaluator) -> dict[str, float]:
    """Return the temperature of the hold-out run, and the one that images outside the subset would give."""
    temperatures: dict[str, float] = {}
    if job.holdout_run is not None:
        temperatures["temperature"] = holdout_value(job.holdout_run, "cal/temperature")
    indices = data.subsets.outside
    if len(indices):
        if len(indices) > _ORACLE_SAMPLES:
            chosen = torch.randperm(len(indices), generator=stream(job.seed, "subsample"))[:_ORACLE_SAMPLES]
            indices = indices[chosen]
        outside = EvaluationSet("outside", data.sources.train, indices)
        outputs = evaluator.collect(outside.images, outside.indices)
        # An oracle may use true labels: it is reported separately, and nothing is chosen by it.
        clean = outside.clean_labels
        labels = outputs.labels if clean is None else clean.to(outputs.labels.device)
        temperatures["temperature_oracle"] = fit_temperature(outputs.logits, labels)
    return temperatures


def _best_epoch(
    job: Job, data: RunData, facts: DataFacts, model: Classifier, test: EvaluationSet, record: RunRecord
) -> dict[str, float]:
    """Return the test metrics of the epoch that the hold-out run found best, as ``best/``."""
    if job.holdout_run is None:
        return {}
    best = copy.deepcopy(model)
    load_weights(best, StageCheckpoints(record.path).best)
    take_held_out(best.head, job.holdout_run)
    values = data.evaluator(best, facts).accuracy(EvaluationSet("best", test.images))
    return values | {"best/epoch": holdout_value(job.holdout_run, "best/epoch")}


def _write_predictions(
    record: RunRecord, outputs: Collected, facts: DataFacts, temperatures: dict[str, float], coverage: SetCoverage
) -> None:
    """Write logits and labels of the test set, recall and coverage by class, and the run's figures."""
    write_test_outputs(
        record.path,
        outputs,
        classes=facts.classes,
        counts=facts.class_counts,
        temperatures=temperatures,
        coverage=coverage.by_class,
    )
    curves = record.read().curves()
    write_figures(record.figures, outputs.logits, outputs.labels, temperatures.get("temperature"), curves)
