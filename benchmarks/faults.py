"""Kill comparisons at random moments, resume them, and break the way to MLflow: what is lost, doubled or misreported?

    python benchmarks/faults.py                         40 kills and all other sections, about 25 minutes on 2 cores
    python benchmarks/faults.py --kills 8 --minutes 5   a short try
    python benchmarks/faults.py --only servers          one section: kills, servers, stores or inputs
    python benchmarks/faults.py --only kills --pack 4   four runs train side by side in each process

Kills: a recipe whose arms go through every stage (label noise estimated first, second stages, fine-tuning, OOD) is
ended by SIGKILL of its whole process group, up to six times in one folder, and sometimes the process that sends to
MLflow with it. Resumed to its end, it must have the weights, predictions, final.json, tables and MLflow runs of a
comparison that nobody disturbed. After a kill, other runs train side by side than before. Their numbers then differ in
the last digits, which training amplifies. So with ``--pack`` every result must be there once, and the largest
difference of a final accuracy is printed. Servers: records are sent to MLflow servers that are down, slow, refuse, lose
answers or restart, and to PostgreSQL where it is installed. Stores: nc-tools sync is killed while it makes a SQLite
store. Inputs: damaged and hostile records are given to every reader.
"""

import argparse
import contextlib
import csv
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import psutil

from nc_tools.data import DataConfig, SymmetricNoise
from nc_tools.experiment import ModelConfig, Protocol, RunConfig, TunedParameter, run_recipe
from nc_tools.heads import LinearHead
from nc_tools.losses import CrossEntropyLoss, ForwardCorrectionLoss
from nc_tools.run_records import read_run, run_folders, scan
from nc_tools.run_records.json_files import read_json_or_problem
from nc_tools.specs import spec
from nc_tools.training import RetrainClassifier, TauNormalize, TrainConfig
from nc_tools.transfer import FineTuning

TIMED = ("perf/seconds", "perf/images_per_s", "perf/evaluation_seconds", "perf/side_by_side")
MOST_KILLS_IN_A_FOLDER = 6
# A comparison is killed within this share of its undisturbed time, counted from its start or resumption or from the
# start of a run. So six kills can reach all of its stages.
SHARE = 1 / 3
BASE = RunConfig(
    data=DataConfig("digits", held_out_classes=3, ood_far="scrambled", noise=SymmetricNoise(0.3)),
    head=spec(LinearHead),
    loss=spec(CrossEntropyLoss),
    model=ModelConfig(name="conv", width=4),
    training=TrainConfig(epochs=3, batch_size=64, checkpoint_seconds=0.0),
    tuned=TunedParameter(values=()),
)
ARMS = {
    "linear": BASE,
    "forward": replace(BASE, loss=spec(ForwardCorrectionLoss)),
    "crt": replace(BASE, second_stage=RetrainClassifier(share=0.5)),
    "tau": replace(BASE, second_stage=TauNormalize()),
}
SHORT = FineTuning(rates=(0.01,), training=TrainConfig(epochs=1, batch_size=64))
PROTOCOL = Protocol(
    seeds=(0, 1),
    rates=(0.1,),
    max_extensions=0,
    curve_points=2,
    transfer_samples=150,
    fine_tuning=SHORT,
    rank_layers=True,
    check_transition=False,  # three epochs estimate no matrix that can be trusted, but the stage must run
)


def start(out: Path, pack: str) -> subprocess.Popen[bytes]:
    """Start or resume the recipe in a process group of its own."""
    command = [sys.executable, __file__, "--recipe", "--out", str(out), "--device", "cpu", "--workers", "2", "--resume"]
    command += ["--pack", pack]
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": (out.parent / "errors.txt").open("ab")}
    return subprocess.Popen(command, env=environment, start_new_session=True, **quiet)


def kill(process: subprocess.Popen[bytes], out: Path, *, sender: bool) -> str:
    """Kill the whole process group, and the process that sends to MLflow, which has a group of its own.

    Returns:
        What the comparison was doing.
    """
    os.killpg(process.pid, signal.SIGSTOP)
    stage = stage_of(out)
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    for child in children if sender else []:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()
    return stage


