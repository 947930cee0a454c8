"""All runs of one seed on fixed features: tuning on the seed's own hold-out, then the final runs of all arms."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from nc_tools import __version__
from nc_tools._support.signals import Killed, StopSignal
from nc_tools.experiment.build import DataFacts
from nc_tools.experiment.deserialize import decode
from nc_tools.experiment.evaluate.holdout_run import HOLDOUT_SCORE, HoldoutResult
from nc_tools.experiment.job import Job, JobKind, JobResult, RunProgress
from nc_tools.experiment.on_features.feature_data import FeatureData, open_feature_data
from nc_tools.experiment.on_features.head_records import record_final, record_holdout
from nc_tools.experiment.on_features.head_run import HeadRun
from nc_tools.experiment.on_features.train_heads import HeadTraining, OnEpoch
from nc_tools.experiment.plan import Plan
from nc_tools.experiment.run_config import RunConfig
from nc_tools.experiment.run_identity import identify
from nc_tools.experiment.run_job import earlier_result
from nc_tools.experiment.serialize import encode
from nc_tools.experiment.tuning import Score, TuningResult, tune
from nc_tools.run_records.json_files import read_json_or_problem, write_json

TRIAL_SEEDS = 1_000_000
"""Added to a seed, it is the seed of initial weights, order and frames of the seed's tuning trials."""


@dataclass(frozen=True, kw_only=True)
class SeedJob:
    """The runs of one seed, made by one process.

    Attributes:
        plan: The arms and their common rules.
        seed: Of hold-out, initial weights, order and frames.
        features: The file of the feature sets.
        root: The output folder.
        device: Where heads train.
    """

    plan: Plan
    seed: int
    features: Path
    root: Path
    device: str
    kind: str = "seed"

    @property
    def label(self) -> str:
        """Name of the job in progress lines."""
        return f"seed {self.seed}"

    @property
    def results(self) -> Path:
        """File of what the other stages need of this seed: its tuning, and the list of its final runs."""
        return self.root / "seeds" / f"seed-{self.seed}.json"


def run_seed(job: SeedJob, on_progress: Callable[[RunProgress], None], stop: StopSignal) -> JobResult:
    """Tune all arms on the hold-out of a seed, and make their final runs; finished ones are not repeated.

    Args:
        job: The seed.
        on_progress: Called after every epoch.
        stop: When set, the runs in progress end as KILLED.
    """
    try:
        return _SeedRuns(job, on_progress, stop).make()
    except Killed as error:
        return JobResult(job.results, "KILLED", error=error.reason)


@dataclass(frozen=True)
class SeedTuning:
    """The settings that a seed's tuning chose, and the hold-out runs that it left.

    Attributes:
        result: Contents for tuning.json.
        configs: Arms with the settings that won.
        scores: Score of each arm's best trial on the hold-out.
        holdouts: Folder of each arm's hold-out run, for arms that did not diverge there.
    """

    result: dict[str, Any]
    configs: dict[str, RunConfig]
    scores: dict[str, float]
    holdouts: dict[str, Path]


