"""Every score and measure beside the public toolkits, on the same samples, with a plain reference in float64.

    python benchmarks/peers.py --path DIR --path DIR        folders that hold toolkits; installed ones are found too

Toolkits that are not there are named and skipped. For out-of-distribution scores it prints, for three samples, the
AUROC and the rank correlation with the reference; for measures the value. "right" means that a value agrees with the
reference: AUROC within 1e-4 and ranks within 1e-4, measures within 1e-6 of the value (1e-5 for toolkits other than
scikit-learn, most of which compute in float32). Known reasons for a difference are printed below it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from peer_samples import SAMPLES, Sample, reference_scores
from peer_toolkits import MEASURES, SCORES
from scipy.stats import spearmanr
from torch import Tensor

from nc_tools import metrics, ood
from nc_tools.ood import separation

DIFFERENCES = {
    "ece_classwise": "torch-uncertainty averages over classes what it divides by the samples of each bin: see its code",
    "aurc": "torch-uncertainty integrates by trapezoids and divides by 1 - 1/N; ours is the mean of the N risks",
    "aupr_in": "OpenOOD integrates the curve by trapezoids, which is too optimistic; average precision is a sum",
    "aupr_out": "as aupr_in",
    "fpr95": "OpenOOD and torch-uncertainty take outliers as positives; ours takes inside samples, as the first papers",
    "ece_equal_mass": "bins of equal mass are cut between other samples",
    "msp": "toolkits compare the probability itself, which saturates at 1 in float32: ties change AUROC and ranks",
    "gen": "1 - p is computed from a float32 p by toolkits, 0 where p is nearly 1",
    "mahalanobis": "a covariance inverted in float32 leaves out directions with little variance",
    "rmds": "as mahalanobis, with other directions left out in the two terms",
    "vim": "class vectors that sum to zero: a pseudo-inverse that is not cut divides the bias by their rounding",
    "knn": "distances from products in float32 are rounding for samples as near as these",
    "joint_trace": "cleanlab takes the largest probability of all classes if several pass their threshold",
    "nc1_pinv": "see the docstring of neural_collapse for the cut of the pseudo-inverse",
}
COLLAPSE = ("nc1_pinv", "nc1_trace", "cdnv")


def our_scores(sample: Sample) -> dict[str, np.ndarray]:
    both = torch.cat([sample.inside, sample.outside])
    weight, bias = sample.head.weight.detach(), sample.head.bias.detach()
    logits, queries = sample.logits(sample.train), sample.logits(both)
    result = {}
    for cls in ood.SCORES:
        score = ood.ViM(dims=sample.train.shape[1] // 2) if cls is ood.ViM else cls()
        fitted = score.fit(sample.train, logits, sample.labels, weight, bias)
        result[score.name] = fitted.score_samples(both, queries).numpy()
    return result


def compare_scores(name: str, sample: Sample) -> None:
    print(f"\n{name}: N {len(sample.train)}, D {sample.train.shape[1]}, K {len(sample.head.weight)}, "
          f"{len(sample.inside)} inside, {len(sample.outside)} outside")  # fmt: skip
    reference, count = reference_scores(sample), len(sample.inside)
    columns = {"ours": our_scores(sample)}
    for toolkit, call in SCORES.items():
        try:
            columns[toolkit] = call(sample)
        except ModuleNotFoundError as error:
            print(f"  {toolkit} skipped: {error}")
    noted = set()
    for score, expected in reference.items():
        line = f"  {score:<12} reference {auroc(expected, count):.4f}"
        for toolkit, values in columns.items():
            if score not in values:
                continue
            own, rank = auroc(values[score], count), float(spearmanr(values[score], expected).statistic)
            right = abs(own - auroc(expected, count)) <= 1e-4 and rank >= 1 - 1e-4
            line += f"   {toolkit} {own:.4f}, ranks {rank:.4f} {'right' if right else 'WRONG'}"
            noted |= set() if right else {score}
        print(line)
    for score in sorted(noted & set(DIFFERENCES)):
        print(f"    {score}: {DIFFERENCES[score]}")


def auroc(scores: np.ndarray, inside: int) -> float:
    values = torch.from_numpy(np.nan_to_num(scores))
    return separation(values[:inside], values[inside:])["auroc"]


def predictions() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return overconfident logits (3000, 10), their labels, and inside (1000,) and outside (400,) scores with ties."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3000) % 10  # equally many of each class, because toolkits weight classes differently
    logits = 3 * torch.randn(3000, 10, generator=generator)
    logits[torch.arange(3000), labels] += 4
    inside, outside = (torch.randn(n, generator=generator).mul(8).round() / 8 for n in (1000, 400))
    return logits, labels, inside + 1, outside


def our_measures(z: Tensor, y: Tensor, inside: Tensor, outside: Tensor) -> dict[str, float]:
    shares, errors = metrics.classification(z, y, y.bincount(minlength=z.shape[1])), metrics.calibration(z, y)
    values = {key: shares[key] for key in ("accuracy", "balanced_accuracy", "macro_f1")}
    values |= {"nll": errors["nll"], "brier": errors["brier"], "ece": metrics.expected_calibration_error(z, y)}
    values["ece_equal_mass"] = metrics.equal_mass_calibration_error(z, y)
    values["ece_classwise"] = metrics.classwise_calibration_error(z, y)
    values["aurc"] = metrics.risk_coverage(z, y).aurc
    values["joint_trace"] = float(metrics.confident_joint(z, y).trace())
    values |= {key: value for key, value in metrics.neural_collapse(z, y).items() if key in COLLAPSE}
    return values | separation(inside, outside)


def reference_measures(z: Tensor, y: Tensor, inside: Tensor, outside: Tensor) -> dict[str, float]:
    """Return the same measures by loops over samples and bins in float64."""
    rows, labels, count = z.double().numpy(), y.tolist(), len(y)
    p = np.exp(rows - rows.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    guess, classes = rows.argmax(1).tolist(), range(rows.shape[1])
    right = [int(a == b) for a, b in zip(guess, labels, strict=True)]
    recall = [np.mean([r for r, label in zip(right, labels, strict=True) if label == k]) for k in classes]
    f1 = []
    for k in classes:
        hits = sum(a == b == k for a, b in zip(guess, labels, strict=True))
        f1.append(2 * hits / (guess.count(k) + labels.count(k)))
    sure = p.max(1)
    truth = np.eye(len(classes))[labels]
    by_width = [[i for i in range(count) if lower < sure[i] <= lower + 1 / 15] for lower in np.arange(15) / 15]
    by_mass = [part.tolist() for part in np.array_split(np.argsort(sure, kind="stable"), 15)]

    def gap(rows: list[int]) -> float:
        return float(abs(sum(right[i] - sure[i] for i in rows)) / count)

    classwise = 0.0
    for k in classes:
        for lower in np.arange(15) / 15:
            cell = [i for i in range(count) if lower < p[i, k] <= lower + 1 / 15]
            classwise += abs(sum(truth[i, k] - p[i, k] for i in cell)) / count / len(classes)
    order = np.argsort(-sure, kind="stable")
    wrong = np.cumsum([1 - right[i] for i in order]) / np.arange(1, count + 1)
    a, b = inside.double().numpy(), outside.double().numpy()
    threshold = np.sort(a)[::-1][int(np.ceil(0.95 * len(a))) - 1]
    return {
        "accuracy": float(np.mean(right)),
        "balanced_accuracy": float(np.mean(recall)),
        "macro_f1": float(np.mean(f1)),
        "nll": float(-np.log(p[range(count), labels]).mean()),
        "brier": float(((p - truth) ** 2).sum(1).mean()),
        "ece": sum(gap(rows) for rows in by_width),
        "ece_equal_mass": sum(gap(rows) for rows in by_mass),
        "ece_classwise": classwise,
        "aurc": float(wrong.mean()),
        "joint_trace": joint_trace(p, labels),
        **collapse(rows, y.numpy()),
        "auroc": float((a[:, None] > b).mean() + 0.5 * (a[:, None] == b).mean()),
        "aupr_in": average_precision(a, b),
        "aupr_out": average_precision(-b, -a),
        "fpr95": float((b >= threshold).mean()),
    }


def joint_trace(p: np.ndarray, labels: list[int]) -> float:
    """Return the estimated share of right labels by confident learning."""
    classes = range(p.shape[1])
    threshold = [np.mean([row[k] for row, label in zip(p, labels, strict=True) if label == k]) for k in classes]
    counts = np.zeros((len(classes), len(classes)))
    for row, label in zip(p, labels, strict=True):
        passing = [k for k in classes if row[k] >= threshold[k]]
        if passing:
            counts[max(passing, key=lambda k: row[k]), label] += 1
    share = np.bincount(labels, minlength=len(classes)) / len(labels)
    return float((counts.diagonal() / counts.sum(0) * share).sum())


def collapse(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Return NC1 and CDNV of features, with equal weight for every class."""
    means = np.stack([x[y == k].mean(0) for k in range(int(y.max()) + 1)])
    centered, residuals = means - means.mean(0), x - means[y]
    _, singular, right = np.linalg.svd(centered, full_matrices=False)
    along = (residuals @ right[:-1].T / singular[:-1]) ** 2
    of_class = [y == k for k in range(len(means))]
    variances = np.array([(residuals[rows] ** 2).sum(1).mean() for rows in of_class])
    pairs = [(i, j) for i in range(len(means)) for j in range(len(means)) if i != j]
    ratios = [(variances[i] + variances[j]) / 2 / ((means[i] - means[j]) ** 2).sum() for i, j in pairs]
    return {
        "nc1_pinv": float(np.mean([along[rows].sum(1).mean() for rows in of_class])),
        "nc1_trace": float(variances.mean() / (centered**2).sum(1).mean()),
        "cdnv": float(np.mean(ratios)),
    }


