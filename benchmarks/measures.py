"""Time and error of the collapse measures on 50,000 features, compared with the public ``neural_collapse`` package.

    python benchmarks/measures.py                         ours, the lower bound, and the error against float64
    python benchmarks/measures.py --peer PATH             also the package of rhubarbwu/neural-collapse in PATH
    python benchmarks/measures.py --threads 1 --cpu-time  on a machine that other programs use at the same time
    python benchmarks/measures.py --sizes --vocabulary    50,000 classes only, and the memory that they take

Both get the same float32 features, labels and head and return NC1, the trace ratio, CDNV, NC2, NC3 and NC4.
The classes are equally large, so all weightings agree. The lower bound ("floor") is the time of the matrix products
that our form needs, and nothing else: features (N, D) by the r = min(K - 1, D) whitened directions and the head
(D, r + K), and the result by (r, r + K) for the nearest class mean and the sample-pooled form. The reference is the
textbook form in float64, with the D x D covariance. Every time is the best of several runs, in turns. The streaming
figure is the time of ``ClassMoments`` over batches, which computes in float64, divided by that of a bare X^T X of the
same batches in float32 and in float64. The memory of the stream is the sum over its tensors, compared with three D x D,
one K x D and one batch of float64; the memory of 50,000 classes is the growth of the process.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from nc_tools.class_moments import ClassMoments
from nc_tools.metrics import (
    calibration,
    classification,
    fit_temperature,
    hyperspherical_uniformity,
    neural_collapse,
)

SAMPLES = 50_000
SIZES = ("512x10", "512x100", "512x500", "2048x100", "2048x1000")
STREAMS = ("512x1024", "512x4096", "2048x1024")
CLOCK = time.perf_counter
COMPARED = ("nc1_pinv", "nc1_trace", "cdnv", "nc2_gram", "nc4_disagreement")


def best_of(repeats: int, device: torch.device, *works: Callable[[], object]) -> list[float]:
    """Return the shortest time of each function; they run in turns, so that load on the machine affects all of them."""
    best = [float("inf")] * len(works)
    for _ in range(repeats):
        for i, work in enumerate(works):
            if device.type == "cuda":
                torch.cuda.synchronize()
            start = CLOCK()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            best[i] = min(best[i], CLOCK() - start)
    return best


def make_features(feature_dim: int, num_classes: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return ReLU features (N, D) around random means, equally many of each class, labels (N,), and a head (K, D)."""
    generator = torch.Generator().manual_seed(0)
    labels = (torch.arange(SAMPLES) % num_classes)[torch.randperm(SAMPLES, generator=generator)]
    means = torch.randn(num_classes, feature_dim, generator=generator)
    features = torch.randn(SAMPLES, feature_dim, generator=generator).mul_(2).add_(means[labels]).relu_()
    weight = (means + torch.randn(num_classes, feature_dim, generator=generator)) / feature_dim**0.5
    return features.to(device), labels.to(device), weight.to(device)


def reference(features: Tensor, labels: Tensor, weight: Tensor) -> dict[str, float]:
    """Return the measures by their definitions in float64, block by block, with the full covariances."""
    k, d = weight.shape
    blocks = list(zip(features.split(2048), labels.split(2048), strict=True))
    means, counts = torch.zeros(k, d, dtype=torch.float64), labels.cpu().bincount(minlength=k)
    for x, y in blocks:
        means.index_add_(0, y.cpu(), x.double().cpu())
    means /= counts[:, None]
    within, squares, differ = torch.zeros(d, d, dtype=torch.float64), torch.zeros(k, dtype=torch.float64), 0
    for block, own in blocks:
        x, y = block.double().cpu(), own.cpu()
        r = x - means[y]
        within += (r / counts[y, None]).T @ r / k
        squares.index_add_(0, y, r.square().sum(1))
        scores = x @ means.T - means.square().sum(1) / 2
        differ += int((scores.argmax(1) != (x @ weight.double().cpu().T).argmax(1)).sum())
    centered = means - means.mean(0)
    values, vectors = torch.linalg.eigh(centered.T @ centered / k)
    rank = min(k - 1, d)
    basis = vectors[:, -rank:]
    gram = centered @ centered.T
    frame = (torch.eye(k, dtype=torch.float64) - 1 / k) / (k - 1) ** 0.5
    variances = squares / counts
    distances = torch.cdist(centered, centered, compute_mode="donot_use_mm_for_euclid_dist").square()
    distances.fill_diagonal_(torch.inf)
    return {
        "nc1_pinv": float(((within @ basis) * basis / values[-rank:]).sum() / k),
        "nc1_trace": float(within.trace() / values.sum()),
        "cdnv": float(((variances[:, None] + variances) / 2 / distances).sum() / (k * (k - 1))),
        "nc2_gram": float((gram / gram.norm() - frame).norm()),
        "nc4_disagreement": differ / len(labels),
    }