class _SeedRuns:
    def __init__(self, job: SeedJob, on_progress: Callable[[RunProgress], None], stop: StopSignal) -> None:
        self.job = job
        self.on_progress = on_progress
        self.stop = stop
        self.arms = job.plan.arms
        baseline = self.arms[job.plan.baseline]
        device = torch.device(job.device)
        self.data: FeatureData = open_feature_data(baseline, job.features, seed=job.seed, device=device)

    def make(self) -> JobResult:
        """Make the runs, and write the results of the seed."""
        tuned = self._earlier_tuning() or self._tune()
        rows = self._finals(tuned)
        self._write(tuned, rows)
        return JobResult(self.job.results, "FINISHED")

    def _tune(self) -> SeedTuning:
        """Tune every arm on the seed's hold-out, and make the hold-out runs of the settings that won.

        Trials have initial weights, order and frames of their own. A choice among arms by their scores is then not a
        choice of lucky initial weights or frames, which would flatter the final runs of the arm that is chosen.
        """
        seed = self.job.seed + TRIAL_SEEDS
        trial_data = replace(self.data, seed=seed)
        training = HeadTraining(trial_data, self.data.subsets.fit, True, self.stop, self._progress("tuning"))

        def run_trials(settings: Sequence[tuple[str, RunConfig]]) -> list[Score]:
            runs = [training.new_run(self._job("tuning", arm, config, seed)) for arm, config in settings]
            training.train(runs)
            return [self._score(run) for run in runs]

        result = tune(self.arms, self.job.plan.protocol, run_trials)
        tuned = SeedTuning(result.to_json(), result.configs, best_scores(result), self._holdouts(result.configs))
        self._write(tuned, [])
        return tuned

    def _holdouts(self, configs: Mapping[str, RunConfig]) -> dict[str, Path]:
        """Make the hold-out runs, which give temperature and best epoch, and return the folders of those that ended."""
        training = HeadTraining(self.data, self.data.subsets.fit, True, self.stop, self._progress("hold-out runs"))
        jobs = {arm: self._job("holdout", arm, config, self.job.seed) for arm, config in configs.items()}
        facts = self.data.facts(self.data.subsets.fit)
        folders = {arm: path for arm, job in jobs.items() if (path := self._recorded(job, facts)) is not None}
        runs = {arm: training.new_run(job) for arm, job in jobs.items() if arm not in folders}
        training.train(list(runs.values()))
        return folders | {arm: record_holdout(run, self.data) for arm, run in runs.items() if run.error is None}

    def _finals(self, tuned: SeedTuning) -> list[dict[str, Any]]:
        """Train the chosen settings on all training samples, evaluate on the test set, and return the list of runs."""
        indices, protocol = self.data.subsets.train, self.job.plan.protocol
        training = HeadTraining(self.data, indices, False, self.stop, self._progress("final runs"))
        rows, runs = [], []
        for arm, config in tuned.configs.items():
            holdout = tuned.holdouts.get(arm)
            for draw in range(protocol.draws if config.has_draws else 1):
                job = replace(self._job("final", arm, config, self.job.seed, draw), holdout_run=holdout)
                identity = identify(job, self.data.facts(indices), self.data.features.backbone)
                row = {"arm": arm, "seed": job.seed, "draw": draw, "run_id": identity.run_id}
                rows.append(row | {"status": "FINISHED", "error": None})
                if earlier_result(job.root / "runs" / identity.run_id, job) is None:
                    runs.append((training.new_run(job, HoldoutResult.read(holdout).best_epoch), rows[-1]))
        training.train([run for run, _ in runs])
        for run, row in runs:
            if self.stop.requested:
                raise Killed("stopped before all final runs were evaluated")
            result = record_final(run, self.data, indices)
            row |= {"status": result.status, "error": result.error}
        return rows

    def _score(self, run: HeadRun) -> Score:
        """Return the value on the hold-out of the metric that decides, after the last epoch; None if it diverged."""
        if run.error is not None:
            return None
        last = run.curves[max(run.curves)]
        decides = self.job.plan.protocol.primary.replace("test/", "holdout/", 1)
        return last.get(decides, last[HOLDOUT_SCORE])

    def _recorded(self, job: Job, facts: DataFacts) -> Path | None:
        """Return the folder of a run that is recorded already, or None."""
        path = job.root / "runs" / identify(job, facts, self.data.features.backbone).run_id
        return path if earlier_result(path, job) is not None else None

    def _earlier_tuning(self) -> SeedTuning | None:
        """Return the tuning of an earlier start with the same arms, rules and data; None if there is none."""
        stored, _ = read_json_or_problem(self.job.results)
        if stored.get("key") != self._key():
            return None
        configs = {arm: decode(value, name=f"seeds/{arm}") for arm, value in stored["configs"].items()}
        configs = {arm: replace(config, tuned=self.arms[arm].tuned) for arm, config in configs.items()}
        holdouts = {arm: self.job.root / "runs" / name for arm, name in stored["holdouts"].items()}
        if not all((path / "final.json").exists() for path in holdouts.values()):
            return None
        return SeedTuning(stored["tuning"], configs, stored["scores"], holdouts)

    def _write(self, tuned: SeedTuning, rows: Sequence[dict[str, Any]]) -> None:
        stored = {
            "key": self._key(),
            "tuning": tuned.result,
            "configs": {arm: encode(config) for arm, config in tuned.configs.items()},
            "scores": tuned.scores,
            "holdouts": {arm: path.name for arm, path in tuned.holdouts.items()},
            "runs": list(rows),
        }
        self.job.results.parent.mkdir(exist_ok=True)
        write_json(self.job.results, stored)

    def _key(self) -> str:
        """Return a hash of what decides the tuning: arms, rules, data and the version."""
        plan = self.job.plan
        decisive = [plan.suite, self.data.features.fingerprint, self.job.seed, __version__]
        return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:16]

    def _job(self, kind: JobKind, arm: str, config: RunConfig, seed: int, draw: int = 0) -> Job:
        plan = self.job.plan
        return Job(
            kind=kind,
            arm=arm,
            config=config,
            seed=seed,
            draw=draw,
            root=self.job.root,
            experiment=plan.name,
            suite=plan.suite,
            protocol=plan.protocol,
            device=self.job.device,
        )

    def _progress(self, stage: str) -> OnEpoch:
        label = f"{self.job.label}, {stage}"
        return lambda done, total: self.on_progress(RunProgress(label, done, total))


def best_scores(result: TuningResult) -> dict[str, float]:
    """Return the score of each arm's best trial; an arm without a score is left out."""
    scores: dict[str, float] = {}
    for trial in result.trials:
        if trial.score is not None:
            scores[trial.arm] = max(scores.get(trial.arm, trial.score), trial.score)
    return scores
