"""Tell the user where the report is and how to see the runs in MLflow."""

import shlex
import shutil
import sys
from pathlib import Path

from nc_tools.tracking.store import resolve_store, shown_experiments

# The charts of an experiment, in MLflow's view for training runs and not in the one for language models.
CHARTS = "compareRunsMode=CHART&workflowType=machine_learning"


def direct_links(
    root: Path | str, tracking_uri: str | None = None, port: int = 5000, *, report: Path | None = None
) -> list[str]:
    """Return lines to print that say where the report is and how to see the runs in MLflow.

    Args:
        root: Output folder.
        tracking_uri: MLflow store, as for ``MlflowSync``.
        port: Port of the server that the printed command starts.
        report: The page to name; None for that of the experiment's own baseline.
    """
    root = Path(root).resolve()
    store = resolve_store(root, tracking_uri)
    report = (report or root / "report" / "comparison.html").resolve()
    lines = [f"Report: {report.as_uri()}"] if report.exists() else []
    pages = [f"#/experiments/{number}/runs?{CHARTS}" for number in shown_experiments(root, store)]
    if store.is_server:
        return [*lines, *(f"MLflow: {store.address.rstrip('/')}/{page}" for page in pages)]
    # With MLFLOW_BACKEND_STORE_URI an address that holds a password need not be written here.
    address = ["--backend-store-uri", store.uri] if store.address == store.uri else []
    command = shlex.join([*_mlflow(), "ui", *address, "--host", "127.0.0.1", "--port", str(port)])
    where = "" if address else " (set MLFLOW_BACKEND_STORE_URI to the address of the store first)"
    return [*lines, f"MLflow: {command}{where}", *(f"  then http://127.0.0.1:{port}/{page}" for page in pages)]


def _mlflow() -> list[str]:
    """Return the command that starts MLflow from this Python environment, as short as possible."""
    beside = Path(sys.executable).with_name("mlflow")
    on_path = shutil.which("mlflow")
    if on_path is not None and Path(on_path) == beside:
        return ["mlflow"]
    return [str(beside)] if beside.exists() else [sys.executable, "-m", "mlflow"]
