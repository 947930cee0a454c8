"""The runs of one seed on fixed features: which are still to be made, and the results so far."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nc_tools import __version__
from nc_tools.experiment.build import DataFacts
from nc_tools.experiment.deserialize import decode
from nc_tools.experiment.job import Job, JobKind
from nc_tools.experiment.on_features.feature_data import open_feature_data
from nc_tools.experiment.on_features.head_samples import TRIAL_SEEDS, SeedSamples
from nc_tools.experiment.on_features.trial_scores import TrialScores
from nc_tools.experiment.plan import Plan
from nc_tools.experiment.run_config import RunConfig
from nc_tools.experiment.run_identity import config_hash, identify
from nc_tools.experiment.run_job import earlier_result
from nc_tools.experiment.serialize import encode
from nc_tools.experiment.tuning import TuningResult, tuning_rounds
from nc_tools.run_records.json_files import read_json_or_problem, write_json

Settings = list[tuple[str, RunConfig]]


def seed_results(root: Path, seed: int) -> Path:
    """Return the path of a seed's results, which other stages read: its tuning, and the list of its final runs."""
    return root / "seeds" / f"seed-{seed}.json"


class OneSeed:
    """The runs of one seed.

    Tuning trials have initial weights, orders and frames of their own. So an arm that is chosen by its scores is not
    chosen for lucky initial weights or frames of its final runs, whose results would then be too good.

    Args:
        plan: The arms and their common rules.
        seed: Seed of hold-out, initial weights, order and frames.
        features: The file of the feature sets.
        root: The output folder.
        device: Where heads train.
        ended_trials: The scores of the tuning trials that have ended, those of earlier starts included.

    Attributes:
        configs: Arms with the settings that tuning chose.
        holdouts: Folder of each arm's hold-out run, for arms that did not diverge there.
        rows: The list of final runs, as it stands in experiment.json.
    """

    def __init__(
        self, plan: Plan, seed: int, features: Path, root: Path, device: str, ended_trials: TrialScores
    ) -> None:
        self.plan = plan
        self.seed = seed
        self.root = root
        self.device = device
        by_data = {
            config.data: SeedSamples(open_feature_data(config, features, seed=seed, device=torch.device(device)))
            for config in plan.arms.values()
        }
        self._samples = {arm: by_data[config.data] for arm, config in plan.arms.items()}
        self._backbone = self._samples[plan.baseline].finals.data.features.backbone  # that of all arms
        self.configs: dict[str, RunConfig] = {}
        self.holdouts: dict[str, Path] = {}
        self.rows: list[dict[str, Any]] = []
        self._tuning: dict[str, Any] = {}
        self._scores: dict[str, float] = {}
        self._rounds = tuning_rounds(plan.arms, plan.protocol)
        self._ended_trials = ended_trials
        self._round: list[str] | None = None  # the hashes of the trials of the round

    def next_settings(self) -> Settings | None:
        """Return the settings to try in the next round of tuning; None once the settings of all arms are chosen.

        All trials of the round before must have ended.
        """
        if self._tuning:
            return None
        try:
            if self._round is None:
                return next(self._rounds)
            return self._rounds.send([self._ended_trials[trial] for trial in self._round])
        except StopIteration as end:
            result: TuningResult = end.value
            self._tuning, self.configs, self._scores = result.to_json(), result.configs, best_scores(result)
            return None

    def new_trials(self, settings: Settings) -> Iterator[Job]:
        """Yield a run for every setting whose trial has not ended at an earlier start."""
        self._round, seed = [], self.seed + TRIAL_SEEDS
        for arm, config in settings:
            job = self._job("tuning", arm, config, seed)
            trial = config_hash(job, self._samples[arm].trials.facts, self._backbone)
            self._round.append(trial)
            if trial not in self._ended_trials:
                yield job

    def new_holdouts(self) -> Iterator[Job]:
        """Yield a hold-out run for every arm that has no recorded one."""
        for arm, config in self.configs.items():
            job = self._job("holdout", arm, config, self.seed)
            if self._recorded(job, self._samples[arm].holdouts.facts) is None:
                yield job

    def take_holdouts(self) -> None:
        """Take the recorded hold-out runs, for temperature and best epoch of the final ones."""
        for arm, config in self.configs.items():
            job = self._job("holdout", arm, config, self.seed)
            if (path := self._recorded(job, self._samples[arm].holdouts.facts)) is not None:
                self.holdouts[arm] = path

    def new_finals(self) -> Iterator[tuple[Job, dict[str, Any]]]:
        """List the final runs, and yield each one that is not finished with its line."""
        self.rows = []
        for arm, config in self.configs.items():
            holdout, samples = self.holdouts.get(arm), self._samples[arm].finals
            for draw in range(self.plan.protocol.draws if config.has_draws else 1):
                job = replace(self._job("final", arm, config, self.seed, draw), holdout_run=holdout)
                run_id = self._identity(job, samples.facts)
                row = {"arm": arm, "seed": self.seed, "draw": draw, "run_id": run_id}
                self.rows.append(row | {"status": "FINISHED", "error": None})
                if self._recorded(job, samples.facts) is None:
                    yield job, self.rows[-1]

    def read_tuning(self) -> bool:
        """Take over the tuning of an earlier start with the same arms, rules and data; return False without one."""
        stored, _ = read_json_or_problem(seed_results(self.root, self.seed))
        holdouts = {arm: self.root / "runs" / name for arm, name in (stored.get("holdouts") or {}).items()}
        if stored.get("key") != self._key() or not all((path / "final.json").exists() for path in holdouts.values()):
            return False
        configs = {arm: decode(value, name=f"configs/{arm}") for arm, value in stored["configs"].items()}
        self.configs = {arm: replace(config, tuned=self.plan.arms[arm].tuned) for arm, config in configs.items()}
        self._tuning, self._scores, self.holdouts = stored["tuning"], stored["scores"], holdouts
        return True

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write the results of the seed so far."""
        stored = {
            "key": self._key(),
            "tuning": self._tuning,
            "configs": {arm: encode(config) for arm, config in self.configs.items()},
            "scores": self._scores,
            "holdouts": {arm: path.name for arm, path in self.holdouts.items()},
            "runs": list(rows),
        }
        path = seed_results(self.root, self.seed)
        path.parent.mkdir(exist_ok=True)
        write_json(path, stored)

    def _recorded(self, job: Job, facts: DataFacts) -> Path | None:
        """Return the folder of a run that is finished already, or None."""
        path = job.root / "runs" / self._identity(job, facts)
        return path if earlier_result(path, job) is not None else None

    def _identity(self, job: Job, facts: DataFacts) -> str:
        return identify(job, facts, self._backbone).run_id

    def _key(self) -> str:
        """Return a hash of what decides the tuning: arms, rules, data and the version."""
        fingerprints = [samples.finals.facts.fingerprint for samples in self._samples.values()]
        decisive = [self.plan.suite, fingerprints, self.seed, __version__]
        return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:16]

    def _job(self, kind: JobKind, arm: str, config: RunConfig, seed: int, draw: int = 0) -> Job:
        plan = self.plan
        return Job(
            kind=kind, arm=arm, config=config, seed=seed, draw=draw, root=self.root, experiment=plan.name,
            suite=plan.suite, protocol=plan.protocol, device=self.device,
        )  # fmt: skip


def best_scores(result: TuningResult) -> dict[str, float]:
    """Return the score of each arm's best trial; an arm without a score is left out."""
    scores: dict[str, float] = {}
    for trial in result.trials:
        if trial.score is not None:
            scores[trial.arm] = max(scores.get(trial.arm, trial.score), trial.score)
    return scores