def peer_measures(features: Tensor, labels: Tensor, weight: Tensor) -> dict[str, float]:
    """Return the same quantities by the peer's accumulators, with all samples as one batch (its fastest use)."""
    from neural_collapse import accumulate, measure

    size = (*weight.shape, features.device)
    means_of = accumulate.MeanAccumulator(*size)
    means_of.accumulate(features, labels)
    means, center = means_of.compute()
    within_of = accumulate.CovarAccumulator(*size, M=means)
    within_of.accumulate(features, labels, means)
    norms_of = accumulate.VarNormAccumulator(*size, M=means)
    norms_of.accumulate(features, labels, means)
    decisions = accumulate.DecAccumulator(*size, M=means, W=weight)
    decisions.accumulate(features, labels, weight, means)
    within = within_of.compute()
    # Without tiles, its K x K x D differences take 16 GB at K = 1000, D = 2048.
    tile = None if weight.numel() * len(weight) <= 1 << 28 else 64
    measure.self_duality_error(weight, means, center)
    return {
        "nc1_pinv": measure.covariance_ratio(within, means, center),
        "nc1_trace": measure.covariance_ratio(within, means, center, "quotient"),
        "cdnv": measure.variability_cdnv(norms_of.compute()[0], means, tile_size=tile),
        "nc2_gram": measure.simplex_etf_error(means, center),
        "nc4_disagreement": 1 - measure.clf_ncc_agreement(decisions),
    }


def worst_error(values: dict[str, float], expected: dict[str, float]) -> tuple[float, str]:
    errors = {
        key: abs(values[key] - expected[key]) / (1 if key == "nc4_disagreement" else abs(expected[key]))
        for key in COMPARED
    }
    key = max(errors, key=lambda name: errors[name])
    return errors[key], key


def one_size(feature_dim: int, num_classes: int, device: torch.device, repeats: int, *, peer: bool) -> dict:
    features, labels, weight = make_features(feature_dim, num_classes, device)
    rank = min(num_classes - 1, feature_dim)
    outer = torch.randn(feature_dim, rank + num_classes, device=device)
    inner = torch.randn(rank, rank + num_classes, device=device)
    product = torch.empty(SAMPLES, rank + num_classes, device=device)
    second = torch.empty_like(product)

    def products() -> None:
        torch.mm(features, outer, out=product)
        torch.mm(product[:, :rank], inner, out=second)

    expected = reference(features, labels, weight)
    values = neural_collapse(features, labels, weight)
    row = {"D": feature_dim, "K": num_classes}
    products()
    works: list[Callable[[], object]] = [products, lambda: neural_collapse(features, labels, weight)]
    works += [lambda: peer_measures(features, labels, weight)] if peer else []
    names = ("floor_s", "ours_s", "peer_s")
    row |= dict(zip(names, best_of(repeats, device, *works), strict=False))
    row["error"], row["error_in"] = worst_error(values, expected)
    if peer:
        theirs = peer_measures(features, labels, weight)
        row["peer_error"], row["peer_error_in"] = worst_error(theirs, expected)
    return row


def streaming(feature_dim: int, batch: int, device: torch.device, repeats: int) -> dict:
    features, labels, _ = make_features(feature_dim, 100, device)
    batches = list(zip(features.split(batch), labels.split(batch), strict=True))[:16]
    totals = [torch.zeros(feature_dim, feature_dim, device=device, dtype=t) for t in (torch.float32, torch.float64)]
    moments = ClassMoments(100, feature_dim, device)

    def bare(total: Tensor) -> None:
        for features, _ in batches:
            x = features.to(total.dtype)
            total.addmm_(x.T, x)

    def ours() -> None:
        for x, y in batches:
            moments.update(x, y)

    ours()
    row = {"D": feature_dim, "batch": batch, "memory": held_bytes(moments) / allowed_bytes(moments, batch)}
    seconds = best_of(repeats, device, *(partial(bare, total) for total in totals), ours)
    return row | dict(zip(("bare_float32_s", "bare_float64_s", "ours_s"), seconds, strict=True))


def held_bytes(moments: ClassMoments) -> int:
    """Return the bytes of all tensors that the moments hold."""
    parts = [part for part in vars(moments).values() if isinstance(part, Tensor)]
    return sum(part.numel() * part.element_size() for part in parts)


