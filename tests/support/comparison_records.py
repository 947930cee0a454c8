"""Writes the output folder of a finished comparison with known differences between its arms."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from nc_tools.comparison.surest_mistakes import surest_mistakes
from nc_tools.run_records.mistake_pictures import MistakePictures, write_mistake_pictures

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
COUNTS = tuple(int(2000 * 0.01 ** (k / 9)) for k in range(10))
RATES = [0.01, 0.0316, 0.1, 0.316, 1.0]


@dataclass(frozen=True)
class Truth:
    """The true properties of an arm: gain over the baseline, lift of the rare classes, overconfidence, collapse."""

    head: str
    loss: str
    gain: float
    lift: float
    sharpness: float
    nc1: float
    probe: float
    draws: int = 1


ARMS = {
    "linear": Truth("LinearHead", "CrossEntropyLoss", 0.0, 0.0, 2.2, 0.35, 0.61),
    "linear_la": Truth("LinearHead", "LogitAdjustedLoss", 0.052, 0.35, 1.7, 0.41, 0.62),
    "cosine_la": Truth("CosineHead", "LogitAdjustedLoss", 0.049, 0.38, 1.5, 0.38, 0.615),
    "etf": Truth("ETFHead", "CrossEntropyLoss", -0.006, 0.0, 2.5, 0.22, 0.58, 3),
    "etf_la": Truth("ETFHead", "LogitAdjustedLoss", 0.058, 0.42, 1.6, 0.25, 0.60, 3),
    "etf_dr": Truth("ETFHead", "DotRegressionLoss", 0.012, 0.12, 0.45, 0.12, 0.55, 3),
    "frozen_random_la": Truth("FrozenRandomHead", "LogitAdjustedLoss", 0.03, 0.3, 1.4, 0.3, 0.6, 3),
}


def write_output(
    root: Path,
    *,
    seeds: int = 5,
    max_draws: int = 3,
    images: int = 2000,
    epochs: int = 40,
    arms: tuple[str, ...] = tuple(ARMS),
    broken: bool = True,
) -> Path:
    """Write the folder; with ``broken`` one run failed, one was killed and one is still running."""
    generator = np.random.default_rng(0)
    write_json(
        root / "experiment.json",
        {
            "schema": 1,
            "name": "Long-tailed CIFAR-10, imbalance 100",
            "question": "Does a fixed simplex-ETF head help the rare classes against a tuned linear head?",
            "baseline": "linear",
            "arms": [*arms, "etf_wide"] if broken else [*arms],
            "primary": "test/gen/balanced_accuracy",
            "suite": "suite-7f3a",
            "protocol": {
                "final runs": "train on the whole subset and report the last epoch",
                "tuning": "five half-decade rates, balanced accuracy on a hold-out of the training subset",
                "temperature": "from an equal run with the hold-out; oracle: from images outside the subset",
                "seeds": list(range(seeds)),
                "references": {arm: "linear_la" for arm in arms if arm.endswith("_la") and arm != "linear_la"},
            },
        },
    )
    write_json(root / "tuning.json", _tuning(arms, generator))
    seed_effect = generator.normal(0, 0.012, seeds)
    for order, arm in enumerate(arms):
        truth = ARMS[arm]
        draw_effect = generator.normal(0, 0.004, max_draws)
        for seed in range(seeds):
            for draw in range(min(truth.draws, max_draws)):
                value = 0.57 + truth.gain + seed_effect[seed] + draw_effect[draw] * (truth.draws > 1)
                value += generator.normal(0, 0.006)
                folder = root / "runs" / f"{arm}-s{seed}-d{draw}-final-{order:04x}{seed}{draw}ab"
                _write_run(folder, arm, seed, draw, "final", value, images, epochs, order)
            holdout = root / "runs" / f"{arm}-s{seed}-d0-holdout-{order:04x}{seed}0cd"
            _write_holdout(holdout, arm, seed, epochs, order)
    if broken:
        _break(root, seeds)
    return root


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def _tuning(arms: tuple[str, ...], generator: np.random.Generator) -> dict[str, Any]:
    trials = []
    for arm in arms:
        for lr in RATES:
            score = 0.55 + ARMS[arm].gain - 0.03 * np.log10(lr / 0.1) ** 2 + generator.normal(0, 0.004)
            knob = ("weight_decay", 5e-4) if arm == "linear" else (None, None)
            trials.append(
                {
                    "arm": arm,
                    "lr": lr,
                    "parameter": knob[0],
                    "value": knob[1],
                    "score": score,
                    "status": "FINISHED",
                }
            )
    chosen = {arm: {"lr": 0.1} for arm in arms} | {"etf_dr": {"lr": 1.0}}
    return {"trials": trials, "chosen": chosen, "notes": [], "grid": RATES}


def _identity(folder: Path, arm: str, seed: int, draw: int, kind: str, order: int) -> None:
    truth = ARMS[arm]
    write_json(
        folder / "run.json",
        {
            "schema": 1,
            "run_id": folder.name,
            "kind": kind,
            "arm": arm,
            "seed": seed,
            "draw": draw,
            "experiment": "long-tail",
            "suite": "suite-7f3a",
            "config_hash": f"{order:08x}",
            "group_hash": f"{order:08x}",
            "config": {
                "model": "small_conv",
                "epochs": 30 if arm == "cosine_la" else 40,
                "batch_size": 128,
                "optimizer": {"lr": 1.0 if arm == "etf_dr" else 0.1, "weight_decay": 5e-4, "momentum": 0.9},
                "head": {"class": truth.head, "arguments": {}},
                "loss": {"class": truth.loss, "arguments": {}},
            },
            "data": {
                "name": "cifar10",
                "fingerprint": f"print-{seed}",
                "num_classes": 10,
                "class_counts": COUNTS,
                "classes": CLASSES,
            },
            "git_commit": "0123456789abcdef",
            "versions": {"torch": "2.11.0", "nc_tools": "0.1.0"},
            "hardware": "2 x CPU core",
            "command": ["recipes/long_tail.py"],
            "created_ms": 1_700_000_000_000 + order * 1000 + seed,
        },
    )
    write_json(
        folder / "status.json",
        {
            "status": "FINISHED",
            "started_ms": 1,
            "ended_ms": 2,
            "pid": None,
            "pid_started": None,
            "host": "h",
            "error": None,
        },
    )


def _write_run(
    folder: Path,
    arm: str,
    seed: int,
    draw: int,
    kind: str,
    value: float,
    images: int,
    epochs: int,
    order: int,
) -> None:
    truth, generator = ARMS[arm], np.random.default_rng([order, seed, draw])
    _identity(folder, arm, seed, draw, kind, order)
    slope = 0.055 * (1 - truth.lift)
    recall = np.clip(
        value + slope * (4.5 - np.arange(10)) + np.random.default_rng([99, seed]).normal(0, 0.06, 10),
        0.02,
        0.98,
    )
    recall += value - recall.mean()
    labels = np.random.default_rng([7, seed]).integers(0, 10, images)
    # The same images are hard for every arm of a seed, so that models agree more than chance would have it.
    difficulty = np.random.default_rng([8, seed]).uniform(size=images)
    right = 0.75 * difficulty + 0.25 * generator.uniform(size=images) < recall[labels]
    guess = np.where(right, labels, (labels + generator.integers(1, 10, images)) % 10)
    logits = generator.normal(0, 1, (images, 10))
    logits[np.arange(images), guess] += 1.2 + 1.3 * right
    logits = (truth.sharpness * logits).astype(np.float32)
    # Sampling noise would otherwise add to the planted difference.
    temperature = truth.sharpness / 1.35
    save_file(
        {
            "test_logits": logits,
            "test_labels": labels.astype(np.int64),
            "temperature": np.array([temperature], np.float32),
        },
        folder / "predictions.safetensors",
    )
    nll, ece = _calibration(logits, labels)
    nll_ts, ece_ts = _calibration(logits / temperature, labels)
    groups = ["many" if c > 100 else "medium" if c >= 20 else "few" for c in COUNTS]
    few = [k for k in range(10) if COUNTS[k] < 60]
    final = {
        "test/gen/accuracy": float(right.mean()),
        "test/gen/balanced_accuracy": float(value),
        "test/gen/macro_f1": float(value - 0.02),
        "test/gen/worst_class": float(recall.min()),
        "test/gen/many": float(recall[:5].mean()),
        "test/gen/few": float(recall[few].mean()),
        "test/gen/tail": float(recall[7:].mean()),
        "test/cal/nll": nll,
        "test/cal/ece": ece,
        "test/cal_ts/nll": nll_ts,
        "test/cal_ts/ece": ece_ts,
        "cal/temperature": temperature,
        "train/nc/nc1_pinv": truth.nc1 * float(np.exp(generator.normal(0, 0.08))),
        "train/nc/nc2_equiangular": 0.1 * truth.nc1,
        "test/nc/nc1_pinv": 9 * truth.nc1,
        "transfer/probe/accuracy": truth.probe + float(generator.normal(0, 0.006)),
        "transfer/knn/accuracy": truth.probe - 0.03,
        "perf/seconds": 180.0 + 12 * order + float(generator.normal(0, 4)),
        "perf/parameters": 310_000 - 640 * truth.head.startswith(("ETF", "Frozen")),
        "perf/head_parameters": 0 if truth.draws > 1 else 650,
    }
    write_json(folder / "final.json", final)
    write_json(
        folder / "per_class.json",
        {
            "classes": CLASSES,
            "train_counts": COUNTS,
            "test_counts": [images // 10] * 10,
            "recall": recall.tolist(),
            "group": groups,
            "coverage": {"thr": np.clip(recall + 0.25, 0, 1).tolist(), "aps": [0.9] * 10},
        },
    )
    index = surest_mistakes(logits, labels).index
    shades = np.random.default_rng([9, seed]).integers(0, 256, (len(index), 3, 8, 8), dtype=np.uint8)
    write_mistake_pictures(folder, MistakePictures(index, tuple(f"test/{place}.png" for place in index), shades))
    rates = generator.normal(0, 0.05, epochs)
    with (folder / "metrics.jsonl").open("w") as file:
        for epoch in range(1, epochs + 1):
            nc1 = truth.nc1 + 8 * np.exp(-epoch / 6) * np.exp(rates[epoch - 1])
            values = {"train/loss": 2 * np.exp(-epoch / 10), "train/nc/nc1_pinv": nc1}
            file.write(json.dumps({"step": epoch, "time_ms": epoch, "values": values}) + "\n")


def _write_holdout(folder: Path, arm: str, seed: int, epochs: int, order: int) -> None:
    generator = np.random.default_rng([order, seed, 77])
    _identity(folder, arm, seed, 0, "holdout", order)
    with (folder / "metrics.jsonl").open("w") as file:
        for epoch in range(1, epochs + 1):
            nc1 = 9 * ARMS[arm].nc1 + 6 * np.exp(-epoch / 5) + 0.03 * epoch * np.exp(generator.normal(0, 0.1))
            file.write(json.dumps({"step": epoch, "time_ms": epoch, "values": {"holdout/nc/nc1_pinv": nc1}}) + "\n")
    write_json(folder / "final.json", {"cal/temperature": 1.5})


def _break(root: Path, seeds: int) -> None:
    """Add a failed run, a killed one with a truncated last line, and one that is still running."""
    last = seeds - 1
    for arm, seed, status, error in (
        ("frozen_random_la", last, "FAILED", "loss is not finite at step 812 (term LogitAdjusted)"),
        ("etf_dr", last, "KILLED", "SIGTERM"),
        ("etf_wide", 0, "RUNNING", None),
    ):
        if arm == "etf_wide":
            folder = root / "runs" / "etf_wide-s0-d0-final-0000ffff"
            write_json(
                folder / "run.json",
                {"arm": arm, "seed": seed, "draw": 0, "kind": "final", "created_ms": 1_700_000_100_000},
            )
        else:
            folder = next((root / "runs").glob(f"{arm}-s{seed}-d2-final-*"), None)
            if folder is None:
                continue
            for name in ("final.json", "per_class.json", "predictions.safetensors"):
                (folder / name).unlink()
        write_json(folder / "status.json", {"status": status, "error": error})
        with (folder / "metrics.jsonl").open("a") as file:
            file.write('{"step": 41, "time_ms": 12, "val')


def _calibration(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    scaled = logits.astype(np.float64)
    scaled -= scaled.max(axis=1, keepdims=True)
    log_p = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    confidence, correct = np.exp(log_p.max(axis=1)), log_p.argmax(axis=1) == labels
    edges = np.minimum((confidence * 15).astype(int), 14)
    ece = sum(abs(correct[edges == b].mean() - confidence[edges == b].mean()) * (edges == b).mean() for b in set(edges))
    return float(-log_p[np.arange(len(labels)), labels].mean()), float(ece)
