"""Time of a whole comparison on fixed features beside the floor of its matrix products.

    python benchmarks/feature_path.py small                 5,000 x 384, 20 classes, 5 seeds, 30 epochs
    python benchmarks/feature_path.py large                 50,000 x 768, 100 classes, 2 seeds, 10 epochs
    python benchmarks/feature_path.py large --seeds 0-4 --epochs 30

Ten trained arms, batch 256, tuned by the protocol, two processes. The seconds are those of ``nc-tools choose`` from
start to end: imports, reading the file, tuning, hold-out and final runs, their evaluation, report and model, and the
copy of all runs in MLflow. The answer is printed before that copy is complete; the time until then is printed too.
Processor seconds hardly change on a shared machine.

The floor is the time of the matrix products alone: for each sample of each training step the product of the features
with the class vectors (or the projection, and its product with the frame), and the products that the gradients need;
for each sample of a hold-out after a trial and after every epoch of a hold-out run, and of the training and test set of
every final run, the forward ones.
They are counted from the records of the runs, and divided by two speeds, each reached in two processes at once. Both
are measured before and after the runs, and the mean is taken, because the speed of a shared machine changes. They are:

- the highest one: one product of features (256, D) with the class vectors of 5, 15 or 25 heads, whichever is fastest,
  and its gradient, again and again on the same numbers, which stay in the cache; the least of 40 turns;
- that of a step: the products of a pack of all arms at five rates, with a new batch, its own class vectors and its own
  gradients, which no program that trains these heads can avoid; the median of 60 steps.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nc_tools.experiment.recipe_plan import parse_seeds

LINEAR = ("linear_la", "linear", "linear_balanced_softmax", "cosine", "cosine_la")
PROJECTED = ("etf_la", "etf_dr", "nearest_etf_la", "simplex_la", "random_la")
BATCH, PROCESSES, HOLDOUT = 256, 2, 0.2
HEADS = (5, 15, 25)
RATES = 5  # of each arm, in the first round of tuning


@dataclass(frozen=True)
class Case:
    """The size of a comparison on features.

    Attributes:
        train: Number of training samples.
        test: Number of test samples.
        width: Number of features, D.
        classes: Number of classes.
        seeds: Seeds, as for ``nc-tools choose --seeds``.
        epochs: Number of epochs of every head.
    """

    train: int
    test: int
    width: int
    classes: int
    seeds: str
    epochs: int


CASES = {"small": Case(5000, 2000, 384, 20, "0-4", 30), "large": Case(50_000, 10_000, 768, 100, "0-1", 10)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--seeds")
    parser.add_argument("--epochs", type=int)
    args = parser.parse_args()
    case = CASES[args.case]
    seeds, epochs = args.seeds or case.seeds, args.epochs or case.epochs
    print(f"{args.case}: {case}, with {seeds=} {epochs=}; torch {torch.__version__}, {platform.machine()}")
    print(f"load of the machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    before = speeds(case)
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder) / "features.npz", Path(folder) / "out"
        write_features(case, file)
        words = [file, "--arms", ",".join(LINEAR + PROJECTED), "--seeds", seeds, "--epochs", epochs, "--out", out]
        answer, wall, processor = timed([sys.executable, "-m", "nc_tools.cli", "choose", *map(str, words)])
        trained = Counter(trial["arm"] for trial in json.loads((out / "tuning.json").read_text())["trials"])
    count = len(parse_seeds(seeds))
    products = sum(flops(case, arm, trained[arm], count, epochs) for arm in LINEAR + PROJECTED)
    highest, of_steps = (sum(pair) / 2 for pair in zip(before, speeds(case), strict=True))
    print(f"load after: {os.getloadavg()[0]:.1f}; {sum(trained.values())} trials, {20 * count} hold-out and final runs")
    print(f"{'nc-tools choose, until its answer':<38} {answer:8.1f} s")
    print(f"{'nc-tools choose':<38} {wall:8.1f} s {processor:8.1f} processor seconds")
    for name, speed in (("highest speed", highest), ("speed of a step", of_steps)):
        floor = products / speed
        print(f"{'floor: its products, ' + name:<38} {floor / PROCESSES:8.1f} s {floor:8.1f} processor seconds", end="")
        print(f"   ({products / 1e12:.1f} TFLOP at {speed / 1e9:.0f} GFLOP/s a core), ratio {processor / floor:.2f}")


def write_features(case: Case, path: Path) -> None:
    """Write normal features around class means, with a long tail of 10 in the training set."""
    random = np.random.default_rng(0)
    shares = 10.0 ** -np.linspace(0, 1, case.classes)
    counts = np.maximum(np.round(case.train * shares / shares.sum()).astype(int), 10)
    labels = np.concatenate([np.repeat(np.arange(case.classes), counts), np.arange(case.test) % case.classes])
    means = random.normal(size=(case.classes, case.width)).astype("float32")
    features = means[labels] + 4 * random.normal(size=(len(labels), case.width)).astype("float32")
    split = np.array(["train"] * int(counts.sum()) + ["test"] * case.test)
    np.savez(path, features=features, labels=labels, split=split)


def timed(command: list[str]) -> tuple[float, float, float]:
    """Return the seconds of a command until its answer and until its end, and its processor seconds with children."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONUNBUFFERED": "1"}
    started, before, answer = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN), None
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            if line.startswith("The model to take home"):
                answer = time.perf_counter() - started
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode != 0 or answer is None:
        raise RuntimeError(f"nc-tools choose gave no answer; its exit status is {process.returncode}")
    return answer, wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def flops(case: Case, arm: str, trials: int, seeds: int, epochs: int) -> float:
    """Return the floating-point operations of the matrix products of an arm's runs."""
    fitted, held_out = case.train * (1 - HOLDOUT), case.train * HOLDOUT
    to_classes = 2.0 * case.width * case.classes
    frame = 2.0 * case.classes**2 if arm in PROJECTED else 0.0  # projected to as many dimensions as classes
    forward, step = to_classes + frame, 2 * (to_classes + frame)
    fit = epochs * fitted * step
    final = epochs * case.train * step + (case.train + case.test) * forward
    # A trial is scored once, a hold-out run after every epoch.
    return trials * (fit + held_out * forward) + seeds * (fit + epochs * held_out * forward + final)


