"""Measure the time and memory of each loss beside PyTorch's cross-entropy, and whether it waits for the GPU.

    python benchmarks/losses.py                          N, K = 256, 1000 on the CPU
    python benchmarks/losses.py --device cuda            the same on a GPU, and the check for synchronization
    python benchmarks/losses.py --json FILE              also write the figures to a file
    python benchmarks/losses.py --threads 1 --cpu-time   on a machine that other programs use at the same time

Time: forward and backward through the loss alone, as the training loop calls it, against
``torch.nn.functional.cross_entropy`` on the same logits, which is timed next to it in every turn. The ratio is the
median of the turns' ratios. The first line is PyTorch's own label smoothing, computed in C++. Losses of features get
features (N, D) and a frame (K, D) instead. Their ratio, to the same cross-entropy, does not count the product that
makes the logits. Memory: the largest sum of tensors alive at once, forward and backward, beyond the input, in units of
N^2 floats. To add a loss, add a line to a list below.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from tensor_memory import peak_floats
from torch import Tensor

from nc_tools import losses
from nc_tools.heads import ETFHead
from nc_tools.heads.head import Head
from nc_tools.losses import LossTerm
from nc_tools.records import Batch, Outputs

CLOCK = time.perf_counter

# Smoothing, margins and weights need counts: a long tail from 1000 samples down to 10.
Build = Callable[[list[int]], LossTerm]
OF_LOGITS: list[tuple[str, Build]] = [
    ("CrossEntropyLoss", lambda _: losses.CrossEntropyLoss()),
    ("CrossEntropy, smoothed", lambda _: losses.CrossEntropyLoss(0.1)),
    ("CrossEntropy, smoothed by class", lambda n: losses.CrossEntropyLoss(losses.ClassWiseSmoothing(), n)),
    ("LogitAdjustedLoss", losses.LogitAdjustedLoss),
    ("BalancedSoftmaxLoss", losses.BalancedSoftmaxLoss),
    ("VectorScalingLoss", losses.VectorScalingLoss),
    ("LDAMLoss", losses.LDAMLoss),
    ("ClassBalancedLoss", losses.ClassBalancedLoss),
    ("DeferredReweighting of LDAM", lambda n: losses.DeferredReweightingLoss(n, loss=losses.LDAMLoss(n))),
    ("FocalLoss", lambda _: losses.FocalLoss()),
    ("LabelRelaxationLoss", lambda _: losses.LabelRelaxationLoss()),
    ("MeanSquaredLoss", lambda _: losses.MeanSquaredLoss()),
    ("BinaryCrossEntropyLoss", lambda n: losses.BinaryCrossEntropyLoss(len(n))),
    ("LogitNormLoss", lambda _: losses.LogitNormLoss()),
    ("GeneralizedCrossEntropyLoss", lambda _: losses.GeneralizedCrossEntropyLoss()),
    ("SymmetricCrossEntropyLoss", lambda _: losses.SymmetricCrossEntropyLoss()),
    ("NCEAndRCELoss", lambda _: losses.NCEAndRCELoss()),
    ("NCEAndMAELoss", lambda _: losses.NCEAndMAELoss()),
    ("EarlyLearningLoss", lambda n: losses.EarlyLearningLoss(50_000, len(n))),
    ("ForwardCorrectionLoss", lambda n: losses.ForwardCorrectionLoss(len(n))),
]
OF_FEATURES: list[tuple[str, Build]] = [
    ("DotRegressionLoss", lambda _: losses.DotRegressionLoss()),
    ("DotRegression over classes", lambda _: losses.DotRegressionLoss(mean_over="classes")),
    ("CosineRegressionLoss", lambda _: losses.CosineRegressionLoss()),
    ("NTCELoss", lambda _: losses.NTCELoss()),
    ("NONLLoss", lambda _: losses.NONLLoss()),
    ("FeatureEntropyLoss", lambda _: losses.FeatureEntropyLoss()),
    ("FeatureDecayLoss", lambda _: losses.FeatureDecayLoss()),
    ("CodingRateLoss", lambda _: losses.CodingRateLoss()),
]
# Losses that keep class centers (K, D).
OF_CENTERS: list[tuple[str, Callable[[int, int], LossTerm]]] = [
    ("ClassCompactnessLoss", losses.ClassCompactnessLoss),
    ("ClassSpreadLoss", losses.ClassSpreadLoss),
    ("ClassAlignmentLoss", losses.ClassAlignmentLoss),
]
# Losses of pairs of samples need N x N scores. Measured is how many copies of them exist at once.
OF_PAIRS: list[tuple[str, Build]] = [
    ("NTCELoss", lambda _: losses.NTCELoss()),
    ("NONLLoss", lambda _: losses.NONLLoss()),
    ("SupCon, two views", lambda _: losses.SupConLoss()),
    ("BalancedSupCon, two views", lambda _: losses.BalancedSupConLoss()),
    ("ClassConditionalInfoNCE, two views", lambda _: losses.ClassConditionalInfoNCELoss()),
    ("Spread, two views", lambda _: losses.SpreadLoss()),
    ("DHEL, two views", lambda _: losses.DHELLoss()),
]


class LogitsHead(Head):
    """A head whose logits are its features."""

    scale = 1.0
    bias = None

    def __init__(self, num_classes: int, device: torch.device) -> None:
        super().__init__(num_classes, num_classes)
        self.weight = torch.ones(1, device=device)

    def compute_logits(self, embedded: Tensor) -> Tensor:
        """Return the features."""
        return embedded


def counts_of(num_classes: int) -> list[int]:
    return [round(1000 * 0.01 ** (k / max(1, num_classes - 1))) for k in range(num_classes)]


def outputs_of(loss: LossTerm, head: Head, x: Tensor) -> Outputs:
    outputs = head.outputs(x)
    if loss.views == 2:  # a second view that hardly differs
        outputs.second_view = head.outputs(x + 0.01)
    return outputs


def step_on_logits(loss: LossTerm, logits: Tensor, batch: Batch) -> Callable[[], object]:
    """Return a step through the loss alone: the outputs exist already, and their logits are a leaf."""
    loss.set_progress(0.0)  # a loss that changes during training is timed at its start
    leaf = logits.clone().requires_grad_()
    outputs = outputs_of(loss, LogitsHead(logits.shape[1], logits.device), leaf)
    parameters = list(loss.parameters())

    def step() -> None:
        for parameter in (leaf, *parameters):
            parameter.grad = None
        loss(outputs, batch).backward()

    return step


def step_on_features(loss: LossTerm, head: Head, x: Tensor, batch: Batch) -> Callable[[], object]:
    """Return a step through a head's outputs and the loss, with the features as a leaf."""
    loss.set_progress(0.0)  # a loss that changes during training is timed at its start
    leaf = x.clone().requires_grad_()
    parameters = list(loss.parameters())

    def step() -> None:
        for parameter in (leaf, *parameters):
            parameter.grad = None
        loss(outputs_of(loss, head, leaf), batch).backward()

    return step