def wait_for_work(process: subprocess.Popen[bytes], out: Path, kind: str = "") -> None:
    """Wait until a run is in progress (one whose name contains ``kind``), or the process has ended."""
    while process.poll() is None:
        for path in (path for path in run_folders(out) if f"-{kind}" in path.name) if out.exists() else []:
            status = read_json_or_problem(path / "status.json")[0]
            if status.get("status") == "RUNNING" and psutil.pid_exists(status["pid"]):
                return
        time.sleep(0.02)


def stage_of(out: Path) -> str:
    """Return the stage of the comparison in a folder, from its records."""
    runs = [run for run in scan(out).runs if run.status == "RUNNING"] if (out / "runs").is_dir() else []
    if not runs:
        return "report" if (out / "report").exists() else "start" if not run_folders(out) else "between two runs"
    run = max(runs, key=lambda run: (run.path / "status.json").stat().st_mtime)
    if run.identity.kind != "final":
        return {"tuning": "tuning trial", "holdout": "hold-out run"}[run.identity.kind]
    done = len(run.curves().get("train/loss", ()))
    epochs = ARMS[run.identity.arm].epochs
    if done >= epochs:
        return "final run: measures"
    if done >= BASE.training.epochs:
        return "final run: second stage"
    return (
        "final run: label noise" if (run.path / "checkpoint-first.pt").exists() and not done else "final run: training"
    )


def results(out: Path) -> dict[str, object]:
    """Return all results of a comparison without times: they must not depend on whether it was killed."""
    runs = {path.name: read_run(path) for path in run_folders(out)}
    own = ("run.json", "status.json", "final.json", "metrics.jsonl")
    files = {str(p.relative_to(out)): p for name in runs for p in (out / "runs" / name).rglob("*") if p.is_file()}
    with (out / "report" / "comparison.csv").open(newline="", encoding="utf-8") as table:
        rows = [row for row in csv.DictReader(table) if row["metric"] not in TIMED]
    return {
        "weights": {name: p.read_bytes() for name, p in files.items() if p.name == "weights.safetensors"},
        "other files": {
            name: p.read_bytes() for name, p in files.items() if p.name not in (*own, "weights.safetensors")
        },
        "final.json": {name: {k: v for k, v in run.final.items() if k not in TIMED} for name, run in runs.items()},
        "curves": {name: run.curves() for name, run in runs.items()},
        "statuses": {name: run.status for name, run in runs.items()},
        "tables": (rows, json.loads((out / "tuning.json").read_text())),
    }


