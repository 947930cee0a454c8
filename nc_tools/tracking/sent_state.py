"""Save in a run's folder what each MLflow store already has of it, so that the next sync continues there."""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from nc_tools.run_records.json_files import read_json, write_json

FILE = "mlflow.json"


@dataclass
class Sent:
    """What one MLflow store already has of one run; saved after each step of the upload.

    Attributes:
        run_id: MLflow's id of the run; None before it is created.
        experiment_id: MLflow's id of the experiment.
        described: Whether parameters and data set were sent.
        offset: Number of bytes of metrics.jsonl that were sent.
        resumes: Number of resumptions of the record that were taken into account.
        ended: Status and end in milliseconds as sent; None while the run is open.
        artifacts: Relative path to (size, modification time in ns) of each file that was sent.
    """

    run_id: str | None = None
    experiment_id: str | None = None
    described: bool = False
    offset: int = 0
    resumes: int = 0
    ended: list[Any] | None = None
    artifacts: dict[str, list[int]] = field(default_factory=dict)


def load_sent(folder: Path, key: str) -> Sent:
    """Read what the MLflow store ``key`` already has of the run in ``folder``; an empty state if unreadable."""
    values = _stores(folder).get(key, {})
    names = {item.name for item in fields(Sent)}
    return Sent(**{name: value for name, value in values.items() if name in names})


def save_sent(folder: Path, key: str, sent: Sent) -> None:
    """Save what the MLflow store ``key`` already has of the run in ``folder``."""
    write_json(folder / FILE, {"schema": 1, "stores": {**_stores(folder), key: asdict(sent)}})


def _stores(folder: Path) -> dict[str, Any]:
    try:
        stores = read_json(folder / FILE).get("stores")
    except (OSError, ValueError):
        return {}
    return stores if isinstance(stores, dict) else {}


def signature(path: Path) -> list[int]:
    """Return size and modification time of a file, by which a changed file is noticed."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]
