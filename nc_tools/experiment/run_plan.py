"""Make the runs of a comparison: tuning trials, runs evaluated on held-out training images, and final runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from nc_tools._support.signals import Killed, StopSignal
from nc_tools.experiment.build import DataFacts
from nc_tools.experiment.check_plan import check_plan
from nc_tools.experiment.cluster.cluster_workers import ClusterWorkers
from nc_tools.experiment.divided_runs import DividedRuns, check_divisible
from nc_tools.experiment.job import Job, JobKind, JobResult
from nc_tools.experiment.packing import Packing, make_packs, packing_of
from nc_tools.experiment.plan import Plan, RunOptions
from nc_tools.experiment.progress_display import ProgressDisplay
from nc_tools.experiment.run_config import RunConfig
from nc_tools.experiment.run_identity import identify
from nc_tools.experiment.run_pack import PackJob, results_of
from nc_tools.experiment.serialize import encode
from nc_tools.experiment.tuning import Score, TuningResult, mean_over_seeds, tune
from nc_tools.experiment.workers import Workers
from nc_tools.run_records import mark_killed
from nc_tools.run_records.json_files import read_json_or_problem, write_json
from nc_tools.run_records.partial_files import remove_partial_files


def run_plan(plan: Plan, options: RunOptions, console: Console) -> None:
    """Make every run of a comparison that is not finished yet; the results are in the runs' folders.

    Args:
        plan: What to compare.
        options: Where and how.
        console: Where progress is shown.

    Raises:
        ValueError: If arms differ in their data (training labels may differ), an arm cannot be built, no trial of the
            baseline gave a score, or another comparison is writing to the folder.
        Killed: After Ctrl-C or SIGTERM, once every run in progress has written its checkpoint.
    """
    options.out.mkdir(parents=True, exist_ok=True)
    with locked(options.out), StopSignal() as stop, ProgressDisplay(console) as display:
        mark_killed(options.out)
        remove_partial_files(options.out)
        if options.processes is not None:
            check_divisible(plan.arms, options.processes.size)
        facts = check_plan(plan, options, display, stop)
        write_experiment(plan, options.out, rows_before(plan, options.out))
        packing = packing_of(plan, options, facts)
        for line in packing.notes:
            display.note(line)
        with make_workers(options) as workers:
            _Stages(plan, options, facts, packing, workers, display, stop).run()


def make_workers(options: RunOptions) -> Workers | ClusterWorkers | DividedRuns:
    """Return what makes the runs: processes of this machine, the cluster, or the processes of torchrun together."""
    if options.processes is not None:
        return DividedRuns(options.processes, options.threads)
    return Workers(options.workers, options.threads) if options.cluster is None else ClusterWorkers(options.cluster)


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Lock the output folder for the ``with`` block; a process that is killed releases the lock too.

    Raises:
        ValueError: If another process has locked it.
    """
    lock = FileLock(out / ".comparison.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(
            f"cannot write to {out}: another comparison is writing to it; wait until it ends, or give another --out"
        ) from error
    try:
        yield
    finally:
        lock.release()


