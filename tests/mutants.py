"""Break one sign, factor or bound at a time and see whether a test notices.

    python tests/mutants.py                    all of them, some twenty minutes on one core
    python tests/mutants.py --only geometry    those whose file or text holds the word

Each mutant is applied to a copy of the tree. Ends with 1 if one survives, if its text is not found exactly once, or if
its tests fail (or do not run) without it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("nc_tools", "tests", "recipes", "pyproject.toml")
SECONDS = 180  # a mutant that makes a loop endless is noticed too


class Mutant(NamedTuple):
    """One change of one file under nc_tools, and the pytest arguments that must turn red."""

    file: str
    old: str
    new: str
    tests: str


GEOMETRY, HEADS, LOSSES = "tests/test_geometry.py", "tests/test_heads.py", "tests/test_losses.py"
ACCURACY, CALIBRATION = "tests/test_metrics_accuracy.py", "tests/test_metrics_calibration.py"
COLLAPSE, TRANSFER = "tests/test_metrics_collapse.py", "tests/test_metrics_transfer.py"
MOMENTS = "tests/test_moments.py -k 'not processes'"
COLLAPSE_MOMENTS = f"{COLLAPSE} {MOMENTS}"
SCHEDULE, IMBALANCE = "tests/test_schedule.py", "tests/test_data_imbalance.py"
STATISTICS, VARIANCE = "tests/test_compare_statistics.py", "tests/test_compare_variance.py"
SWAP, MODELS = "tests/test_swap.py -k 'not torchvision and not own'", "tests/test_models.py -k cifar"

# What is broken, by file under nc_tools and the tests that must notice.
BROKEN: dict[tuple[str, str], list[tuple[str, str]]] = {
    ("geometry/rotation.py", GEOMETRY): [
        ("torch.randn(", "torch.rand("),
        ("q * sign", "q"),
        ("1 <= columns <= dim", "1 <= columns <= dim + 1"),
    ],
    ("geometry/simplex.py", GEOMETRY): [
        ("order * (order + 1)", "order * order"),
        ("- order * (row == order)", "+ order * (row == order)"),
        ("(row < order)", "(row <= order)"),
        ("num_classes / (num_classes - 1))", "(num_classes - 1) / num_classes)"),
        ("if feature_dim < num_classes - 1", "if feature_dim < num_classes"),
    ],
    ("heads/base.py", HEADS): [
        ("logits + self.bias", "logits - self.bias"),
        ("self.scale * nn.functional", "nn.functional"),
        ("weight.shape[1] ** -0.5", "weight.shape[0] ** -0.5"),
        ("self.weight.dtype), torch.float32)", "self.weight.dtype), features.dtype)"),
    ],
    ("heads/unit.py", HEADS): [
        ("square, torch.ones_like(square)).rsqrt()", "square, square).rsqrt()"),
        ("norm, torch.ones_like(norm)).reciprocal()", "norm, norm).reciprocal()"),
        ("along * (dot * inverse).unsqueeze(-1), value=-1)", "along * (dot * inverse).unsqueeze(-1), value=1)"),
        ("to_other = x * along", "to_other = x * grad.unsqueeze(-1)"),
    ],
    ("records.py", HEADS): [
        ("torch.autocast(device_type, enabled=False)", "torch.autocast(device_type)"),
    ],
    ("heads/fixed.py", HEADS): [
        ("unit(projected) if self.normalise else projected", "projected"),
        ("return unit(torch.randn", "return 1 * (torch.randn"),
        ("(w.shape[0] * v - v.sum())", "(w.shape[0] * v + v.sum())"),
        ("v.sum()) / (w.shape[0] - 1)", "v.sum()) / w.shape[0]"),
        ("dim=1) - 1).abs()", "dim=1) - 2).abs()"),
        ("if not error < 1e-2", "if not error < 1e2"),
        ('stream(frame_seed, "frame")', 'stream(0, "frame")'),
    ],
    ("heads/linear.py", HEADS): [
        ("return unit(self.direction)", "return self.direction"),
        ("return unit(features)", "return features"),
        ("self.weight.to(embedded.dtype), bias)", "self.weight.to(embedded.dtype))"),
    ],
    ("heads/scale.py", HEADS): [
        ("(num_classes - 1) * confidence / (1 - confidence)", "confidence / (1 - confidence)"),
        ("(num_classes - 1) / num_classes * math", "num_classes / (num_classes - 1) * math"),
        ("value + math.log(-math.expm1(-value))", "value"),
        ("nn.functional.softplus(self.raw)", "self.raw"),
    ],
    ("heads/trace.py", SWAP): [
        ("and _version(self.output) == self.version", ""),
        ("module.training = training", "pass"),
        ("torch.random.fork_rng(devices)", "torch.random.fork_rng(devices, enabled=False)"),
    ],
    ("heads/swap.py", SWAP): [
        ("_replace(model, new, old.module)", "pass"),
        (".train(old.module.training)", ""),
    ],
    ("models/resnet.py", MODELS): [
        ("(depth - 2) // 6", "(depth - 2) // 6 + 1"),
        ("torch.relu(self.body(x) + short)", "torch.relu(self.body(x) - short)"),
        ("half = self.added // 2", "half = 0"),
    ],
    ("losses/cross_entropy.py", LOSSES): [
        ("label_smoothing=self.label_smoothing)", "label_smoothing=0.0)"),
    ],
    ("losses/dot_regression.py", LOSSES): [
        ("(own_score - target)", "(own_score + target)"),
        ("/ (2 * target)", "/ target"),
        ("weight_norm * feature_norm\n", "weight_norm + feature_norm - 1\n"),
    ],
    ("losses/logit_adjusted.py", LOSSES): [
        ("(counts / counts.sum())", "(counts / counts.max())"),
        ("shift = tau *", "shift = -tau *"),
        ('"shift", tau * log_prior', '"shift", log_prior'),
        ("outputs.logits) + self.shift", "outputs.logits) - self.shift"),
        ("- tau * log_prior", "+ tau * log_prior"),
    ],
    ("metrics/accuracy.py", ACCURACY): [
        ("2 * right / (tested + predicted)", "right / (tested + predicted)"),
        ("recall[present].min()", "recall.min()"),
        ("f1[present].mean()", "f1.mean()"),
        ("torch.stack(list(groups.values())) & present", "torch.stack(list(groups.values()))"),
        ("train_counts > MANY_ABOVE, train", "train_counts >= MANY_ABOVE, train"),
        ("train_counts < FEW_BELOW\n", "train_counts <= FEW_BELOW\n"),
        ("-(-2 * number // 3)", "2 * number // 3"),
        ("descending=True", "descending=False"),
    ],
    ("metrics/collapse.py", COLLAPSE): [
        ("rows.sum(dim=0).square().mean()", "rows.sum(dim=0).square().sum()"),
        ("(share @ variances) /", "variances.mean() /"),
        ("variances.mean() / frame", "variances.sum() / frame"),
        ("frame.centred - share @ frame.centred", "frame.centred"),
    ],
    ("metrics/collapse.py", COLLAPSE_MOMENTS): [
        ("half).sum() / len(index)", "half).sum()"),
    ],
    ("metrics/means.py", COLLAPSE): [
        ("rank = min(num_classes - 1, feature_dim)", "rank = min(num_classes - 2, feature_dim)"),
        ("basis) * inverse.square()", "basis) * inverse"),
        ("else basis * inverse\n", "else basis\n"),
        (".add_(1 / (number - 1)).abs_()", ".add_(-1 / (number - 1)).abs_()"),
        ("cosine[own] = 0", "pass"),
        ("squares - 2 * gram", "squares - gram"),
        ("(2 * distances.clamp_(min=0))", "distances.clamp_(min=0)"),
        ("1 / (number * (number - 1) ** 0.5)", "1 / (number * (number - 1))"),
        ("-= 1 / (number - 1) ** 0.5", "-= 1 / number**0.5"),
        ("pairs = number * (number - 1)", "pairs = number * number"),
        ("norms.std(correction=0)", "norms.std(correction=1)"),
        ("/ norms).mean()", "/ norms).sum()"),
        ("linalg.matrix_norm(rows) - centred", "linalg.matrix_norm(rows) + centred"),
        ("means - means.mean(dim=0)", "means"),
    ],
    ("metrics/within.py", COLLAPSE): [
        ("by_class[0] / frame.counts", "by_class[0] / (frame.counts - 1)"),
        ("(by_class[1] / frame.counts).mean()", "(by_class[1] / frame.counts).sum()"),
        ("square().mean() / len(means)", "square().mean()"),
        ("gram - gram.diagonal() / 2", "gram - gram.diagonal()"),
        ("logits + head.bias", "logits - head.bias"),
        ("frame.singular.square()", "frame.singular"),
    ],
    ("metrics/reliability.py", CALIBRATION): [
        ("-log_p.gather", "log_p.gather"),
        ("dtype=torch.float64) / len(error)", "dtype=torch.float64) / error.numel()"),
        ("torch.full_like(p[:, :1], -1.0)", "torch.full_like(p[:, :1], 1.0)"),
        ("torch.bucketize(confidence, edges)", "torch.bucketize(confidence, edges, right=True)"),
        ("(sums[1] - sums[2]).abs()", "(sums[1] + sums[2]).abs()"),
        ("rank * num_bins // len(ordered)", "(rank + 1) * num_bins // (len(ordered) + 1)"),
        ("(num_bins + 1)]", "(num_bins)]"),
    ],
    ("metrics/temperature.py", CALIBRATION): [
        ("1 - 1 / (len(z) + 2)", "1 - 1 / (len(z) + 1)"),
        ("* z).sum(dim=1).mean() - own)", "* z).sum(dim=1).mean() + own)"),
        ("math.exp(best) * spread", "math.exp(best)"),
    ],
    ("metrics/transfer.py", TRANSFER): [
        ("centres.square().sum(dim=1) / 2", "centres.square().sum(dim=1)"),
        ("(nearest - nearest[:, :1]) / temperature", "(nearest[:, :1] - nearest) / temperature"),
        ("len(values) - 1, 0.975", "len(values) - 1, 0.95"),
        ("/ math.sqrt(len(values))", "/ len(values)"),
        ("slots < counts[:, None]", "slots <= counts[:, None]"),
    ],
    ("moments.py", MOMENTS): [
        ("batch_mean - self._means[classes]", "batch_mean + self._means[classes]"),
        ("count * (shift * step)", "(shift * step)"),
        ("index_add_(0, classes, -drift)", "index_add_(0, classes, drift)"),
        ("torch.sub(before, after, out=after)", "torch.add(before, after, out=after)"),
        ("self._squares + (number * shift.square())", "self._squares - (number * shift.square())"),
        ("number / self._expected", "self._expected / number"),
        ("/ self._counts.clamp(min=1)", "/ (self._counts - 1).clamp(min=1)"),
        ("self._symmetric(0) / self.counts.sum()", "self._symmetric(0) / (self.counts.sum() - 1)"),
        ("self._symmetric(1) / max(len(present), 1)", "self._symmetric(1) / self.num_classes"),
    ],
    ("class_sums.py", MOMENTS): [
        ("prepend=ordered[:1]) != 0", "prepend=ordered[:1]) == 0"),
    ],
    ("training/schedule.py", SCHEDULE): [
        ("(step + 1) / warmup", "step / warmup"),
        ("0.5 * (1 + math", "0.5 * (1 - math"),
        ("(step - warmup) / (total - warmup)", "(step - warmup) / total"),
        ("step >= round", "step > round"),
        ("if step < warmup", "if step <= warmup"),
        ("0 <= step < total", "0 <= step <= total"),
    ],
    ("data/imbalance.py", IMBALANCE): [
        ("ratio = 1 / factor", "ratio = factor"),
        ("max(1, num_classes - 1)", "num_classes"),
        ("k < num_classes // 2", "k <= num_classes // 2"),
        ("math.ceil((n + 1) / s) - 1", "math.ceil(n / s) - 1"),
        ("RandomState(0)", "RandomState(1)"),
        ("rank < kept[labels[order]]", "rank <= kept[labels[order]]"),
        ("(counts - 1).clamp(min=0)", "counts.clamp(min=0)"),
        (".long().clamp(min=1)", ".long()"),
        ("order[~held].sort()", "order[held].sort()"),
        ("torch.randperm(len(labels), generator=generator)", "torch.arange(len(labels))"),
    ],
    ("compare/statistics.py", STATISTICS): [
        ("each = both[0] - both[1]", "each = both[1] - both[0]"),
        ("std(ddof=1)", "std(ddof=0)"),
        ("sd / math.sqrt(n)\n    reach", "sd / n\n    reach"),
        ("0.5 + confidence / 2", "confidence"),
        ("float(2 * stdtr(", "float(1 * stdtr("),
        ("(m - rank) * p_values", "(m - rank + 1) * p_values"),
        ("max(largest, min(1.0,", "max(0.0, min(1.0,"),
        ("n - 1, 1 - alpha / 2", "n - 1, 1 - alpha"),
        ("+ (0.0 if math.isnan(lower) else lower)", ""),
        ("return high * sd / math.sqrt(n)", "return high * sd"),
        ("abs(difference) * math.sqrt(n) / sd", "abs(difference) * n / sd"),
        (">= observed - 1e-12", "> observed + 1e-12"),
        ("if n < 6 or", "if n < 5 or"),
        ("2 * float(bdtr(min", "float(bdtr(min"),
        ("bdtr(min(only_reference, only_arm)", "bdtr(max(only_reference, only_arm)"),
    ],
    ("compare/variance.py", VARIANCE): [
        ("- by_draw[None, :] + mean", "- by_draw[None, :] - mean"),
        ("(num_seeds - 1) * (num_draws - 1)", "num_seeds * num_draws"),
        ("rest / num_draws", "rest / num_seeds"),
        ("rest / num_seeds", "rest / num_draws"),
        ("by_seed.var(ddof=1)", "by_seed.var(ddof=0)"),
        ("self.draw / self.num_draws", "self.draw / self.num_seeds"),
        ("component / self.total", "component"),
    ],
}
MUTANTS = [Mutant(file, old, new, tests) for (file, tests), pairs in BROKEN.items() for old, new in pairs]


def run_tests(tree: Path, tests: str) -> int | None:
    """Return pytest's exit status in a copy of the tree, None where it did not come to an end."""
    command = f"{sys.executable} -m pytest -x -q --no-header -p no:cacheprovider --hypothesis-seed=0 {tests}"
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, shell=True, cwd=tree, env=environment, capture_output=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return None
    return done.returncode


