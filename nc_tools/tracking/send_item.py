"""Send one run or comparison to MLflow, in steps that can each be repeated."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Param, Run, RunTag

from nc_tools.tracking.mlflow_fields import MAX_PARAMS_PER_BATCH, MAX_PER_BATCH, chunks
from nc_tools.tracking.run_items import RunItem, files_hash
from nc_tools.tracking.runs_in_store import ATTEMPT, RECORD, SENT, sent_state


def send_item(client: MlflowClient, run: Run, item: RunItem, folder: str, beat: Callable[[], None]) -> bool:
    """Bring a run in MLflow up to date with its item; return True if anything was sent.

    The last step notes in the run what it has. If the process ends earlier, the next one repeats all steps since the
    last note. That changes nothing, because MLflow stores equal parameters, values and files once. ``beat`` is called
    before each file, to show that there is progress.
    """
    run_id, before = run.info.run_id, sent_state(run)
    now: dict[str, Any] = {"resumes": len(item.resumed), "status": item.status, "ended": item.ended_ms}
    now["files"] = files_hash(item.files)
    as_before = now.items() <= before.items()
    if as_before and item.status != "RUNNING":
        return False
    metrics, now["offset"] = item.metrics(before.get("offset", 0))
    if as_before and not metrics:
        return False
    if not before:
        _describe(client, run_id, item)
    for values in chunks(metrics, MAX_PER_BATCH):
        client.log_batch(run_id, metrics=values)
    tags = {SENT: json.dumps(now)}
    if item.status != "RUNNING":
        if before.get("files") != now["files"]:
            for name, path in item.files.items():
                beat()
                client.log_artifact(run_id, str(path), str(Path(name).parent) if "/" in name else None)
        client.set_terminated(run_id, item.status, item.ended_ms)
        tags |= {**item.tags, RECORD: f"{folder}/{item.name}", ATTEMPT: item.attempt}
    elif run.info.status != "RUNNING":
        client.update_run(run_id, status="RUNNING")  # it was resumed
    client.log_batch(run_id, tags=[RunTag(*pair) for pair in tags.items()])
    return True


def _describe(client: MlflowClient, run_id: str, item: RunItem) -> None:
    for params in chunks([Param(*pair) for pair in item.params.items()], MAX_PARAMS_PER_BATCH):
        client.log_batch(run_id, params=params)
    if item.dataset is not None:
        data = DatasetInput(Dataset(**item.dataset), [InputTag("mlflow.data.context", "training")])
        client.log_inputs(run_id, datasets=[data])