def speeds(case: Case) -> tuple[float, float]:
    """Return two speeds of one core while all processes compute, in floating-point operations per second."""
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        highest = pool.starmap(product_speed, [(case.width, case.classes)] * PROCESSES)
        of_steps = pool.map(step_speed, [case] * PROCESSES)
    return sum(highest) / PROCESSES, sum(of_steps) / PROCESSES


def product_speed(width: int, classes: int) -> float:
    """Return the highest speed of the forward and the gradient product, in operations per processor second."""
    torch.set_num_threads(1)
    speeds = []
    for heads in HEADS:
        rows, vectors, gradient = (
            torch.randn(shape) for shape in ((BATCH, width), (heads * classes, width), (heads * classes, BATCH))
        )

        def step(rows: torch.Tensor = rows, vectors: torch.Tensor = vectors, grad: torch.Tensor = gradient) -> None:
            torch.mm(rows, vectors.T)
            torch.mm(grad, rows)

        speeds.append(4.0 * BATCH * width * heads * classes / least_seconds(step))
    return max(speeds)


def step_speed(case: Case) -> float:
    """Return the speed of the products of a training step, in operations per processor second."""
    torch.set_num_threads(1)
    heads = RATES * len(LINEAR + PROJECTED)
    table, vectors = torch.randn(case.train, case.width), torch.randn(heads, case.classes, case.width)
    gradients, of_logits = torch.empty_like(vectors), torch.randn(heads, case.classes, BATCH)
    together = max(1, 500 // case.classes)  # heads in one product: about as fast as it gets
    groups = [slice(first, first + together) for first in range(0, heads, together)]
    times = []
    for _ in range(60):
        rows = table[torch.randint(len(table), (BATCH,))]
        started = time.process_time()
        for group in groups:
            torch.mm(rows, vectors[group].flatten(0, 1).T)
        for group in groups:
            torch.mm(of_logits[group].flatten(0, 1), rows, out=gradients[group].view(-1, case.width))
        times.append(time.process_time() - started)
    return 4.0 * BATCH * case.width * heads * case.classes / statistics.median(times)


def least_seconds(step: Callable[[], None]) -> float:
    """Return the least processor time of a step in several turns."""
    times = []
    for _ in range(40):
        started = time.process_time()
        for _ in range(5):
            step()
        times.append((time.process_time() - started) / 5)
    return min(times)


if __name__ == "__main__":
    main()
