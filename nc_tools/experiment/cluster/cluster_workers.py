"""Make the runs of a comparison as tasks of a Ray cluster, and gather their records on this machine."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nc_tools._support.mailbox import Mailbox
from nc_tools._support.signals import StopSignal
from nc_tools.experiment.cluster.node_task import NodeResult, NodeTask, Origin, make_on_node
from nc_tools.experiment.cluster.ray_connection import Cluster
from nc_tools.experiment.job import JobResult, Note, RunProgress
from nc_tools.experiment.run_job import earlier_result, open_job
from nc_tools.experiment.run_pack import PackJob, RunPackResult, error_result, results_of
from nc_tools.run_records.run_files import read_run_files, write_run_files

TASK_RETRIES = 3
"""How often a pack is repeated if its node or process is lost."""


@dataclass
class _Sent:
    """A pack that was handed to the cluster.

    Attributes:
        index: Its position among the packs of the stage.
        pack: All its runs.
        earlier: Position in the pack -> result of a run that was not sent, because it was made before.
        run_ids: The folders of the runs that were sent.
    """

    index: int
    pack: PackJob
    earlier: dict[int, JobResult] = field(default_factory=dict)
    run_ids: list[str] = field(default_factory=list)

    def merged(self, answer: NodeResult) -> RunPackResult:
        """Return the result of all runs of the pack, with their folders on this machine."""
        left = tuple(job for position, job in enumerate(self.pack.jobs) if position not in self.earlier)
        made = iter(results_of(PackJob(left), answer.result) if left else ())
        of_runs = [
            self.earlier[position] if position in self.earlier else _here(next(made), job.root)
            for position, job in enumerate(self.pack.jobs)
        ]
        return replace(answer.result, of_runs=tuple(of_runs))


class _Stage:
    """The packs of one stage: those that wait, those at the cluster, and the results."""

    def __init__(self, jobs: Sequence[PackJob], on_result: Callable[[PackJob, JobResult], None]) -> None:
        self.jobs = jobs
        self.results: list[JobResult | None] = [None] * len(jobs)
        self.waiting = deque(range(len(jobs)))
        self.sent: dict[Any, _Sent] = {}  # by Ray's reference to the answer
        self.problem: str | None = None
        self.full_disk: str | None = None
        self._on_result = on_result

    @property
    def must_end(self) -> bool:
        """Whether a problem was found that every further run would have too."""
        return self.problem is not None or self.full_disk is not None

    def end(self, sent: _Sent, answer: NodeResult | None) -> None:
        """Write the runs that a task returned, and note how they ended; a cancelled task has no result."""
        if answer is None:
            return
        for name, files in answer.files.items():
            write_run_files(sent.pack.jobs[0].root / "runs" / name, files)
        result = sent.merged(answer)
        self.results[sent.index] = result
        self.problem = self.problem or answer.problem
        self.full_disk = self.full_disk or (result.error if result.disk_full else None)
        if answer.problem is None:
            self._on_result(sent.pack, result)


def _here(result: JobResult, root: Path) -> JobResult:
    """Return the result of a run with its folder on this machine."""
    return result if result.run is None else replace(result, run=root / "runs" / result.run.name)


def _answer(reference: Any) -> NodeResult | None:
    """Return what a task has returned, or None if it was cancelled; the runs of a lost task are KILLED."""
    import ray

    try:
        answer: NodeResult = ray.get(reference)
    except ray.exceptions.TaskCancelledError:
        return None
    except ray.exceptions.RayTaskError as error:  # the node cannot read the task's code or settings
        reason = " ".join(str(error.cause or error).split())
        problem = (
            f"a node cannot make runs: {reason} (install the same nc_tools, and modules of your own, on every node)"
        )
        return NodeResult(RunPackResult(None, "FAILED", error=problem), problem=problem)
    except ray.exceptions.RayError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return NodeResult(RunPackResult(None, "KILLED", error=f"lost {TASK_RETRIES + 1} times: {reason}"))
    return answer


class ClusterWorkers:
    """Makes packs of runs on the nodes of a cluster that this process is connected to; used as a context manager.

    Each pack is one task: it gets what it must read, such as its hold-out runs, and returns the files of its runs,
    which are written here when it ends. So a pack whose node is lost leaves nothing behind, and Ray makes it again
    elsewhere. Runs that were finished before are not sent.

    Args:
        cluster: The connection.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._origin = Origin.here()

    def __enter__(self) -> ClusterWorkers:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._mailbox = ray.remote(Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()
        self._make = ray.remote(make_on_node).options(
            num_cpus=self._cluster.cpus, num_gpus=self._cluster.gpus, max_retries=TASK_RETRIES
        )
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        ray.kill(self._mailbox)

    def run(
        self,
        jobs: Sequence[PackJob],
        *,
        stop: StopSignal,
        on_progress: Callable[[RunProgress | Note], None],
        on_result: Callable[[PackJob, JobResult], None],
    ) -> list[JobResult]:
        """Make the runs of every pack, and return the results in the order of the packs.

        When ``stop`` is set, runs in progress end as KILLED with a checkpoint, which is gathered too, and runs that
        have not begun are reported as KILLED.

        Raises:
            ValueError: If a node cannot make these runs, such as one without the data, after all tasks have ended.
            OSError: If a disk was full, likewise.
            ConnectionError: If the cluster is lost.
        """
        import ray

        stage = _Stage(jobs, on_result)
        try:
            self._run(stage, stop, on_progress)
        except (ray.exceptions.RayActorError, ConnectionError) as error:
            raise ConnectionError(
                "the Ray cluster was lost: finished runs are kept; when it is back, give the same command with --resume"
            ) from error
        if stage.problem is not None:
            raise ValueError(stage.problem)
        if stage.full_disk is not None:
            raise OSError(errno.ENOSPC, stage.full_disk)
        return [r if r is not None else JobResult(None, "KILLED", error="not begun") for r in stage.results]

    def _run(self, stage: _Stage, stop: StopSignal, on_progress: Callable[[RunProgress | Note], None]) -> None:
        import ray

        stopping = False
        while stage.waiting or stage.sent:
            if (stop.requested or stage.must_end) and not stopping:
                stopping = True
                stage.waiting.clear()
                self._stop(stage)
            # One waiting task for each running one, so that a processor that becomes free has work at once.
            while stage.waiting and len(stage.sent) < 2 * self._cluster.tasks:
                self._send(stage)
            ready, _ = ray.wait(list(stage.sent), timeout=0.2) if stage.sent else ([], [])
            for message in ray.get(self._mailbox.collect.remote()):
                on_progress(Note(message) if isinstance(message, str) else RunProgress(*message))
            for reference in ready:
                stage.end(stage.sent.pop(reference), _answer(reference))

    def _stop(self, stage: _Stage) -> None:
        """Let tasks that have begun stop at their next step, and cancel the others."""
        import ray

        begun = ray.get(self._mailbox.stop.remote())
        for reference, sent in stage.sent.items():
            if sent.run_ids[0] not in begun:
                ray.cancel(reference)

    def _send(self, stage: _Stage) -> None:
        """Send the next pack, without the runs that were made before."""
        index = stage.waiting.popleft()
        sent = _Sent(index, stage.jobs[index])
        files: dict[str, dict[str, bytes]] = {}
        for position, job in enumerate(sent.pack.jobs):
            try:
                run_id = open_job(job).identity.run_id
            except Exception as error:  # noqa: BLE001  one run's error must not end the others
                sent.earlier[position] = error_result(error)
                continue
            path = job.root / "runs" / run_id
            if (earlier := earlier_result(path, job)) is not None:
                sent.earlier[position] = earlier
                continue
            sent.run_ids.append(run_id)
            read = [path if job.resume and path.exists() else None, job.holdout_run]
            files.update({folder.name: read_run_files(folder) for folder in read if folder is not None})
        if not sent.run_ids:
            stage.end(sent, NodeResult(RunPackResult(None, "FINISHED")))
            return
        left = tuple(job for position, job in enumerate(sent.pack.jobs) if position not in sent.earlier)
        task = NodeTask(
            pack=PackJob(left), run_ids=tuple(sent.run_ids), files=files, threads=self._cluster.cpus,
            origin=self._origin,
        )  # fmt: skip
        stage.sent[self._make.remote(task, self._mailbox)] = sent
