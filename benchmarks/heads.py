"""Cost of a head in training compared with nn.Linear: time, memory, and the construction of large frames.

    python benchmarks/heads.py                    everything, on the CPU and on the GPU if there is one
    python benchmarks/heads.py --quick            three turns, small constructions
    python benchmarks/heads.py --json FILE        also write the results to a file
    python benchmarks/heads.py --clock cpu        CPU seconds instead of wall time, for a shared machine

A step is the forward pass, cross-entropy, the backward pass (also to the features) and the update; random features
replace a backbone. All heads take turns, with ``nn.Linear`` trained by SGD with momentum; a ratio is that of the
medians of one run. A head with a learned matrix needs at least three matrix products, one with a fixed dense frame two:
a ratio of 2/3 if products are the only cost. Normalizing the features adds to it, except for heads on raw features. A
structured head has no such product; it needs at least the time to read and write features and logits.

Memory is that of the parameters, buffers, gradients and optimizer state after a step. Each construction runs in its own
process, whose peak resident memory is read at the end.

To add a head, add a line to HEADS.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nc_tools.geometry import hadamard, simplex_etf
from nc_tools.geometry.random_hadamard import draw_signed_permutation, hadamard_etf
from nc_tools.heads import ETFHead, FrozenRandomHead, SimplexHead, SphericalCodeHead, StructuredETFHead

SIZES = ((256, 512, 10), (256, 512, 100), (256, 2048, 1000), (256, 4096, 4096))
WIDE = (256, 768, 50_000)
DENSE, RAW = "dense frame", "dense frame, raw features"
STRUCTURED, SLICED = "structured ETF", "slice and center"

# name: (function that builds it from (D, K), whether it is built for K > D). Frames are random, because their values do
# not change the cost.
HEADS: dict[str, tuple[Callable[[int, int], nn.Module], bool]] = {
    "nn.Linear": (nn.Linear, True),
    DENSE: (FrozenRandomHead, True),
    RAW: (lambda d, k: FrozenRandomHead(d, k, normalize=False), True),
    STRUCTURED: (StructuredETFHead, False),
    SLICED: (lambda d, k: StructuredETFHead(d, k, rotated=False), False),
}
GOALS = {RAW: (0.70, SIZES), DENSE: (0.70, SIZES), STRUCTURED: (0.15, SIZES[2:]), SLICED: (0.15, SIZES[2:])}

CONSTRUCTIONS: dict[str, Callable[[int, int], object]] = {
    "ETF, Haar rotation": lambda k, d: simplex_etf(k, d, generator=torch.Generator().manual_seed(0)),
    "ETF, signed permutation + Hadamard": lambda k, d: hadamard_etf(
        k, *draw_signed_permutation(d, generator=torch.Generator().manual_seed(0))
    ),
    "StructuredETFHead": lambda k, d: StructuredETFHead(d, k),
    "SimplexHead from 512 features": lambda k, _: SimplexHead(512, k),
    "Hadamard matrix": lambda k, _: hadamard(1 << (k - 1).bit_length()),
    "ETFHead": lambda k, d: ETFHead(d, k),
}
CODES: dict[str, Callable[[int, int], object]] = {"SphericalCodeHead": lambda k, d: SphericalCodeHead(d, k)}


def step_of(
    head: nn.Module, features: Tensor, labels: Tensor
) -> tuple[Callable[[], None], torch.optim.Optimizer | None]:
    """Return one training step of a head, and its optimizer if it has parameters."""
    learned = list(head.parameters())
    optimizer = torch.optim.SGD(learned, 1e-3, momentum=0.9) if learned else None

    def step() -> None:
        features.grad = None
        if optimizer is not None:
            optimizer.zero_grad()
        cross_entropy(head(features), labels).backward()
        if optimizer is not None:
            optimizer.step()

    return step, optimizer


def floor_of(size: tuple[int, int, int]) -> dict[str, float]:
    """Return the least FLOPs and bytes (float32) that a step needs."""
    n, d, k = size
    product, weight = 2.0 * n * d * k, 4.0 * k * d
    moved = 4.0 * (2 * n * d + 2 * n * k)  # features, logits and the gradients of both, once each
    return {
        "linear_flop": 3 * product,
        "dense_flop": 2 * product,
        "linear_bytes": moved + 8 * weight,  # two reads, gradient written; the update reads three and writes two
        "dense_bytes": moved + 2 * weight,
        "structured_bytes": moved,
    }


def timed(step: Callable[[], None], device: torch.device, steps: int, clock: Callable[[], float]) -> float:
    """Return the milliseconds of a step."""
    if device.type == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(steps):
            step()
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end)) / steps
    began = clock()
    for _ in range(steps):
        step()
    return 1000 * (clock() - began) / steps


def compare(
    size: tuple[int, int, int], device: torch.device, turns: int, clock: Callable[[], float], milliseconds: float
) -> dict[str, Any]:
    """Time every head at one size, in turns of about ``milliseconds`` each."""
    n, d, k = size
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(n, d, generator=generator).relu().to(device).requires_grad_()
    labels = torch.randint(k, (n,), generator=generator).to(device)
    chosen = {name: make for name, (make, wide) in HEADS.items() if wide or k <= d}
    steps: dict[str, tuple[Callable[[], None], int]] = {}
    for name, make in chosen.items():
        step, _ = step_of(make(d, k).to(device), features, labels)
        timed(step, device, 3, clock)
        steps[name] = step, max(1, min(200, int(milliseconds / timed(step, device, 2, clock))))
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(turns):
        for name, (step, count) in steps.items():
            times[name].append(timed(step, device, count, clock))
    median = {name: statistics.median(values) for name, values in times.items()}
    return {
        "size": size,
        "device": device.type,
        "floor": floor_of(size),
        "heads": {
            name: {"ms": median[name], "low": min(v), "high": max(v), "ratio": median[name] / median["nn.Linear"]}
            for name, v in times.items()
        },
    }


def memory(size: tuple[int, int, int]) -> dict[str, dict[str, int]]:
    """Return the bytes of parameters, buffers, gradients and optimizer state after one step."""
    n, d, k = size
    features, labels = torch.randn(n, d, requires_grad=True), torch.randint(k, (n,))
    makers = {"SGD, momentum": lambda p: torch.optim.SGD(p, 1e-3, momentum=0.9), "Adam": torch.optim.Adam}
    bytes_used: dict[str, dict[str, int]] = {}
    for name, (make, wide) in HEADS.items():
        if not wide and k > d:
            continue
        bytes_used[name] = {}
        for kind, maker in makers.items():
            head = make(d, k)
            learned = list(head.parameters())
            cross_entropy(head(features), labels).backward()
            held: list[Tensor] = [*learned, *head.buffers(), *(p.grad for p in learned if p.grad is not None)]
            if learned:
                optimizer = maker(learned)
                optimizer.step()
                held += [t for state in optimizer.state.values() for t in state.values() if isinstance(t, Tensor)]
            bytes_used[name][kind] = sum(t.numel() * t.element_size() for t in held)
    return bytes_used


def construct(name: str, classes: int, dim: int) -> dict[str, Any]:
    """Build one frame in a new process."""
    command = [sys.executable, __file__, "--construct", name, str(classes), str(dim)]
    command += ["--threads", str(torch.get_num_threads())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {"what": name, "size": (classes, dim), **json.loads(done.stdout)}


def construct_here(name: str, classes: int, dim: int) -> None:
    """Print time and peak memory of a construction."""
    wall, cpu = time.perf_counter(), time.process_time()
    (CONSTRUCTIONS | CODES)[name](classes, dim)
    seconds = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps(seconds | {"peak_gb": peak / 1e9}))


def show(result: dict[str, Any]) -> None:
    """Print one size's table."""
    n, d, k = result["size"]
    floor = result["floor"]
    print(
        f"\nN, D, K = {n}, {d}, {k}; {result['device']}; {floor['linear_flop'] / 1e9:.3g} GFLOP a linear step,", end=" "
    )
    print(
        f"{floor['dense_flop'] / 1e9:.3g} with a fixed frame; bytes {floor['linear_bytes'] / 1e6:.3g} MB linear,",
        end=" ",
    )
    print(f"{floor['dense_bytes'] / 1e6:.3g} MB dense, {floor['structured_bytes'] / 1e6:.3g} MB structured")
    for name, timing in result["heads"].items():
        goal, sizes = GOALS.get(name, (None, ()))
        verdict = (
            f"  goal {goal}: {'met' if timing['ratio'] <= goal else 'MISSED'}"
            if goal and tuple(result["size"]) in sizes
            else ""
        )
        spread = f"({timing['low']:.3f} to {timing['high']:.3f})"
        print(f"{name:<28}{timing['ms']:10.3f} ms  {spread}  ratio {timing['ratio']:.3f}{verdict}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: the CPU, and the GPU if there is one")
    parser.add_argument("--size", type=int, nargs=3, metavar=("N", "D", "K"), help="this size alone, no constructions")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--construct", nargs=3, metavar=("NAME", "K", "D"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.construct:
        construct_here(args.construct[0], int(args.construct[1]), int(args.construct[2]))
        return
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    turns = 3 if args.quick else args.turns
    found = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    devices = [torch.device(name) for name in ([args.device] if args.device else found)]
    sizes_of_steps = [tuple(args.size)] if args.size else [*SIZES, *([] if args.quick else [WIDE])]
    where = f"{platform.processor() or platform.machine()}, {args.threads} threads, torch {torch.__version__}"
    print(f"{where}; medians of {turns} interleaved turns, {args.clock} time on the CPU, events on the GPU")
    results: dict[str, Any] = {"where": where, "turns": turns, "clock": args.clock, "steps": [], "constructions": []}
    for device in devices:
        for size in sizes_of_steps:
            result = compare(size, device, turns, clock, 20 if args.quick else 200)
            results["steps"].append(result)
            show(result)
    if args.size:
        write(args.json, results)
        return
    print("\nbytes of parameters, buffers, gradients and optimizer state at D, K = 2048, 1000")
    results["memory"] = memory((8, 2048, 1000))
    for name, held in results["memory"].items():
        linear = results["memory"]["nn.Linear"]
        print(
            f"{name:<28}",
            ", ".join(f"{kind} {held[kind] / 1e6:.3f} MB ({held[kind] / linear[kind]:.3f})" for kind in held),
        )
    classes, dim = (1000, 2048) if args.quick else (10_000, 16_384)
    print("\nconstructions, K x D")
    sizes = [(name, classes, dim) for name in CONSTRUCTIONS]
    sizes += [
        ("SphericalCodeHead", k, d) for k, d in (((100, 16),) if args.quick else ((100, 64), (2000, 512), WIDE[:0:-1]))
    ]
    for name, k, d in sizes:
        result = construct(name, k, d)
        results["constructions"].append(result)
        cost = f"{result['wall_s']:8.2f} s wall, {result['cpu_s']:8.2f} s CPU, peak {result['peak_gb']:.2f} GB"
        print(f"{f'{name}, {k} x {d}':<52}{cost}", flush=True)
    write(args.json, results)


def write(path: Path | None, results: dict[str, Any]) -> None:
    """Write the figures as JSON, if there is a file to write to."""
    if path is not None:
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