def allowed_bytes(moments: ClassMoments, batch: int) -> int:
    """Return the bytes of three D x D, one K x D and one batch of float64, and four counts per class."""
    d, k = moments.feature_dim, moments.num_classes
    return 8 * (3 * d * d + k * d + batch * d) + 4 * 8 * (k + 1)


def vocabulary(num_classes: int, feature_dim: int, samples: int) -> dict:
    """Return time and memory for 50,000 classes, where a K x K table alone would take 20 GB."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.cat([torch.arange(num_classes), torch.randint(0, num_classes, (samples,), generator=generator)])
    means = torch.randn(num_classes, feature_dim, generator=generator)
    features = torch.randn(len(labels), feature_dim, generator=generator).add_(means[labels])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = CLOCK()
    values = neural_collapse(features, labels, means)
    seconds = CLOCK() - start
    values |= hyperspherical_uniformity(means)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"K": num_classes, "D": feature_dim, "N": len(labels), "s": seconds, "grown_mb": grown / 1024,
            "nc4_disagreement": values["nc4_disagreement"], "gnc2": values["gnc2"]}  # fmt: skip


def small_evaluation() -> float:
    """Return the seconds for all measures of a small run: 350 training and 630 test samples, D = 64, K = 7."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(7, 64, generator=generator)
    sets = []
    for size in (350, 630):
        features = torch.randn(size, 64, generator=generator)
        sets.append((features, torch.randint(0, 7, (size,), generator=generator), features @ weight.T))
    (train, y, z), (test, yt, zt) = sets

    def work() -> None:
        temperature = fit_temperature(z, y)
        classification(zt, yt, [100, 60, 40, 25, 15, 10, 10])
        calibration(zt, yt)
        calibration(zt / temperature, yt)
        neural_collapse(train, y, weight, logits=z)
        neural_collapse(test, yt, weight, logits=zt)

    work()
    return best_of(20, torch.device("cpu"), work)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="folder that holds the package neural_collapse")
    parser.add_argument("--vocabulary", action="store_true", help="also 50,000 classes, some minutes")
    parser.add_argument("--sizes", nargs="*", default=SIZES, metavar="DxK")
    parser.add_argument("--streams", nargs="*", default=STREAMS, metavar="DxBATCH")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("--threads", type=int, help="CPU threads; by default what torch takes")
    parser.add_argument("--cpu-time", action="store_true", help="processor time; meaningful with --threads 1")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.cpu_time:
        global CLOCK
        CLOCK = time.process_time
    if options.peer is not None:
        if not (options.peer / "neural_collapse").is_dir():
            parser.error(f"--peer must be a folder that holds neural_collapse/, got {options.peer}")
        sys.path.insert(0, str(options.peer.resolve()))
    device = torch.device(options.device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"N = {SAMPLES:,}, {where}, torch {torch.__version__}")
    record: dict = {"hardware": where, "torch": torch.__version__, "python": platform.python_version()}
    record["sizes"], record["streaming"] = [], []
    for size in options.sizes:
        feature_dim, num_classes = map(int, size.split("x"))
        row = one_size(feature_dim, num_classes, device, options.repeats, peer=options.peer is not None)
        record["sizes"].append(row)
        text = f"D {feature_dim:5} K {num_classes:5}: {row['ours_s']:7.3f} s, "
        text += f"{row['ours_s'] / row['floor_s']:5.2f} x "
        text += f"floor {row['floor_s']:.3f} s, error {row['error']:.1e} ({row['error_in']})"
        if "peer_s" in row:
            text += f"; peer {row['peer_s']:7.3f} s, {row['peer_s'] / row['ours_s']:5.1f} times ours, "
            text += f"error {row['peer_error']:.1e} ({row['peer_error_in']})"
        print(text, flush=True)
    for stream in options.streams:
        feature_dim, batch = map(int, stream.split("x"))
        row = streaming(feature_dim, batch, device, options.repeats)
        record["streaming"].append(row)
        ratios = [row["ours_s"] / row[key] for key in ("bare_float64_s", "bare_float32_s")]
        text = f"streaming, D {feature_dim}, batches of {batch}: {ratios[0]:.2f} x a bare X^T X in float64, "
        print(f"{text}{ratios[1]:.2f} in float32, {row['memory']:.2f} of the memory allowed", flush=True)
    if options.vocabulary:
        record["vocabulary"] = row = vocabulary(50_000, 64, 50_000)
        print(f"K {row['K']:,}, D {row['D']}, N {row['N']:,}: {row['s']:.0f} s, {row['grown_mb']:.0f} MB more")
    record["small_s"] = small_evaluation()
    print(f"all measures of a small run (350 + 630 samples, D 64, K 7): {1e3 * record['small_s']:.1f} ms")
    if options.out is not None:
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
