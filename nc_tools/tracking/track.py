"""Record the runs of your own training loop, for comparisons and for MLflow."""

import atexit
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nc_tools._support.signals import killed_on_sigterm
from nc_tools.run_records.identity import RunIdentity, hash_config
from nc_tools.run_records.partial_files import remove_partial_files
from nc_tools.run_records.writer import RunRecord
from nc_tools.tracking.mlflow_sync import MlflowSync
from nc_tools.tracking.no_mlflow import NO_MLFLOW
from nc_tools.tracking.tracked_data import TrackedData

_senders: dict[tuple[Path, str], MlflowSync] = {}


@contextmanager
def track(
    root: Path | str,
    arm: str,
    seed: int,
    *,
    config: Mapping[str, Any] | None = None,
    class_counts: Sequence[int] | None = None,
    data: TrackedData | None = None,
    draw: int = 0,
    model: Any = None,
    name: str = "nc_tools",
    tracking_uri: str | None = None,
) -> Iterator[RunRecord]:
    """Record a run of your own training loop, for a comparison with other runs and for MLflow.

    The record on disk is complete when the block ends: an exception makes the run FAILED, Ctrl-C and SIGTERM make it
    KILLED. A second process copies all runs of this program to MLflow while they go on, and finishes when the program
    ends.

    Args:
        root: Output folder, the same for all runs that are compared.
        arm: Name of the method.
        seed: Seed of the run; arms are paired by seed.
        config: All settings. Two runs with equal arm, seed, draw and config are the same run.
        class_counts: Training images per class (K,), for accuracy by class frequency.
        data: The data that it is trained on; ``TrackedData.of("photos", images, labels)`` computes a digest from
            tensors, arrays or files. MLflow shows it as the run's data set, and a comparison pairs only runs whose
            digests are equal. None for unknown.
        draw: Number of the run, if there are several of this arm and seed, with other frames of the head.
        model: The model that is trained; its heads say which random frame they have. Give each seed a frame of its own,
            as ``ETFHead(..., frame_seed=seed)`` does: the comparison warns if all seeds share one, since its interval
            then holds for that frame only. None for unknown.
        name: Name of the experiment: the question that the runs answer.
        tracking_uri: MLflow store; see ``MlflowSync``. With "none" the run stays on disk only.

    Yields:
        The record, with ``log(step, values)`` and ``finish(final)``.

    Raises:
        FileExistsError: If this run is already finished, or a running process is writing it.
        TypeError: If ``data`` is no TrackedData, or ``model`` no torch module.
        ValueError: If ``tracking_uri`` cannot be used; see ``MlflowSync``.

    Example::

        with track("out", arm="mine", seed=0, config={"lr": 0.1}) as run:
            for epoch in range(10):
                run.log(epoch, {"train/loss": train_one_epoch()})
            run.finish({"test/gen/accuracy": test()})
    """
    facts: dict[str, Any] = {}
    if class_counts is not None:
        counts = [int(count) for count in class_counts]
        facts = {"num_classes": len(counts), "class_counts": counts}
    if data is not None:
        if not isinstance(data, TrackedData):
            raise TypeError(f"data must be a TrackedData, got {type(data).__name__}: give TrackedData.of(name, data)")
        facts |= {"name": data.name, "fingerprint": data.digest}
    identity = RunIdentity(
        kind="loop",
        arm=arm,
        seed=seed,
        draw=draw,
        frame_seed="unknown" if model is None else _frame_seed(model),
        experiment=name,
        suite=hash_config([name, str(Path(root).resolve())])[:12],
        config=dict(config or {}),
        data=facts,
    )
    sync = None if tracking_uri == NO_MLFLOW else MlflowSync(root, tracking_uri)
    with killed_on_sigterm(), RunRecord.create(Path(root).resolve(), identity) as record:
        if sync is not None:
            _ensure_sender(sync)
        yield record


def _frame_seed(model: Any) -> int | None:
    """Return the seed of the random frames in a model's heads; None if it has none.

    Raises:
        TypeError: If it is not a torch module.
    """
    if not callable(getattr(model, "modules", None)):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}: give the model that is trained")
    seeds = {
        int(module.frame_seed) for module in model.modules() if isinstance(getattr(module, "frame_seed", None), int)
    }
    if len(seeds) > 1:
        return int(hash_config(sorted(seeds))[:13], 16)  # 52 bits: one number for this set of frames
    return next(iter(seeds), None)


def _ensure_sender(sync: MlflowSync) -> None:
    """Start the process that uploads the runs of ``sync`` to MLflow, unless it is already running.

    Files that killed processes left half-written are removed first.
    """
    place = (sync.root, sync.store.uri)
    if place not in _senders:
        if not _senders:
            atexit.register(close)
        remove_partial_files(sync.root)
        _senders[place] = sync
        sync.start()


def close() -> None:
    """Upload the rest of all tracked runs to MLflow; called automatically when the program ends."""
    while _senders:
        _senders.popitem()[1].finish()
