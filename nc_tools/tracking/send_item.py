"""Send one run or comparison to MLflow, in steps that can each be repeated."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Param, Run, RunTag

from nc_tools.tracking.run_items import RunItem, files_hash
from nc_tools.tracking.runs_in_store import SENT, sent_state

POINTS = 1000  # in one request


def send_item(client: MlflowClient, run: Run, item: RunItem, beat: Callable[[], None]) -> bool:
    """Bring a run in MLflow up to date with its item; return True if anything was sent.

    The last step notes in the run what it has. If the process ends earlier, the next one repeats all steps since the
    last note. That changes nothing, because MLflow stores equal parameters, values and files once. ``beat`` is called
    before each large request, to show that there is progress.
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
        client.log_batch(run_id, params=[Param(*pair) for pair in item.params.items()])
        if item.dataset is not None:
            data = DatasetInput(Dataset(**item.dataset), [InputTag("mlflow.data.context", "training")])
            client.log_inputs(run_id, datasets=[data])
    for start in range(0, len(metrics), POINTS):
        beat()
        client.log_batch(run_id, metrics=metrics[start : start + POINTS])
    tags = {SENT: json.dumps(now)}
    if item.status != "RUNNING":
        if before.get("files") != now["files"]:
            for name, path in item.files.items():
                beat()
                client.log_artifact(run_id, str(path), str(Path(name).parent) if "/" in name else None)
        client.set_terminated(run_id, item.status, item.ended_ms)
        tags |= item.tags
    elif run.info.status != "RUNNING":
        client.update_run(run_id, status="RUNNING")  # it was resumed
    client.log_batch(run_id, tags=[RunTag(*pair) for pair in tags.items()])
    return True
