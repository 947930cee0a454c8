"""Sections of faults.py: servers and databases that fail, stores whose making is killed, damaged and hostile inputs."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from support.faulty_servers import LossyProxy, MlflowServer, free_port, serving, too_many_requests, trickle

from nc_tools.run_records import RunIdentity, RunRecord
from nc_tools.tracking import MlflowSync
from nc_tools.tracking.mlflow_sync import SETTINGS

RUNS = 4
EPOCHS = 10
KEYS = 8
PUSHES = 8
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


def nothing() -> None:
    """Disturb nothing."""


@dataclass
class Case:
    """A test case: runs are recorded and sent to a store, which is disturbed meanwhile.

    Attributes:
        name: Name of the case, and of its experiment in MLflow.
        root: Output folder.
        uri: Address to which the runs are sent.
        store: Address at which the store itself is read; "" if there is none.
        disturb: Called in a thread while the runs go on.
        repair: Called before what is missing is sent again.
    """

    name: str
    root: Path
    uri: str
    store: str
    disturb: Callable[[], None] = nothing
    repair: Callable[[], None] = nothing

    def show(self) -> None:
        """Record and send the runs, push until nothing is missing, and print a row of the table."""
        sync = MlflowSync(self.root, self.uri, every=0.5)
        thread = threading.Thread(target=self.disturb)
        sync.start()
        thread.start()
        self._record()
        thread.join()
        first = sync.stop()
        missing = RUNS - self._found()["complete"]
        self.repair()
        pushes = 1
        while self.store and sync.report is not None and sync.report.error is not None and pushes < PUSHES:
            sync.push()
            pushes += 1
        found = self._found()
        told = "nothing" if first.error is None else f"{first.pending} may be missing: {first.error}"
        told = told.replace(self.uri, "ADDRESS").replace("|", "/")
        row = [f"{found['points']} of {RUNS * KEYS * (EPOCHS + 1)}", found["twice"], f"{found['complete']} of {RUNS}"]
        print("|", " | ".join(map(str, [self.name, *row, found["ghosts"], missing, told, pushes])), "|", flush=True)

    def _record(self) -> None:
        for seed in range(RUNS):
            identity = RunIdentity("final", arm="a", seed=seed, experiment=self.name, config={"lr": 0.1})
            with RunRecord.create(self.root, identity) as run:
                for epoch in range(EPOCHS):
                    run.log(epoch, {f"train/value_{key}": epoch + key / 10 for key in range(KEYS)})
                    time.sleep(0.2)
                (run.figures / "one.svg").write_text("<svg/>")
                run.finish({f"test/value_{key}": key / 10 for key in range(KEYS)})

    def _found(self) -> Counter[str]:
        """Count in the store: different points, points that are there twice, complete runs, and other runs."""
        found: Counter[str] = Counter()
        client = MlflowClient(tracking_uri=self.store)
        try:
            experiment = client.get_experiment_by_name(self.name) if self.store else None
        except MlflowException:  # the server is down
            experiment = None
        seeds = set()
        for run in [] if experiment is None else client.search_runs([experiment.experiment_id]):
            curves = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
            points = [(key, point.step, point.value) for key, curve in curves.items() for point in curve]
            found["points"] += len(set(points))
            found["twice"] += len(points) - len(set(points))
            files = {file.path for file in client.list_artifacts(run.info.run_id)}
            seed = run.data.tags["nc.seed"]
            whole = run.info.status == "FINISHED" and files >= {"figures", "run.json", "final.json"}
            found["complete" if whole and seed not in seeds else "ghosts"] += 1
            seeds.add(seed)
        return found


def servers(folder: Path, seed: int) -> None:
    """Send runs to stores that fail in every way, and print what is lost, doubled or reported wrongly."""
    os.environ.update(SETTINGS)  # so that reading a dead server does not take minutes
    columns = ["store", "points", "twice", "complete runs", "ghosts", "missing at the end", "message then", "pushes"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    roots = (folder / f"out-{number}" for number in range(100))
    Case("SQLite file", next(roots), file := f"sqlite:///{folder}/file.db", file).show()
    with serving(too_many_requests) as uri:
        Case("429 with Retry-After", next(roots), uri, "").show()
    with serving(trickle) as uri:
        Case("an answer that never ends", next(roots), uri, "").show()
    server, rng = MlflowServer(folder), random.Random(seed)

    def restart() -> None:
        for _ in range(2):
            time.sleep(rng.uniform(0.5, 3.0))
            server.kill()
            time.sleep(rng.uniform(0.0, 2.0))
            server.start()

    try:
        Case("down, then started", next(roots), server.uri, server.uri, repair=server.start).show()
        Case("server", next(roots), server.uri, server.uri).show()
        Case("killed twice and restarted", next(roots), server.uri, server.uri, disturb=restart).show()
        proxies = {
            "0.3 s for each answer": LossyProxy(server.uri, delay=0.3),
            "each answer to runs/create lost": LossyProxy(server.uri, lose=lambda _, path, __: "runs/create" in path),
            "a fifth of all answers lost": LossyProxy(server.uri, 0.2, seed),
        }
        for name, proxy in proxies.items():
            with serving(proxy) as uri:
                Case(name, next(roots), uri, server.uri).show()
    finally:
        server.kill()
    if (reason := why_no_postgres()) is not None:
        print(f"\nPostgreSQL: skipped, because {reason}")
        return
    with postgres(folder / "postgres") as uri:
        Case("PostgreSQL", next(roots), uri, uri).show()


def why_no_postgres() -> str | None:
    """Return the reason why nothing can be sent to PostgreSQL here; None if it can."""
    if not POSTGRES:
        return "it is not installed (apt install postgresql)"
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is not installed (pip install psycopg[binary])"
    return None


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Run a PostgreSQL server on the loopback interface; yield its address."""
    folder.mkdir()
    user = {}
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        folder.parent.chmod(0o755)
        shutil.chown(folder, "postgres")
        user = {"user": "postgres"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, **user}
    port = str(free_port())
    initdb, server, ready = (POSTGRES[-1] / name for name in ("initdb", "postgres", "pg_isready"))
    subprocess.run([initdb, "-A", "trust", "-U", "nc", "-D", "data"], check=True, **quiet)
    process = subprocess.Popen([server, "-D", "data", "-p", port, "-h", "127.0.0.1", "-k", folder], **quiet)
    try:
        while subprocess.run([ready, "-h", "127.0.0.1", "-p", port], check=False, **quiet).returncode != 0:
            time.sleep(0.2)
        yield f"postgresql+psycopg://nc@127.0.0.1:{port}/postgres"
    finally:
        process.send_signal(signal.SIGINT)  # SIGTERM would wait for clients
        process.wait()


