"""Make one training run: train a model, evaluate it, and write the run's files."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from nc_tools._support.signals import Killed, StopSignal
from nc_tools.data.mixing import Batches
from nc_tools.experiment.build import DataFacts, build_loss, build_model
from nc_tools.experiment.computed_start import compute_start
from nc_tools.experiment.decoupled_stage import run_second_stage
from nc_tools.experiment.early_stopping import EarlyStopping
from nc_tools.experiment.evaluate.epochs import EpochEvaluation
from nc_tools.experiment.evaluate.final_run import evaluate_final
from nc_tools.experiment.evaluate.holdout_run import HOLDOUT_SCORE, HoldoutResult, evaluate_holdout
from nc_tools.experiment.job import Job, JobResult, Note, RunProgress
from nc_tools.experiment.noise_estimation import NoiseEstimate, estimate_noise
from nc_tools.experiment.pack_loaders import PackLoaders
from nc_tools.experiment.run_backbone import write_backbone_files
from nc_tools.experiment.run_data import RunData, facts_of, open_data
from nc_tools.experiment.run_identity import identify
from nc_tools.experiment.shared_training import SharedTraining, announce
from nc_tools.experiment.stage_checkpoints import StageCheckpoints
from nc_tools.experiment.weight_files import save_weights
from nc_tools.losses.loss_term import LossTerm
from nc_tools.models.classifier import Classifier
from nc_tools.run_records import RunIdentity, RunRecord, read_run
from nc_tools.training import NonFiniteLossError, RetrainingStage, fit
from nc_tools.training.in_steps import Steps, in_steps
from nc_tools.training.processes import Processes

OnProgress = Callable[[RunProgress | Note], None]


@in_steps
def run_job(
    job: Job,
    on_progress: OnProgress,
    stop: StopSignal,
    *,
    loaders: PackLoaders | None = None,
    processes: Processes | None = None,
) -> Steps[JobResult]:
    """Make a training run, unless its folder shows that it was made before.

    ``run_job.steps(...)`` is a generator that stops at each pass through the backbone, for runs side by side.

    Args:
        job: The run.
        on_progress: Called after each epoch, and with the reason if the run's steps are not replayed on a GPU.
        stop: When set, the run ends between two steps as KILLED, with a checkpoint.
        loaders: The loaders that runs made by the process at the same time share; None if it makes no other run.
        processes: The processes that train the run together, of which this is the first; None: this one alone. The
            others wait in :func:`~nc_tools.experiment.shared_training.next_training`.

    Returns:
        How the run ended: finished, stopped, or with a loss that diverged. Any other error is raised, and written into
        the run's record if the record exists by then.
    """
    opened = open_job(job)
    path = job.root / "runs" / opened.identity.run_id
    if (earlier := earlier_result(path, job)) is not None:
        return earlier
    try:
        with _open_record(job, opened.identity, path) as record:
            run = _Run(job, opened.data, opened.facts, record, on_progress, stop, loaders, processes)
            return (yield from run.make(opened.indices))
    except Killed as error:
        return JobResult(path, "KILLED", error=error.reason)
    except NonFiniteLossError as error:
        return JobResult(path, "FAILED", error=str(error), diverged=True)


@dataclass(frozen=True)
class OpenedJob:
    """A run to make, with its data at hand.

    Attributes:
        data: Its image sets.
        indices: (M,) the training samples that it trains on.
        facts: Facts about these.
        identity: The contents of run.json; it names the run's folder.
    """

    data: RunData
    indices: Tensor
    facts: DataFacts
    identity: RunIdentity


def open_job(job: Job) -> OpenedJob:
    """Open the data of a run, and find out which folder it has."""
    cache = job.cache or job.root / "cache"
    data = open_data(job.config, seed=job.seed, device=torch.device(job.device), cache=cache)
    indices = data.subsets.train if job.kind == "final" else data.subsets.fit
    facts = facts_of(data.sources, data.sources.train.labels[indices])
    return OpenedJob(data, indices, facts, identify(job, facts))


def earlier_result(path: Path, job: Job) -> JobResult | None:
    """Return the earlier result of a run if it need not be repeated: finished, or a diverged tuning trial."""
    if not path.exists():
        return None
    try:
        run = read_run(path)
    except (OSError, ValueError):
        return None
    if run.status == "FINISHED":
        StageCheckpoints(path).remove()  # in case the process was killed before it did
        return JobResult(path, "FINISHED", run.final.get(HOLDOUT_SCORE), earlier=True)
    if job.kind == "tuning" and run.status == "FAILED" and "NonFiniteLossError" in (run.error or ""):
        return JobResult(path, "FAILED", error=run.error, earlier=True, diverged=True)
    return None


def _open_record(job: Job, identity: RunIdentity, path: Path) -> RunRecord:
    checkpoints = StageCheckpoints(path)
    if job.resume and checkpoints.can_resume(HoldoutResult.read(job.holdout_run).best_epoch):
        return RunRecord.open(path, step=checkpoints.epochs_done())
    return RunRecord.create(job.root, identity)


class _Run:
    """One training run in progress."""

    def __init__(
        self,
        job: Job,
        data: RunData,
        facts: DataFacts,
        record: RunRecord,
        on_progress: OnProgress,
        stop: StopSignal,
        loaders: PackLoaders | None,
        processes: Processes | None,
    ) -> None:
        self.job = job
        self.data = data
        self.facts = facts
        self.record = record
        self.on_progress = on_progress
        self.stop = stop
        self.loaders = loaders
        self.processes = processes
        self.training = job.config.training
        self.epochs = job.config.epochs
        self.epochs_done = 0
        self.holdout = HoldoutResult.read(job.holdout_run)
        self.stopping = EarlyStopping(job, record, self.holdout)

    def make(self, indices: Tensor) -> Steps[JobResult]:
        """Train on the samples at the given indices, evaluate the model, and write the final results."""
        job, device = self.job, self.data.device
        # Both settings belong to the process, which may have made a run of another arm before.
        torch.use_deterministic_algorithms(self.training.deterministic)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        write_backbone_files(job.config.model, self.record.path)
        model = build_model(job.config, self.facts, seed=job.seed, frame_seed=job.frame_seed)
        self.training.place(model, device)
        checkpoints = StageCheckpoints(self.record.path)
        noise = yield from estimate_noise.steps(job, self.data, self.facts, indices, checkpoints.first, self.stop)
        trained, seconds = yield from self._train(model, indices, noise.transition, checkpoints)
        started = time.perf_counter()
        final = self._evaluate(trained, indices)
        final["perf/evaluation_seconds"] = time.perf_counter() - started
        final |= self._cost(model, noise, seconds, len(indices))
        if job.kind != "tuning":
            save_weights(trained, self.record.path / "weights.safetensors")
        self.record.finish(final)
        checkpoints.remove()
        self.stopping.clean_up()
        return JobResult(self.record.path, "FINISHED", final.get(HOLDOUT_SCORE))

    def _train(
        self, model: Classifier, indices: Tensor, transition: Tensor | None, checkpoints: StageCheckpoints
    ) -> Steps[tuple[Classifier, float]]:
        """Train the model, including a second stage if there is one; return the model and the seconds of training."""
        job, device = self.job, self.data.device
        loss = build_loss(job.config, self.facts, model.head.feature_dim, transition=transition).to(device)
        self.evaluate_epoch = EpochEvaluation(job, self.data, self.facts, indices)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(job.seed)  # for dropout, which alone draws from the global generator
            seconds = compute_start(job, self.data, self.facts, model, indices)
            if job.config.is_closed_form:
                self._epoch_end(1, {}, model)
                return model.eval(), seconds
            if self.processes is not None:
                self._announce(self.processes, transition)
            fitted = yield from fit.steps(
                model,
                loss,
                self._batches(loss, indices),
                self.training,
                job.config.optim,
                seed=job.seed,
                class_counts=self.facts.class_counts,
                epoch_end=self._epoch_end,
                checkpoint=checkpoints.main,
                resume=job.resume,
                stop=self.stop,
                keep_last=job.kind == "final" or job.config.second_stage is not None,
                note=lambda reason: self.on_progress(Note(f"{job.arm}: {reason}")),
                processes=self.processes,
            )
            self.stopping.restore_best(fitted.model)
            seconds += yield from run_second_stage.steps(
                job,
                self.data,
                self.facts,
                fitted.model,
                indices,
                epoch_end=self._epoch_end,
                checkpoint=checkpoints.second,
                stop=self.stop,
            )
        return fitted.model, fitted.seconds + seconds

    def _announce(self, processes: Processes, transition: Tensor | None) -> None:
        """Let the other processes take part in the training, and say what this one does alone."""
        config, run_id = self.job.config, self.record.path.name
        alone = ["the network that estimates label noise"] if transition is not None else []
        alone += ["the second stage"] if isinstance(config.second_stage, RetrainingStage) else []
        for part in alone:
            self.on_progress(Note(f"{self.job.arm}: {part} is trained by the first process alone"))
        matrix = None if transition is None else transition.cpu()
        announce(processes, SharedTraining(self.job, run_id, matrix))

    def _batches(self, loss: LossTerm, indices: Tensor) -> Batches:
        """Return training batches; runs that are made at the same time share those of one seed."""
        if self.processes is not None:
            return replace(self.data, processes=self.processes).batches_for(loss, indices)
        if self.loaders is None:
            return self.data.batches_for(loss, indices)
        return self.loaders.batches_for(self.data, loss, indices)

    def _epoch_end(self, epoch: int, values: dict[str, float], model: Classifier) -> bool:
        """Evaluate the model after an epoch and record the results; return True to end the training here."""
        values = values | self.evaluate_epoch(epoch, model) | self.holdout.curves.get(epoch, {})
        if epoch == self.holdout.best_epoch:
            save_weights(model, StageCheckpoints(self.record.path).best)
        self.record.log(epoch, values)
        self.on_progress(RunProgress(self.job.label, epoch, self.epochs))
        self.epochs_done = epoch
        return self.stopping.end(epoch, values, model)

    def _evaluate(self, model: Classifier, indices: Tensor) -> dict[str, float]:
        if self.job.kind == "final":
            return evaluate_final(self.job, self.data, self.facts, model, indices, self.record, self.stop)
        return evaluate_holdout(self.job, self.data, self.facts, model, self.record)

    def _cost(self, model: Classifier, noise: NoiseEstimate, seconds: float, samples: int) -> dict[str, float]:
        """Return training time, how many runs shared it, throughput, parameters and the GPU memory of a run alone."""
        seconds += noise.seconds
        values = {
            "perf/seconds": seconds,
            "perf/side_by_side": float(1 if self.loaders is None else self.loaders.runs),
            "perf/images_per_s": samples * (noise.epochs + (self.epochs_done or self.epochs)) / max(seconds, 1e-9),
            "perf/parameters": float(sum(p.numel() for p in model.parameters())),
            "perf/trained_parameters": float(sum(p.numel() for p in model.parameters() if p.requires_grad)),
            "perf/head_parameters": float(sum(p.numel() for p in model.head.parameters())),
        }
        if self.processes is not None:
            values["perf/processes"] = float(self.processes.size)
        if self.data.device.type == "cuda" and self.loaders is None:
            values["perf/max_memory_mb"] = torch.cuda.max_memory_allocated(self.data.device) / 2**20
        return values