def verdict(tree: Path, mutant: Mutant) -> str:
    """Apply a mutant, run its tests and take it back."""
    file = tree / "nc_tools" / mutant.file
    before = file.read_text(encoding="utf-8")
    if (found := before.count(mutant.old)) != 1:
        return f"BROKEN: the text is there {found} times"
    file.write_text(before.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        status = run_tests(tree, mutant.tests)
    finally:
        file.write_text(before, encoding="utf-8")
    if status == 0:
        return "SURVIVED"
    return "killed" if status in (1, None) else f"BROKEN: pytest ended with {status}"


def main() -> int:
    """Run the chosen mutants; return 0 if all were killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORD", help="those whose file or text holds this")
    only = parser.parse_args().only
    chosen = [mutant for mutant in MUTANTS if any(only in text for text in mutant[:3])]
    alive = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif (ROOT / name).exists():
                shutil.copy2(ROOT / name, tree / name)
        for tests in dict.fromkeys(mutant.tests for mutant in chosen):
            if (status := run_tests(tree, tests)) != 0:
                print(f"without a mutant pytest ends with {status}: {tests}")
                return 1
        for mutant in chosen:
            start = time.monotonic()
            said = verdict(tree, mutant)
            alive += said != "killed"
            change = f"{' '.join(mutant.old.split())}  ->  {' '.join(mutant.new.split())}"
            print(f"{said:9} {time.monotonic() - start:5.1f} s  {mutant.file}: {change}", flush=True)
    print(f"{len(chosen) - alive} of {len(chosen)} killed")
    return 1 if alive or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