def killed_makers(folder: Path, seed: int, tries: int = 8) -> None:
    """Kill nc-tools sync with its sender while it makes a SQLite store; print how often the next sync sends the run."""
    rng, counts = random.Random(seed), Counter[str]()
    seconds = making = 0.0
    for number in range(tries + 1):
        out = folder / str(number)
        with RunRecord.create(out, RunIdentity("final", arm="a", seed=0, experiment="q")) as run:
            run.finish({"test/value": 1.0})
        if number == 0:  # undisturbed, to know how long it takes
            began = time.monotonic()
            process = sync(out)
            wait_for_making(process, out)
            seconds, making = time.monotonic() - began, time.monotonic()
            while not (out / "mlflow.db").exists():
                time.sleep(0.01)
            making = time.monotonic() - making
            assert process.wait() == 0
            continue
        process = sync(out)
        if number % 4:  # every fourth is killed before that, during the imports
            wait_for_making(process, out)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.0, 1.3 * making if number % 4 else seconds))
        if process.poll() is None:
            for child in [*psutil.Process(process.pid).children(recursive=True), process]:
                child.kill()
            process.wait()
        made = "a store" if (out / "mlflow.db").exists() else "no store"
        counts["killed, " + ("in the making" if list(out.glob("mlflow.db.new-*")) else f"with {made}")] += 1
        healed = sync(out).wait() == 0
        client = MlflowClient(tracking_uri=f"sqlite:///{out}/mlflow.db")
        shown = client.search_runs([client.get_experiment_by_name("q").experiment_id]) if healed else []
        counts["the next nc-tools sync has the run, once"] += len(shown) == 1
    print("\n".join(f"- {name}: {count} of {tries}" for name, count in counts.items()))


def wait_for_making(process: subprocess.Popen[bytes], out: Path) -> None:
    """Wait until a process begins to make a SQLite store."""
    while process.poll() is None and not list(out.glob("mlflow.db.new-*")):
        time.sleep(0.01)


def sync(out: Path) -> subprocess.Popen[bytes]:
    """Start nc-tools sync."""
    command = [sys.executable, "-m", "nc_tools.cli", "sync", str(out)]
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def hostile_inputs(folder: Path, seed: int, tries: int = 250) -> None:
    """Give damaged and hostile records to the readers of their files; print how many are answered with a sentence."""
    from support.hostile_records import NOT_READ, READERS, hostile_records, marker, outcome

    everything = hostile_records()
    chosen = random.Random(seed).sample(everything, tries)
    counts: Counter[str] = Counter()
    for number, hostile in enumerate(chosen):
        for reader in READERS:
            if hostile.file.rpartition("/")[2] in NOT_READ[reader]:
                continue
            root = hostile.make(folder / f"{number}-{reader}")
            try:
                counts["refused in one sentence" if outcome(reader, root).refused else "read"] += 1
            except Exception as error:  # noqa: BLE001 - what must not happen is counted and shown
                counts["any other end"] += 1
                print(f"- {reader}, {hostile.name} in {hostile.file}: {type(error).__name__}: {str(error)[:150]}")
            counts["ran a program"] += marker(root).exists()
            shutil.rmtree(root, ignore_errors=True)
    print(f"{len(chosen)} of {len(everything)} inputs, each to the readers of its file:")
    print("\n".join(f"- {name}: {count}" for name, count in counts.items()))