class _Stages:
    """The stages of a comparison (tuning, hold-out runs, final runs), made by the same workers."""

    def __init__(
        self,
        plan: Plan,
        options: RunOptions,
        facts: Mapping[str, DataFacts],
        packing: Packing,
        workers: Workers | ClusterWorkers | DividedRuns,
        display: ProgressDisplay,
        stop: StopSignal,
    ) -> None:
        self.plan = plan
        self.options = options
        self.facts = facts
        self.packing = packing
        self.workers = workers
        self.display = display
        self.stop = stop
        self.lost_trials: list[str] = []
        self.rounds = 0

    def run(self) -> None:
        """Make the tuning trials, then the hold-out runs, then the final runs."""
        protocol = self.plan.protocol
        tuned = self._tune()
        finals = self._jobs("final", tuned, protocol.draws)
        holdouts = self._jobs("holdout", tuned, min(protocol.holdout_draws, protocol.draws))
        results = self._make("hold-out runs", holdouts)
        by_run = {(job.arm, job.seed, job.draw): result for job, result in zip(holdouts, results, strict=True)}
        self._make_finals(finals, by_run)

    def _tune(self) -> TuningResult:
        tuned = tune(self.plan.arms, self.plan.protocol, self._run_trials)
        tuned.notes += self.lost_trials
        write_json(self.options.out / "tuning.json", tuned.to_json())
        for note in tuned.notes:
            self.display.note(f"tuning: {note}")
        if self.plan.baseline not in tuned.configs:
            reason = (
                self.lost_trials[0]
                if self.lost_trials
                else "the loss diverged in all of them; try lower rates, such as --set protocol.rates=0.0001,0.001"
            )
            raise ValueError(
                f"no tuning trial of the baseline {self.plan.baseline!r} gave a score at the learning rates "
                f"{tuned.grid}: {reason}"
            )
        return tuned

    def _run_trials(self, settings: Sequence[tuple[str, RunConfig]]) -> list[Score]:
        seeds = self.plan.protocol.tuning_seeds
        jobs = [self._job("tuning", arm, config, seed, 0) for arm, config in settings for seed in seeds]
        self.rounds += 1
        results = self._make(f"tuning, round {self.rounds}", jobs)
        # A trial that ended in an error has no score, as a diverged one: the report must say that the arm lost it.
        self.lost_trials += [
            f"{job.arm}: a trial at learning rate {job.config.optim.lr} failed and has no score ({result.error})"
            for job, result in zip(jobs, results, strict=True)
            if result.unexpected
        ]
        return mean_over_seeds([r.score if r.status == "FINISHED" else None for r in results], len(seeds))

    def _make_finals(self, jobs: Sequence[Job], holdouts: Mapping[tuple[str, int, int], JobResult]) -> None:
        """Make the final runs.

        If the hold-out run of a final run diverged, the final run is made without it. If the hold-out run did not
        finish for another reason, the final run is only listed, and made at the next start.
        """
        rows: list[dict[str, Any]] = []
        ready: list[tuple[Job, dict[str, Any]]] = []
        for job in jobs:
            draw = max(d for arm, seed, d in holdouts if (arm, seed) == (job.arm, job.seed) and d <= job.draw)
            holdout = holdouts[job.arm, job.seed, draw]
            row = self._row(job)
            rows.append(row)
            if holdout.status == "FINISHED" or holdout.diverged:
                run = holdout.run if holdout.status == "FINISHED" else None
                ready.append((replace(job, holdout_run=run), row))
            else:
                row |= {"status": "KILLED", "error": f"its hold-out run did not finish: {holdout.error}"}
        write_experiment(self.plan, self.options.out, rows)
        results = self._make("final runs", [job for job, _ in ready])
        for (_, row), result in zip(ready, results, strict=True):
            row |= {"status": result.status, "error": result.error}
        write_experiment(self.plan, self.options.out, rows)

    def _row(self, job: Job) -> dict[str, Any]:
        run_id = identify(job, self.facts[job.arm]).run_id
        planned = {"status": "PLANNED", "error": None}
        return {"arm": job.arm, "seed": job.seed, "draw": job.draw, "run_id": run_id, **planned}

    def _make(self, stage: str, jobs: Sequence[Job]) -> list[JobResult]:
        self.display.stage(stage, len(jobs))
        packs = make_packs(jobs, self.packing, self.options.workers)

        def show(pack: PackJob, result: JobResult) -> None:
            for job, own in zip(pack.jobs, results_of(pack, result), strict=True):
                self.display.result(job, own)

        ended = self.workers.run(packs, stop=self.stop, on_progress=self.display.progress, on_result=show)
        if self.stop.requested:
            raise Killed("stopped")
        results = {
            id(job): own
            for pack, result in zip(packs, ended, strict=True)
            for job, own in zip(pack.jobs, results_of(pack, result), strict=True)
        }
        return [results[id(job)] for job in jobs]

    def _jobs(self, kind: JobKind, tuned: TuningResult, draws: int) -> list[Job]:
        """Return the jobs of a stage ordered by seed, so that an interrupted comparison has some complete seeds."""
        return [
            self._job(kind, arm, config, seed, draw)
            for seed in self.plan.protocol.seeds
            for arm, config in tuned.configs.items()
            for draw in range(draws if config.has_draws else 1)
        ]

    def _job(self, kind: JobKind, arm: str, config: RunConfig, seed: int, draw: int) -> Job:
        return Job(
            kind=kind,
            arm=arm,
            config=config,
            seed=seed,
            draw=draw,
            root=self.options.out.resolve(),
            experiment=self.plan.name,
            suite=self.plan.suite,
            protocol=self.plan.protocol,
            device=self.options.device,
            resume=self.options.resume,
        )


def rows_before(plan: Plan, out: Path) -> list[Mapping[str, Any]]:
    """Return the list of runs of an earlier start of the same comparison, which stays until there is a new one."""
    before, _ = read_json_or_problem(out / "experiment.json")
    rows = before.get("runs") if before.get("suite") == plan.suite else None
    return rows if isinstance(rows, list) else []


def _split(plan: Plan) -> dict[str, float]:
    """Return test images per training image, as ``test_per_train``, if every seed splits them anew; else nothing."""
    share = plan.arms[plan.baseline].data.resplit
    return {} if share is None else {"test_per_train": share / (1 - share)}


def write_experiment(plan: Plan, out: Path, runs: Sequence[Mapping[str, Any]]) -> None:
    """Write experiment.json: the plan of the comparison and the list of its runs."""
    experiment = {
        "schema": 1,
        "name": plan.name,
        "question": plan.question,
        "baseline": plan.baseline,
        "arms": list(plan.arms),
        "primary": plan.protocol.primary,
        "suite": plan.suite,
        "smoke": plan.smoke,
        "protocol": {k: v for k, v in encode(plan.protocol).items() if k != "dataclass"} | _split(plan),
        "runs": list(runs),
    }
    write_json(out / "experiment.json", experiment)
