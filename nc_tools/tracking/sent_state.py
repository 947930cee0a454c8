"""What each store already has of a record, noted beside it, so that a sync goes on where it stopped."""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from nc_tools.run_records.json_files import read_json, write_json

FILE = "mlflow.json"


@dataclass
class Sent:
    """How far one store has one record; saved after every step, and every step can be repeated without harm.

    Attributes:
        run_id: MLflow's name of the run; None before it is created.
        experiment_id: MLflow's number of the experiment.
        described: Whether parameters and data set are there.
        offset: Bytes of metrics.jsonl that are there.
        resumes: How many resumptions of the record are accounted for.
        ended: Status and end in milliseconds as sent; None while the run is open.
        artifacts: Relative path to (size, time of change in ns) of each file that is there.
    """

    run_id: str | None = None
    experiment_id: str | None = None
    described: bool = False
    offset: int = 0
    resumes: int = 0
    ended: list[Any] | None = None
    artifacts: dict[str, list[int]] = field(default_factory=dict)


def load_sent(folder: Path, key: str) -> Sent:
    """Read what the store ``key`` has of the record in ``folder``; nothing, if the note cannot be read."""
    values = _stores(folder).get(key, {})
    names = {item.name for item in fields(Sent)}
    return Sent(**{name: value for name, value in values.items() if name in names})


def save_sent(folder: Path, key: str, sent: Sent) -> None:
    """Note what the store ``key`` has."""
    write_json(folder / FILE, {"schema": 1, "stores": {**_stores(folder), key: asdict(sent)}})


def _stores(folder: Path) -> dict[str, Any]:
    try:
        stores = read_json(folder / FILE).get("stores")
    except (OSError, ValueError):
        return {}
    return stores if isinstance(stores, dict) else {}


def signature(path: Path) -> list[int]:
    """Size and time of change of a file."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]
