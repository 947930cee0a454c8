"""Write the records of runs on fixed features: the same files as those of any other run."""

from __future__ import annotations

from nc_tools.experiment.evaluate.final_run import evaluate_final
from nc_tools.experiment.evaluate.holdout_run import HoldoutResult, evaluate_holdout
from nc_tools.experiment.job import JobResult
from nc_tools.experiment.on_features.head_run import HeadRun
from nc_tools.experiment.run_identity import identify
from nc_tools.experiment.stage_checkpoints import StageCheckpoints
from nc_tools.experiment.weight_files import save_tensors
from nc_tools.run_records import RunRecord

HEAD_WEIGHTS = "head.safetensors"
"""File of a run on features of a pretrained backbone: the scaling of the features, and the trained head."""


def record_holdout(run: HeadRun) -> JobResult:
    """Write the record of a hold-out run; one that diverged has none."""
    if run.error is not None:
        return JobResult(None, "FAILED", error=str(run.error), diverged=True)
    data = run.samples.data
    with RunRecord.create(run.job.root, identify(run.job, run.samples.facts, data.features.backbone)) as record:
        for epoch, values in run.curves.items():
            record.log(epoch, values)
        final = evaluate_holdout(run.job, data, run.samples.facts, run.model, record) | _cost(run)
        _save(run, record)
        record.finish(final)
    return JobResult(record.path, "FINISHED")


def record_final(run: HeadRun) -> JobResult:
    """Evaluate a trained final run on the test set and write its record; one that diverged is recorded as FAILED."""
    data, holdout = run.samples.data, HoldoutResult.read(run.job.holdout_run)
    record = RunRecord.create(run.job.root, identify(run.job, run.samples.facts, data.features.backbone))
    if run.error is not None:
        record.fail(run.error)
        return JobResult(record.path, "FAILED", error=str(run.error), diverged=True)
    with record:
        for epoch, values in run.curves.items():
            record.log(epoch, values | holdout.curves.get(epoch, {}))
        checkpoints = StageCheckpoints(record.path)
        if run.kept is not None:
            save_tensors(run.kept, checkpoints.best)
        final = evaluate_final(run.job, data, run.samples.facts, run.model, run.samples.indices, record) | _cost(run)
        _save(run, record)
        record.finish(final)
        checkpoints.remove()
    return JobResult(record.path, "FINISHED")


def _save(run: HeadRun, record: RunRecord) -> None:
    """Save what was trained, under the names that it has in the whole model.

    The model of embeddings is whole without a backbone; that of images needs the pretrained one, which is not saved
    with every run.
    """
    model = run.job.config.model
    names = {"backbone": "backbone.1" if model.standardize else "backbone", "head": "head"}
    tensors = {}
    for name, value in run.model.state_dict().items():
        part, _, rest = name.partition(".")
        tensors[f"{names[part]}.{rest}"] = value
    save_tensors(tensors, record.path / (HEAD_WEIGHTS if model.is_pretrained else "weights.safetensors"))


def _cost(run: HeadRun) -> dict[str, float]:
    """Return training time (the run's share, where heads train side by side), throughput and parameters."""
    seconds = max(run.seconds, 1e-9)
    head = sum(p.numel() for p in run.model.head.parameters())
    return {
        "perf/seconds": run.seconds,
        "perf/side_by_side": float(run.side_by_side),
        "perf/images_per_s": sum(run.samples.facts.class_counts) * max(run.curves) / seconds,
        "perf/parameters": float(head),
        "perf/head_parameters": float(head),
    }