def average_precision(positive: np.ndarray, negative: np.ndarray) -> float:
    total = 0.0
    for value in np.unique(positive):
        hits, false = (positive >= value).sum(), (negative >= value).sum()
        total += (positive == value).sum() * hits / (hits + false)
    return float(total / len(positive))


def compare_measures() -> None:
    data = predictions()
    print(f"\nmeasures of {len(data[1])} predictions; separation of {len(data[2])} scores from {len(data[3])}")
    reference = reference_measures(*data)
    columns = {"ours": our_measures(*data)}
    for toolkit, call in MEASURES.items():
        try:
            columns[toolkit] = call(*data)
        except ModuleNotFoundError as error:
            print(f"  {toolkit} skipped: {error}")
    for measure, expected in reference.items():
        line, differs = f"  {measure:<18} reference {expected:.7f}", False
        for toolkit, values in columns.items():
            if measure in values:
                tolerance = 1e-6 if toolkit in ("ours", "scikit-learn") else 1e-5
                right = abs(values[measure] - expected) <= tolerance * max(abs(expected), 0.1)
                differs |= not right
                line += f"   {toolkit} {values[measure]:.7f} {'right' if right else 'other'}"
        print(line)
        if differs and measure in DIFFERENCES:
            print(f"    {DIFFERENCES[measure]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", type=Path, action="append", default=[], metavar="DIR", help="folder with toolkits")
    args = parser.parse_args()
    for path in args.path:
        if not path.is_dir():
            parser.error(f"--path must be a folder that holds toolkits, got {path}")
        sys.path.append(str(path.resolve()))
    warnings.filterwarnings("ignore")
    for name in ("torch", "pytorch-ood", "torch-uncertainty", "torchmetrics", "netcal", "cleanlab", "scikit-learn"):
        try:
            print(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            print(name, "has no version here")
    for name, make in SAMPLES.items():
        compare_scores(name, make())
    compare_measures()


if __name__ == "__main__":
    main()
