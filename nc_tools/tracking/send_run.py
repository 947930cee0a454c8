"""Upload one run to MLflow: create it there once, and update it in steps that can each be repeated."""

from pathlib import Path
from typing import TYPE_CHECKING

from nc_tools.run_records.metrics_file import read_valid_metrics
from nc_tools.run_records.reader import StoredRun
from nc_tools.tracking import mlflow_fields, sent_state
from nc_tools.tracking.experiments import Experiments
from nc_tools.tracking.sent_state import Sent

if TYPE_CHECKING:
    from mlflow import MlflowClient

FILES = (
    *("run.json", "final.json", "per_class.json", "suspects.csv"),
    *("predictions.safetensors", "weights.safetensors"),
)


def is_there(run: StoredRun, key: str) -> bool:
    """Return True if a run has ended and the MLflow store ``key`` has all of it."""
    state = sent_state.load_sent(run.path, key)
    return (
        state.run_id is not None
        and state.ended == [run.status, run.ended_ms]
        and state.resumes == len(run.resumed_bytes)
        and all(state.artifacts.get(name) == sent_state.signature(path) for name, path in artifacts(run))
    )


def artifacts(run: StoredRun) -> list[tuple[str, Path]]:
    """Return the files of an ended run that are uploaded, as (path relative to the run's folder, path)."""
    figures = sorted(path for path in (run.path / "figures").glob("[!.]*") if path.is_file())
    return [(name, run.path / name) for name in FILES if (run.path / name).exists()] + [
        (f"figures/{path.name}", path) for path in figures
    ]


def send(run: StoredRun, experiment: str, experiments: Experiments) -> bool:
    """Create or update one run in MLflow; return True if anything was uploaded.

    What was sent is saved after each step. If the process ends between a step and saving, the step is repeated, which
    changes nothing: MLflow stores equal parameters, points and files once, and a run is looked up by its record before
    it is created.
    """
    key, client = experiments.store.key, experiments.client
    state = _current(run, experiments)
    if state is None:
        return False
    created = state.run_id is None
    if state.run_id is None:
        state.experiment_id = experiments.id_of(experiment)
        state.run_id = experiments.find(mlflow_fields.record_key(run)) or _create(experiments, run, state.experiment_id)
        sent_state.save_sent(run.path, key, state)
    changed = _values(client, run, state.run_id, state)
    if changed:
        sent_state.save_sent(run.path, key, state)
    if run.status == "RUNNING":
        ended = _reopen(client, state.run_id, state)
    else:
        ended = _upload(client, run, state.run_id, state) | _close(client, run, state.run_id, state)
    if ended:
        sent_state.save_sent(run.path, key, state)
    return created or changed or ended


def _current(run: StoredRun, experiments: Experiments) -> Sent | None:
    """Return what the MLflow store already has of the run; None if a user has deleted it there."""
    state = sent_state.load_sent(run.path, experiments.store.key)
    stage = experiments.stage(state.run_id) if state.run_id else None
    if stage is None:  # never sent, or the store was emptied or replaced
        return Sent(resumes=len(run.resumed_bytes))
    assert state.run_id is not None  # noqa: S101
    if any(size < state.offset for size in run.resumed_bytes[state.resumes :]):
        # MLflow cannot remove values: the steps that the resumed run repeats would be there twice.
        if stage == "active":
            experiments.client.delete_run(state.run_id)
            experiments.forget(state.run_id, mlflow_fields.record_key(run))
        return Sent(resumes=len(run.resumed_bytes))
    if stage == "deleted":  # by a user, in MLflow: do not send it again
        return None
    state.resumes = len(run.resumed_bytes)
    return state


def _create(experiments: Experiments, run: StoredRun, experiment_id: str) -> str:
    created = experiments.client.create_run(experiment_id, start_time=run.started_ms, tags=mlflow_fields.tags(run))
    return experiments.learn(created.info.run_id, mlflow_fields.record_key(run))


def _values(client: "MlflowClient", run: StoredRun, run_id: str, state: Sent) -> bool:
    """Upload parameters, new metric values and, at the end, final values and tags, in as few requests as possible."""
    from mlflow.entities import Metric, Param, RunTag

    lines, offset = read_valid_metrics(run.path / "metrics.jsonl", state.offset)
    points = list(mlflow_fields.points(lines))
    tags: dict[str, str] = {}
    if run.status != "RUNNING" and state.ended != [run.status, run.ended_ms]:
        points += mlflow_fields.final_points(run)
        tags = mlflow_fields.tags(run)
    identity = run.identity
    config = {"arm": identity.arm, "seed": identity.seed, "draw": identity.draw, **identity.config}
    params = (
        [] if state.described else [Param(name, value) for name, value in mlflow_fields.flatten_params(config).items()]
    )
    if not (points or tags or params):
        return False
    *first, last = list(mlflow_fields.chunks(params, mlflow_fields.MAX_PARAMS_PER_BATCH)) or [[]]
    for chunk in first:
        client.log_batch(run_id, params=chunk)
    room = mlflow_fields.MAX_PER_BATCH - len(last) - len(tags)
    metrics = [Metric(*point) for point in points]
    client.log_batch(run_id, metrics[:room], last, [RunTag(name, value) for name, value in tags.items()])
    for rest in mlflow_fields.chunks(metrics[room:], mlflow_fields.MAX_PER_BATCH):
        client.log_batch(run_id, metrics=rest)
    if not state.described:
        _log_data(client, run, run_id)
    state.described, state.offset = True, offset
    return True


def _log_data(client: "MlflowClient", run: StoredRun, run_id: str) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    described = mlflow_fields.dataset(run.identity.data)
    if described is not None:
        context = [InputTag("mlflow.data.context", "training")]
        client.log_inputs(run_id, datasets=[DatasetInput(Dataset(**described), context)])


def _reopen(client: "MlflowClient", run_id: str, state: Sent) -> bool:
    """Set the MLflow status of a resumed run to RUNNING again."""
    if state.ended is None:
        return False
    client.update_run(run_id, status="RUNNING")
    state.ended = None
    return True


def _upload(client: "MlflowClient", run: StoredRun, run_id: str, state: Sent) -> bool:
    changed = False
    for name, path in artifacts(run):
        mark = sent_state.signature(path)
        if state.artifacts.get(name) != mark:
            client.log_artifact(run_id, str(path), str(Path(name).parent) if "/" in name else None)
            state.artifacts[name], changed = mark, True
    return changed


def _close(client: "MlflowClient", run: StoredRun, run_id: str, state: Sent) -> bool:
    """Set status and end time of the MLflow run, as the last step, so that a run shown as ended is complete."""
    if state.ended == [run.status, run.ended_ms]:
        return False
    client.set_terminated(run_id, run.status, run.ended_ms)
    state.ended = [run.status, run.ended_ms]
    return True
