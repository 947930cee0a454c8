"""Make one run: train, measure, write it all down."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from nc_tools._support.signals import Killed, StopSignal
from nc_tools.evaluation.evaluator import accuracy_metrics, collapse_metrics, collect, label_noise_metrics
from nc_tools.experiment.build import Data, DataFacts, build_loss, build_model, facts_of, open_data
from nc_tools.experiment.decoupled_stage import second_stage
from nc_tools.experiment.evaluate.noisy_labels import transition_values
from nc_tools.experiment.evaluate.test_set import measure_final
from nc_tools.experiment.job import Job, JobResult, Progress
from nc_tools.experiment.noise_estimation import FirstStage, first_stage
from nc_tools.experiment.run_config import RunConfig
from nc_tools.experiment.serialize import encode, run_hash, settings
from nc_tools.experiment.stage_checkpoints import Checkpoints
from nc_tools.experiment.weight_files import save_weights
from nc_tools.losses.loss_term import LossTerm
from nc_tools.metrics import fit_temperature
from nc_tools.models.classifier import Classifier
from nc_tools.run_records import RunIdentity, RunRecord, read_run
from nc_tools.seeds import stream
from nc_tools.training import NonFiniteLossError, fit

PRIMARY = "gen/balanced_accuracy"
# What a final run shows of its hold-out run, epoch by epoch, beside collapse; the rest is in that run's own record.
HOLDOUT_CURVES = ("holdout/gen/accuracy", f"holdout/{PRIMARY}", "holdout/cal/nll", "holdout/cal/ece")
Report = Callable[[Progress], None]


def run_job(job: Job, report: Report, stop: StopSignal) -> JobResult:
    """Make a run, or find that it was made before.

    Args:
        job: What to do.
        report: Called with signs of life.
        stop: When set, the run ends between two steps as KILLED, with a checkpoint.

    Returns:
        How it ended: finished, stopped, or with a loss that diverged. Any other error is raised, and noted in the run's
        record once there is one.
    """
    device = torch.device(job.device)
    data = open_data(
        job.config,
        seed=job.seed,
        device=device,
        cache=job.root / "cache",
    )
    indices = data.subsets.train if job.kind == "final" else data.subsets.fit
    facts = facts_of(data.sources, data.sources.train.labels[indices])
    identity = identify(job, facts)
    path = job.root / "runs" / identity.run_id
    if (done := _already(path, job)) is not None:
        return done
    try:
        with _begin(job, identity, path) as record:
            run = _Run(job, data, facts, record, report, stop)
            return run.make(indices)
    except Killed as error:
        return JobResult(path, "KILLED", error=error.reason)
    except NonFiniteLossError as error:
        return JobResult(path, "FAILED", error=str(error), diverged=True)


def identify(job: Job, facts: DataFacts) -> RunIdentity:
    """Write down who a run is; its hash decides whether it has been made before."""
    rules = job.protocol
    decides: list[object] = [job.kind, facts.fingerprint, str(job.config.training.dtype_on(torch.device(job.device)))]
    if job.kind != "tuning":
        decides += [rules.curve_points, rules.curve_samples, rules.transfer_samples]
        decides += [] if rules.suspects is None else [rules.suspects]
    if job.kind == "final":
        decides += [] if rules.fine_tuning is None else [encode(rules.fine_tuning)]
        decides += ["rank_layers"] if rules.rank_layers else []
    return RunIdentity(
        kind=job.kind,
        arm=job.arm,
        seed=job.seed,
        draw=job.draw,
        experiment=job.experiment,
        suite=job.suite,
        config=settings(job.config),
        data={"name": job.config.data.source, **dataclasses.asdict(facts), **_exposure(job.config)},
        config_hash=run_hash(job.config, *decides, job.seed, job.draw),
        group_hash=run_hash(job.config, *decides),
    )


def _exposure(config: RunConfig) -> dict[str, str]:
    """Say what the run trains against, where its loss does: other arms of the same data do not."""
    needs = any(issubclass(cls, LossTerm) and cls.needs_outliers for cls in config.loss.classes())
    return {"outliers": config.data.outliers} if needs and config.data.outliers is not None else {}


def _already(path: Path, job: Job) -> JobResult | None:
    """Return the result of a run that was made before: finished, or a trial whose loss diverged."""
    if not path.exists():
        return None
    try:
        run = read_run(path)
    except (OSError, ValueError):
        return None
    if run.status == "FINISHED":
        return JobResult(path, "FINISHED", run.final.get(f"holdout/{PRIMARY}"), again=True)
    if job.kind == "tuning" and run.status == "FAILED" and "NonFiniteLossError" in (run.error or ""):
        return JobResult(path, "FAILED", error=run.error, again=True, diverged=True)
    return None


def _begin(job: Job, identity: RunIdentity, path: Path) -> RunRecord:
    checkpoints = Checkpoints(path)
    if job.resume and checkpoints.exist:
        return RunRecord.open(path, step=checkpoints.epochs_done())
    return RunRecord.create(job.root, identity)


class _Run:
    """The parts of a run that its epochs and its end have in common."""

    def __init__(
        self, job: Job, data: Data, facts: DataFacts, record: RunRecord, report: Report, stop: StopSignal
    ) -> None:
        self.job = job
        self.data = data
        self.facts = facts
        self.record = record
        self.report = report
        self.stop = stop
        self.training = job.config.training
        self.epochs = job.config.epochs
        self.dtype = self.training.dtype_on(data.device)
        self.best_epoch, self.borrowed = _from_holdout_run(job.holdout_run)

    def make(self, indices: torch.Tensor) -> JobResult:
        job, device = self.job, self.data.device
        # Both belong to the process, which may have made a run of another arm before.
        torch.use_deterministic_algorithms(self.training.deterministic)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        model = build_model(job.config, self.facts, seed=job.seed, draw=job.draw)
        self.training.place(model, device)
        checkpoints = Checkpoints(self.record.path)
        before = first_stage(job, self.data, self.facts, indices, checkpoints.first, self.stop)
        loss = build_loss(job.config, self.facts, model.head.feature_dim, transition=before.transition).to(device)
        self.curve_indices = self._sample(indices)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(job.seed)  # dropout, the one thing that draws from the global stream
            fitted = fit(
                model,
                loss,
                self.data.batches_for(loss, indices),
                self.training,
                job.config.optim,
                seed=job.seed,
                class_counts=self.facts.class_counts,
                epoch_end=self.epoch_end,
                checkpoint=checkpoints.main,
                resume=job.resume,
                stop=self.stop,
                keep_last=job.config.second_stage is not None,
            )
            after = second_stage(
                job,
                self.data,
                self.facts,
                fitted.model,
                indices,
                epoch_end=self.epoch_end,
                checkpoint=checkpoints.second,
                stop=self.stop,
            )
        final = self._measure(fitted.model, indices)
        final |= self._cost(before, fitted.seconds + after, len(indices), model)
        if job.kind != "tuning":
            save_weights(fitted.model, self.record.path / "weights.safetensors")
        self.record.finish(final)
        checkpoints.remove()
        return JobResult(self.record.path, "FINISHED", final.get(f"holdout/{PRIMARY}"))

    def epoch_end(self, epoch: int, values: dict[str, float], model: Classifier) -> None:
        """Measure and write down what an epoch gave; called by the loop."""
        last = epoch == self.epochs
        told: dict[str, float] = dict(values)
        if self.job.kind == "holdout":
            told |= self._holdout(model)
        if self.job.kind != "tuning" and (last or epoch in curve_epochs(self.epochs, self._points())):
            told |= self._curve(model)
        told |= self.borrowed.get(epoch, {})
        if epoch == self.best_epoch:
            save_weights(model, self.record.path / "best.safetensors")
        self.record.log(epoch, told)
        self.report(Progress(self.job.label, epoch, self.epochs))

    def _points(self) -> int:
        return self.job.protocol.curve_points

    def _sample(self, indices: torch.Tensor) -> torch.Tensor:
        most = self.job.protocol.curve_samples
        if len(indices) <= most:
            return indices
        chosen = torch.randperm(len(indices), generator=stream(self.job.seed, "subsample"))[:most]
        return indices[chosen.sort().values]

    def _holdout(self, model: Classifier) -> dict[str, float]:
        batches = self.data.plain_batches(self.data.sources.train, self.data.subsets.holdout)
        self._held = collect(model, batches, dtype=self.dtype)
        return accuracy_metrics(self._held, torch.tensor(self.facts.class_counts), "holdout")

    def _curve(self, model: Classifier) -> dict[str, float]:
        batches = self.data.plain_batches(self.data.sources.train, self.curve_indices)
        train = collect(model, batches, dtype=self.dtype)
        values = collapse_metrics(model, train, "train")
        clean = self.data.clean_labels(self.curve_indices)
        told = {} if clean is None else label_noise_metrics(train, clean, "train")
        if self.job.kind == "holdout":
            values |= collapse_metrics(model, self._held, "holdout")
            clean = self.data.clean_labels(self.data.subsets.holdout)
            told |= {} if clean is None else label_noise_metrics(self._held, clean, "holdout")
        # The other forms are told at the end; as curves they would only double what MLflow has to take in.
        return told | {k: value for k, value in values.items() if "/nc/" in k and not k.endswith("_pooled")}

    def _measure(self, model: Classifier, indices: torch.Tensor) -> dict[str, float]:
        if self.job.kind == "final":
            return measure_final(self.job, self.data, self.facts, model, indices, self.record, self.stop)
        values = self._holdout(model)
        if self.job.kind == "holdout":
            values["cal/temperature"] = fit_temperature(self._held.logits, self._held.labels)
            values["best/epoch"] = best_epoch(self.record)
            values |= transition_values(self.data, self._held, self.record)
        return values

    def _cost(self, before: FirstStage, seconds: float, samples: int, model: Classifier) -> dict[str, float]:
        seconds += before.seconds
        values = {
            "perf/seconds": seconds,
            "perf/images_per_s": samples * (before.epochs + self.epochs) / seconds,
            "perf/parameters": float(sum(p.numel() for p in model.parameters())),
            "perf/head_parameters": float(sum(p.numel() for p in model.head.parameters())),
        }
        if self.data.device.type == "cuda":
            values["perf/max_memory_mb"] = torch.cuda.max_memory_allocated(self.data.device) / 2**20
        return values


def best_epoch(record: RunRecord) -> int:
    """Return the first epoch with the best balanced accuracy on the hold-out."""
    curve = record.read().curves()[f"holdout/{PRIMARY}"]
    return max(curve, key=lambda point: (point[1], -point[0]))[0]


def _from_holdout_run(path: Path | None) -> tuple[int | None, Mapping[int, dict[str, float]]]:
    """Return the best epoch of a hold-out run, and its curves of the hold-out by epoch."""
    if path is None:
        return None, {}
    run = read_run(path)
    by_epoch: dict[int, dict[str, float]] = {}
    for key, points in run.curves().items():
        if key in HOLDOUT_CURVES or key.startswith(("holdout/nc/", "holdout/noise/")):
            for epoch, value in points:
                by_epoch.setdefault(epoch, {})[key] = value
    return int(run.final["best/epoch"]), by_epoch


def curve_epochs(epochs: int, points: int) -> set[int]:
    """Return about so many epochs, from 1 to the last, at equal ratios: collapse changes fastest at the start.

    Example:
        >>> sorted(curve_epochs(100, 5))
        [1, 3, 10, 32, 100]
    """
    if points < 2:
        return {epochs}
    return {round(epochs ** (i / (points - 1))) for i in range(points)}
