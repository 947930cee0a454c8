"""Measure what tracking costs: time in the training process, and wall time of complete runs.

    python benchmarks/tracking.py              three rounds, about 12 minutes
    python benchmarks/tracking.py --rounds 1   one round

Each round runs three arms in turn, so that a machine that becomes slower affects all of them: records only; records
copied to a new SQLite store; records copied to an MLflow server on the loopback interface. A run is a fixed number of
matrix products, so wall times can be compared. "waited" is the time that the training process itself spends on tracking
(writing the record, starting the sending process, waiting for the last push).

Goals: at most 2 % of the wall time of a run over 30 s, at most 0.25 s for a shorter one.
"""

import argparse
import json
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from nc_tools.run_records import RunIdentity, RunRecord
from nc_tools.tracking import MlflowSync

CURVES = {f"train/nc/value_{number}": 0.123456789 * number for number in range(10)}
FINAL = {f"test/gen/value_{number}": 0.123456789 * number for number in range(40)}
CONFIG = {"head": {"name": "etf", "scale": 8.0}, "train": {f"field_{number}": number for number in range(40)}}
MATRIX = np.random.default_rng(0).standard_normal((512, 512)).astype(np.float32)


def products_per_second() -> float:
    """Return how many products this machine computes in a second."""
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < 2.0:
        MATRIX @ MATRIX
        count += 1
    return count / (time.perf_counter() - began)


def one_run(root: Path, seed: int, epochs: int, products: int) -> float:
    """Compute the products and record one run; return the seconds that recording took."""
    began = time.perf_counter()
    record = RunRecord.create(root, RunIdentity("final", arm="etf", seed=seed, config=CONFIG, experiment="cost"))
    spent = time.perf_counter() - began
    for epoch in range(epochs):
        for _ in range(products):
            MATRIX @ MATRIX
        began = time.perf_counter()
        record.log(epoch, CURVES)
        spent += time.perf_counter() - began
    # A run writes these files in any case, so only sending them is a cost of tracking.
    for name, size in (("weights.safetensors", 1_000_000), ("predictions.safetensors", 400_000)):
        (record.path / name).write_bytes(bytes(size))
    for name in ("reliability.png", "nc.png"):
        (record.figures / name).write_bytes(bytes(30_000))
    began = time.perf_counter()
    record.finish(FINAL)
    return spent + time.perf_counter() - began


def program_cost(address: str | None, runs: int, epochs: int, products: int) -> dict[str, float]:
    """Measure a program of ``runs`` runs; ``address`` "off" writes records only, None uses SQLite."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        used = children_cpu()
        began = time.perf_counter()
        live = MlflowSync(root, address or f"sqlite:///{root}/mlflow.db") if address != "off" else None
        if live is not None:
            live.start()
        started = time.perf_counter() - began
        recording = sum(one_run(root, seed, epochs, products) for seed in range(runs))
        stopping = time.perf_counter()
        if live is not None:
            report = live.stop()
            assert report.error is None, report.error
        ended = time.perf_counter()
        return {
            "wall": ended - began,
            "recording": recording,
            "last_push": ended - stopping,
            "waited": started + recording + ended - stopping,
            "sender_cpu": children_cpu() - used,
        }


def children_cpu() -> float:
    """Return the CPU seconds of child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@contextmanager
def server() -> Iterator[str]:
    """Run an MLflow server on the loopback interface and yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [
            "mlflow",
            "server",
            "--backend-store-uri",
            f"sqlite:///{folder}/mlflow.db",
            "--host",
            "127.0.0.1",
        ]
        command += ["--artifacts-destination", f"{folder}/artifacts", "--port", str(port), "--workers", "1"]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            env={**os.environ, **quiet},
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            for _ in range(600):
                try:
                    urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                    break
                except (URLError, OSError):
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def record_cost() -> dict[str, float]:
    """Measure the cost of the record alone, per epoch and per run."""
    with tempfile.TemporaryDirectory() as folder:
        creations, logs, ends = [], [], []
        for seed in range(30):
            began = time.perf_counter()
            record = RunRecord.create(Path(folder), RunIdentity("final", arm="etf", seed=seed, config=CONFIG))
            creations.append(time.perf_counter() - began)
            for epoch in range(100):
                began = time.perf_counter()
                record.log(epoch, CURVES)
                logs.append(time.perf_counter() - began)
            began = time.perf_counter()
            record.finish(FINAL)
            ends.append(time.perf_counter() - began)
    return {
        "create_ms": 1e3 * statistics.median(creations),
        "log_us": 1e6 * statistics.median(logs),
        "log_us_p99": 1e6 * statistics.quantiles(logs, n=100)[98],
        "finish_ms": 1e3 * statistics.median(ends),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=35.0, help="length of the long run")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    results: dict[str, object] = {"record": record_cost()}
    print(json.dumps(results["record"], indent=1), flush=True)
    rate = products_per_second()
    shapes = {
        "one long run": (1, 50, round(rate * options.seconds / 50)),
        "ten short runs": (10, 20, round(rate * options.seconds / 200)),
    }
    with server() if options.rounds else nullcontext("") as address:
        arms = {"records only": "off", "sqlite": None, "server": address}
        for shape, (runs, epochs, products) in shapes.items():
            measured: dict[str, list[dict[str, float]]] = {name: [] for name in arms}
            for _ in range(options.rounds):
                for name, target in arms.items():
                    measured[name].append(program_cost(target, runs, epochs, products))
            base = statistics.median(item["wall"] for item in measured["records only"])
            print(f"\n{shape}: medians of {options.rounds} rounds, {runs} run(s)")
            for name, items in measured.items():
                row = {key: statistics.median(item[key] for item in items) for key in items[0]}
                row["waited_percent"] = 100 * row["waited"] / row["wall"]
                row["wall_against_records_only_percent"] = 100 * (row["wall"] / base - 1)
                row["waited_per_run"] = row["waited"] / runs
                results[f"{shape}/{name}"] = row
                print(f"  {name:13}", "  ".join(f"{key} {value:.3f}" for key, value in row.items()), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
