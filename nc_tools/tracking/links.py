"""Tell the user where the report is and how to see the runs in MLflow."""

import shlex
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from nc_tools.tracking import sent_state
from nc_tools.tracking.store import Store, resolve_store


def direct_links(root: Path | str, tracking_uri: str | None = None, port: int = 5000) -> list[str]:
    """Return lines to print that say where the report is and how to see the runs in MLflow.

    Args:
        root: Output folder.
        tracking_uri: MLflow store, as for ``MlflowSync``.
        port: Port of the server that the printed command starts.
    """
    root = Path(root).resolve()
    store = resolve_store(root, tracking_uri)
    lines = []
    report = root / "report" / "comparison.html"
    if report.exists():
        lines.append(f"Report: {report.as_uri()}")
    base = store.label.replace("***@", "").rstrip("/") if store.is_server else f"http://127.0.0.1:{port}"
    if not store.is_server:
        command = [
            *_mlflow(),
            "ui",
            "--backend-store-uri",
            store.label,
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ]
        lines.append(f"MLflow: {shlex.join(command)}")
    lines += [f"  then {page}" if not store.is_server else f"MLflow: {page}" for page in _pages(root, store, base)]
    return lines


def _pages(root: Path, store: Store, base: str) -> Iterable[str]:
    folders = [*sorted(root.glob("runs/[!.]*")), root / "report"]
    states = [sent_state.load_sent(folder, store.key) for folder in folders if folder.is_dir()]
    experiments = dict.fromkeys(state.experiment_id for state in states if state.experiment_id)
    return [f"{base}/#/experiments/{number}/runs?compareRunsMode=CHART" for number in experiments]


def _mlflow() -> list[str]:
    """Return the command that starts MLflow from this Python environment, as short as possible."""
    beside = Path(sys.executable).with_name("mlflow")
    on_path = shutil.which("mlflow")
    if on_path is not None and Path(on_path) == beside:
        return ["mlflow"]
    return [str(beside)] if beside.exists() else [sys.executable, "-m", "mlflow"]
