"""Train the heads of several runs of one seed: side by side where that is possible, one after the other elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from nc_tools._support.signals import StopSignal
from nc_tools.data.mixing import Batches
from nc_tools.experiment.build import build_head, build_loss
from nc_tools.experiment.computed_start import start_generator
from nc_tools.experiment.job import Job
from nc_tools.experiment.on_features.feature_data import FeatureData
from nc_tools.experiment.on_features.head_run import HeadRun
from nc_tools.experiment.on_features.holdout_scores import HoldoutScores
from nc_tools.models.classifier import Classifier
from nc_tools.records import Collected
from nc_tools.seeds import stream
from nc_tools.training import NonFiniteLossError, PostHocStage, StartSamples, fit
from nc_tools.training.packed import Pack, PackMember, fit_pack, pack_key, why_not_packed

OnEpoch = Callable[[int, int], None]
"""Called after an epoch of a pack with the epochs done and all epochs."""


@dataclass(eq=False)
class HeadTraining:
    """The training of the heads of one seed on the same samples.

    Attributes:
        data: The feature sets of the seed.
        indices: The samples trained on (M,), int64.
        score_holdout: Whether heads are scored on the hold-out after every epoch.
        stop: When set, training ends with ``Killed``.
        on_epoch: Called after every epoch.
    """

    data: FeatureData
    indices: Tensor
    score_holdout: bool
    stop: StopSignal
    on_epoch: OnEpoch

    def new_run(self, job: Job, keep_epoch: int | None = None) -> HeadRun:
        """Return a run with its new head, computed by the arm's start if it has one.

        Args:
            job: What to make.
            keep_epoch: The epoch of which the weights are kept beside the last ones; None for none.
        """
        data, config, started = self.data, job.config, time.perf_counter()
        facts = data.facts(self.indices)
        width, generator = data.train.shape[0], stream(job.seed, "head")
        head = build_head(config, facts, width, generator=generator, frame_seed=job.frame_seed).to(data.device)
        if config.start is None:
            return HeadRun(job, facts, Classifier(self._scaling, head), keep_epoch)
        config.start.apply(head, self._samples, start_generator(job.seed))
        run = HeadRun(job, facts, Classifier(self._scaling, head), keep_epoch)
        run.seconds = time.perf_counter() - started
        return run

    def train(self, runs: Sequence[HeadRun]) -> None:
        """Train the heads of new runs; a run whose loss is not finite keeps the error."""
        packs: dict[object, list[tuple[HeadRun, PackMember]]] = {}
        for run in runs:
            config = run.job.config
            if config.is_closed_form:
                run.note(1, self._holdout_of(run))
                continue
            member = self._member(run)
            if why_not_packed(member, config.training) is None:
                packs.setdefault((pack_key(member), repr(config.training)), []).append((run, member))
            else:
                self._train_alone(run, member)
        for pack in packs.values():
            self._train_pack([run for run, _ in pack], [member for _, member in pack])
        for run in runs:
            if run.error is None:
                self._second_stage(run)
                run.model.eval()

    def _member(self, run: HeadRun) -> PackMember:
        config = run.job.config
        loss = build_loss(config, run.facts, run.model.head.feature_dim).to(self.data.device)
        if loss.needs_outliers or loss.views != 1:
            self.data.batches_for(loss, self.indices)  # raises: features have neither
        return PackMember(run.model, loss, self._batches, config.optim)

    def _train_pack(self, runs: list[HeadRun], members: list[PackMember]) -> None:
        training = runs[0].job.config.training
        by_model = {id(member.model): run for run, member in zip(runs, members, strict=True)}

        def epoch_end(epoch: int, pack: Pack, values: Sequence[dict[str, float]]) -> None:
            scores = self._holdout.of_pack(pack) if self.score_holdout else [{} for _ in values]
            for member, own, score in zip(pack.members, values, scores, strict=True):
                by_model[id(member.model)].note(epoch, {**own, **score})
            self.on_epoch(epoch, training.epochs)

        results = fit_pack(members, training, epoch_end=epoch_end, stop=self.stop)
        for run, result in zip(runs, results, strict=True):
            run.seconds += result.seconds
            run.error = result.error

    def _train_alone(self, run: HeadRun, member: PackMember) -> None:
        training = run.job.config.training

        def epoch_end(epoch: int, values: dict[str, float], _: Classifier) -> None:
            run.note(epoch, values | self._holdout_of(run))
            self.on_epoch(epoch, training.epochs)

        try:
            fitted = fit(
                run.model, member.loss, member.batches, training, member.optim, seed=run.job.seed,
                class_counts=run.facts.class_counts, epoch_end=epoch_end, stop=self.stop,
            )  # fmt: skip
        except NonFiniteLossError as error:
            run.error = error
        else:
            run.model = fitted.model
            run.seconds += fitted.seconds

    def _second_stage(self, run: HeadRun) -> None:
        """Change the trained head as the arm's second stage computes it; recorded as one more epoch."""
        stage, started = run.job.config.second_stage, time.perf_counter()
        if stage is None:
            return
        if not isinstance(stage, PostHocStage):
            raise ValueError(
                f"{type(stage).__name__} trains a classifier again, which runs on fixed features do not: the features "
                f"are not trained, so train the head with that loss or sampling at once"
            )
        stage.apply(run.model.head, lambda: self._collected(run.model))
        run.seconds += time.perf_counter() - started
        run.note(run.job.config.epochs, self._holdout_of(run))

    def _holdout_of(self, run: HeadRun) -> dict[str, float]:
        return self._holdout.of_model(run.model) if self.score_holdout else {}

    def _collected(self, model: Classifier) -> Collected:
        samples = self._samples
        outputs = model.head.outputs(samples.features)
        return Collected(samples.features, outputs.embedded, outputs.logits, samples.labels)

    @cached_property
    def _scaling(self) -> nn.Module:
        return self.data.scaling(self.indices, standardize=self.data.config.model.standardize)

    @cached_property
    def _batches(self) -> Batches:
        """One loader for all runs: they read the same samples in the same order."""
        return self.data.training_batches(self.indices)

    @cached_property
    @torch.no_grad()
    def _samples(self) -> StartSamples:
        batches = list(self.data.plain_batches(self.data.sources.train, self.indices))
        features = torch.cat([self._scaling(batch.inputs) for batch in batches])
        return StartSamples(features, torch.cat([batch.labels for batch in batches]), self.data.train.num_classes)

    @cached_property
    def _holdout(self) -> HoldoutScores:
        return HoldoutScores(self.data)