def without_numbers(value: object) -> object:
    """Return results with "number" for each finite number, "file" for each content of a file, and texts for the rest.

    Example:
        >>> without_numbers({"final.json": {"a": 0.5, "b": math.nan}, "weights": b"..."})
        {'final.json': {'a': 'number', 'b': 'nan'}, 'weights': 'file'}
    """
    if isinstance(value, Mapping):
        return {key: without_numbers(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_numbers(part) for part in value]
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    if isinstance(value, bytes):
        return "file"
    return "number" if isinstance(value, float) and math.isfinite(value) else repr(value)


def largest_difference(expected: Mapping[str, object], found: Mapping[str, object]) -> float:
    """Return the largest difference between two comparisons in a run's final balanced accuracy (a fraction)."""
    one, other = (cast("Mapping[str, Mapping[str, float]]", values["final.json"]) for values in (expected, found))
    key = "test/gen/balanced_accuracy"
    return max(abs(one[name][key] - other[name][key]) for name in one if key in one[name])


def mlflow_problems(out: Path, uri: str, experiment: str) -> list[str]:
    """Return where an MLflow store differs from a folder's records, such as runs that are missing or shown twice."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    shown = [] if found is None else client.search_runs([found.experiment_id], max_results=1000)
    records = {run.path.name: run for run in scan(out).runs if run.identity.kind in ("final", "loop")}
    names = Counter(run.data.tags.get("nc.run_id", "comparison") for run in shown)
    expected = Counter({**dict.fromkeys(records, 1), "comparison": int((out / "report").exists())})
    problems = [f"{name} is shown {n} times" for name, n in names.items() if n != expected[name]]
    problems += [f"{name} is missing" for name in expected if expected[name] and not names[name]]
    for run in shown:
        record = records.get(run.data.tags.get("nc.run_id", ""))
        if record is None:
            continue
        if run.info.status != record.status:
            problems.append(f"{record.path.name} is {run.info.status}")
        for key, curve in record.curves().items():
            points = [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, key)]
            if repr(sorted(points)) != repr(curve) and key not in record.final:
                problems.append(f"{record.path.name} {key}: {len(points)} points instead of {len(curve)}")
    return problems


def count_kills(kills: int, seed: int, minutes: float, pack: str, folder: Path) -> None:
    """Kill comparisons at random moments, resume them, and print what differs from one that nobody disturbed."""
    rng = random.Random(seed)
    end = time.monotonic() + 60 * minutes
    began = time.monotonic()
    reference = folder / "reference"
    process = start(reference, pack)
    wait_for_work(process, reference)
    working = time.monotonic()
    assert process.wait() == 0, (folder / "errors.txt").read_text()
    seconds, expected = time.monotonic() - working, results(reference)
    print(
        f"undisturbed: {working - began:.0f} s to start and {seconds:.0f} s for {len(run_folders(reference))} runs",
        flush=True,
    )
    equal: Counter[str] = Counter()
    stages: Counter[str] = Counter()
    done, senders, number, drift = 0, 0, 0, 0.0
    while done < kills and time.monotonic() < end:
        out, here, number = folder / f"killed-{number}", 0, number + 1
        while here < MOST_KILLS_IN_A_FOLDER and done + here < kills:
            process, sender, moment = start(out, pack), rng.random() < 0.5, rng.random()
            if moment > 0.1:  # before the first run starts, imports take most of the time
                wait_for_work(process, out, "final-" if moment > 0.4 else "")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0, seconds * SHARE))
            if process.poll() is not None:
                break
            stages[kill(process, out, sender=sender)] += 1
            here, senders = here + 1, senders + sender
        assert start(out, pack).wait() == 0, (folder / "errors.txt").read_text()
        done += here
        found = results(out)
        if pack == "1":
            differing = [name for name in expected if found[name] != expected[name]]
        else:
            differing = [n for n in expected if without_numbers(found[n]) != without_numbers(expected[n])]
            drift = max(drift, largest_difference(expected, found))
        problems = mlflow_problems(out, f"sqlite:///{out}/mlflow.db", "faults")
        partial = [str(path) for path in out.rglob(".*.part")]
        for name in expected:
            equal[name] += here * (name not in differing)
        equal["MLflow"] += here * (not problems)
        equal["no partial files"] += here * (not partial)
        print(
            f"  folder {number}: {here} kills, differing: {[*differing, *problems[:3], *partial] or 'nothing'}",
            flush=True,
        )
    spent = (time.monotonic() - began) / 60
    print(f"\n{done} kills in {number} folders, {senders} of them with the sending process, {spent:.0f} min")
    if pack != "1":
        print(
            f"largest difference of a run's balanced accuracy: {100 * drift:.1f} points; values are not compared below"
        )
    print("| equal after the resume | kills |\n|---|---|")
    print("\n".join(f"| {name} | {n} of {done} |" for name, n in equal.items()))
    print("\n| killed during | kills |\n|---|---|")
    print("\n".join(f"| {name} | {n} |" for name, n in sorted(stages.items())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, help="of the random moments (default: a new one, which is printed)")
    parser.add_argument("--minutes", type=float, default=20.0, help="no further folder is begun after this time")
    parser.add_argument("--only", choices=("kills", "servers", "stores", "inputs"), help="run one section only")
    parser.add_argument("--pack", default="1", help="runs that train side by side in a process (1)")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"--kills {options.kills} --seed {seed} --minutes {options.minutes:g} --pack {options.pack}", flush=True)
    from faults_of_stores import hostile_inputs, killed_makers, servers

    sections = {
        "kills": lambda folder: count_kills(options.kills, seed, options.minutes, options.pack, folder),
        "servers": lambda folder: servers(folder, seed),
        "stores": lambda folder: killed_makers(folder, seed),
        "inputs": lambda folder: hostile_inputs(folder, seed),
    }
    for name, section in sections.items():
        if options.only in (None, name):
            print(f"\n## {name}", flush=True)
            with tempfile.TemporaryDirectory(prefix=f"faults-{name}-") as folder:
                section(Path(folder))


if __name__ == "__main__":
    if "--recipe" in sys.argv:
        sys.argv.remove("--recipe")
        run_recipe(ARMS, name="faults", question="What is lost when a comparison is killed?", protocol=PROTOCOL)
    else:
        main()
