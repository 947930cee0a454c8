"""Show the runs of an output folder in MLflow: start its server on the folder's store, or name a server's pages."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import psutil

from nc_tools._support.signals import killed_on_sigterm
from nc_tools.run_records.reader import read_runs
from nc_tools.tracking.mlflow_sync import SETTINGS
from nc_tools.tracking.store import NOTE, Store, StoreError, name_in_mlflow, resolve_store

START_SECONDS = 120.0
END_SECONDS = 10.0
USUAL_PORT = 5000

Say = Callable[[str], None]


def show_store(root: Path, tracking_uri: str | None, *, port: int | None, browser: bool, say: Say) -> None:
    """Print, and open in a browser, the pages of MLflow that show an output folder.

    The server that is started for a SQLite file or another database is reached from this machine only. It ends with
    Ctrl-C, as this function does. For an MLflow server at an ``http`` address only the pages are shown.

    Args:
        root: Output folder.
        tracking_uri: MLflow store, as for ``MlflowSync``.
        port: Port of the server that is started; None for 5000, or any free one.
        browser: Whether to open the first page in a browser, if this machine has a screen.
        say: Prints a line.

    Raises:
        FileNotFoundError: If there is no such folder, or no store for it.
        ValueError: If the store cannot be opened or has no run of this folder, the port is in use, or the server ends.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"the output folder {root} does not exist: give the folder that was the recipe's --out")
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    store = resolve_store(root.resolve(), tracking_uri)
    if store.is_server and port is not None:
        raise ValueError(
            f"--port is of the server that is started here, and {store.address} runs already: leave it out"
        )
    pages = _pages(store, root)
    if store.is_server:
        _show(store.address.rstrip("/"), pages, browser=browser, say=say)
        return
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        # A command that a script starts in the background ignores SIGINT, but `kill -INT` must still end it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with suppress(KeyboardInterrupt), killed_on_sigterm(), _server(store, _port(port)) as (process, address):
        _show(address, pages, browser=browser, say=say)
        say("Ctrl-C ends MLflow.")
        process.wait()
        raise ValueError(f"MLflow's server has ended with status {process.returncode}")


def _pages(store: Store, root: Path) -> Sequence[tuple[str, str]]:
    """Return the pages that show a folder, as (title, address).

    Raises:
        FileNotFoundError: If there is no store.
        ValueError: If the store cannot be opened, or has no run of this folder.
    """
    upload = f"upload them with: nc-tools sync {root}"
    if store.database is not None and not store.database.exists():
        raise FileNotFoundError(f"there is no MLflow store {store.database} with the runs of {root}: {upload}")
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    from nc_tools.tracking.connection import connect
    from nc_tools.tracking.runs_in_store import FolderRuns, experiment_id

    names = dict.fromkeys(run.identity.experiment for run in read_runs(root, ("final", "loop")))
    pages: list[tuple[str, str]] = []
    try:
        client = connect(store)
        for name in names if (root / NOTE).exists() else ():
            if client.get_experiment_by_name(name) is not None:
                number = experiment_id(client, store, root.resolve(), name)
                pages += FolderRuns(client, number, name_in_mlflow(root)).pages()
    except (StoreError, MlflowException, SQLAlchemyError, OSError) as error:
        raise ValueError(store.explain(error)) from error
    if not pages:
        raise ValueError(f"the MLflow store {store.address} has no run of {root}: {upload}")
    return pages


def _show(address: str, pages: Sequence[tuple[str, str]], *, browser: bool, say: Say) -> None:
    for what, page in pages:
        say(f"{what}: {address}/{page}")
    has_screen = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if browser and has_screen:  # without one, Python would start a browser in the terminal
        webbrowser.open(f"{address}/{pages[0][1]}")


def _port(port: int | None) -> int:
    """Return a port that no server uses.

    Raises:
        ValueError: If the given one is in use.
    """
    for candidate in (USUAL_PORT, 0) if port is None else (port,):
        with socket.socket() as probe, suppress(OSError):
            if os.name == "posix":  # so that the port of a server that has just ended is free
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", candidate))
            return int(probe.getsockname()[1])
    raise ValueError(f"port {port} cannot be used, or is in use by another program: leave --port out for a free one")


@contextmanager
def _server(store: Store, port: int) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Start MLflow's server on a store; yield its process and address when it answers, and end it afterwards."""
    artifacts = [] if store.artifacts is None else ["--artifacts-destination", str(store.artifacts)]
    command = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *artifacts]
    # The address may hold a password, and command lines are visible to other users. A file mlflow.py in the working
    # directory is not MLflow. Job execution would start eight processes.
    own = {"MLFLOW_BACKEND_STORE_URI": store.uri, "PYTHONSAFEPATH": "1", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([sys.executable, *command], env=os.environ | own, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + START_SECONDS
            while not _answers(address):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    lines = log.read().decode(errors="replace").strip().splitlines()
                    raise ValueError(f"MLflow's server did not start ({lines[-1] if lines else 'it printed nothing'})")
                time.sleep(0.1)
            yield process, address
        finally:
            _end(process)


def _answers(address: str) -> bool:
    try:
        with build_opener(ProxyHandler({})).open(f"{address}/health", timeout=1) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it has started."""
    with suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.terminate()
        process.terminate()
        for member in psutil.wait_procs([*family, psutil.Process(process.pid)], timeout=END_SECONDS)[1]:
            member.kill()
    process.wait()