def keep_freed_memory() -> None:
    """Make glibc reuse freed memory instead of requesting new pages from the system at every step.

    Otherwise page faults caused by one loss would count for the next.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD
        libc.mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD: the most that glibc takes


@dataclass(frozen=True)
class Timing:
    """Milliseconds of a step, and their ratio to cross-entropy next to it."""

    milliseconds: float
    ratio: float


def timed(
    works: dict[str, Callable[[], object]],
    against: Callable[[], object],
    device: torch.device,
    turns: int,
    repeats: int,
) -> dict[str, Timing]:
    """Time each function in turns, next to ``against`` in every turn; return medians of milliseconds and of the ratios.

    A change in the speed of the machine then affects both of a pair. A turn is several steps of one function after a
    few that are not timed, as in ``timeit``: a single step after another function would measure cold caches. Which of a
    pair comes first alternates, and the order of the functions is shuffled.
    """
    timings: dict[str, list[Timing]] = {name: [] for name in works}
    order, shuffler = list(works.items()), random.Random(0)
    for turn in range(turns):
        shuffler.shuffle(order)
        for name, work in order:
            pair = (work, against) if turn % 2 else (against, work)
            first, second = (_one_turn(step, device, repeats) for step in pair)
            took, beside = (first, second) if turn % 2 else (second, first)
            timings[name].append(Timing(took, took / beside))
    return {
        name: Timing(statistics.median(t.milliseconds for t in each), statistics.median(t.ratio for t in each))
        for name, each in timings.items()
    }


def _one_turn(step: Callable[[], object], device: torch.device, repeats: int) -> float:
    for _ in range(5):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = CLOCK()
    for _ in range(repeats):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return 1000 * (CLOCK() - start) / repeats


def waits(work: Callable[[], object]) -> bool:
    """Return whether a step makes the host wait for the GPU."""
    work()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        work()
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        return True
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return False


def main() -> None:
    global CLOCK
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu-time", action="store_true", help="processor time; meaningful with --threads 1")
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=20, help="steps in a turn")
    parser.add_argument("--size", type=int, nargs=3, default=(256, 1024, 1000), metavar=("N", "D", "K"))
    parser.add_argument("--pairs", type=int, nargs=2, default=(4096, 128), metavar=("N", "D"), help="for memory")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    CLOCK = time.process_time if args.cpu_time else time.perf_counter
    keep_freed_memory()
    torch.manual_seed(0)
    device, (n, d, k), (pairs_n, pairs_d) = torch.device(args.device), args.size, args.pairs
    logits, features = 3 * torch.randn(n, k, device=device), torch.randn(n, d, device=device)
    batch = Batch(features, torch.randint(k, (n,), device=device), torch.arange(n, device=device))
    counts = counts_of(k)
    frame = ETFHead(d, k).to(device)
    leaf = logits.clone().requires_grad_()

    def cross_entropy() -> None:
        leaf.grad = None
        torch.nn.functional.cross_entropy(leaf, batch.labels).backward()

    def torch_smoothed() -> None:
        leaf.grad = None
        torch.nn.functional.cross_entropy(leaf, batch.labels, label_smoothing=0.1).backward()

    works: dict[str, Callable[[], object]] = {
        "torch cross_entropy": cross_entropy,
        "torch cross_entropy, smoothed": torch_smoothed,
    }
    works |= {name: step_on_logits(build(counts).to(device), logits, batch) for name, build in OF_LOGITS}
    of_features = {name: build(counts) for name, build in OF_FEATURES} | {name: new(d, k) for name, new in OF_CENTERS}
    works |= {name: step_on_features(loss.to(device), frame, features, batch) for name, loss in of_features.items()}
    timings = timed(works, cross_entropy, device, args.turns, args.repeats)
    where = (
        torch.cuda.get_device_name()
        if device.type == "cuda"
        else f"{args.threads} CPU threads" + ", processor time" * args.cpu_time
    )
    print(f"forward + backward, N, D, K = {n}, {d}, {k}; {where}, torch {torch.__version__}, {args.turns} turns")
    for name, timing in timings.items():
        print(f"{name:<34}{timing.milliseconds:9.3f} ms   {timing.ratio:5.2f}")

    labels = torch.arange(pairs_n, device=device) % 10
    pair_head = ETFHead(pairs_d, 10).to(device)
    points = torch.randn(pairs_n, pairs_d, device=device)
    pair_works = {}
    memory = {}
    print(f"largest memory of a step beyond its input, N, D = {pairs_n}, {pairs_d}, in N^2 floats")
    for name, build in OF_PAIRS:
        loss = build(counts_of(10)).to(device)
        half = slice(pairs_n // loss.views)  # two views of half the images make N rows
        rows = Batch(*(labels[half] for _ in range(3)))
        work = step_on_features(loss, pair_head, points[half], rows)
        memory[name] = peak_floats(work, device) / pairs_n**2
        pair_works[name] = work
        print(f"{name:<34}{memory[name]:9.2f}")

    works |= pair_works
    waiting = None
    if device.type == "cuda":
        waiting = [name for name, work in works.items() if waits(work)]
        print(f"host waits for the GPU in: {', '.join(waiting) or 'none'} of {len(works)}")
    if args.json is not None:
        figures = {
            "size": [n, d, k],
            "pairs": [pairs_n, pairs_d],
            "device": where,
            "machine": platform.machine(),
            "torch": torch.__version__,
            "turns": args.turns,
            "milliseconds": {name: timing.milliseconds for name, timing in timings.items()},
            "ratio": {name: timing.ratio for name, timing in timings.items()},
            "peak_in_squares": memory,
            "waits": waiting,
        }
        args.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
