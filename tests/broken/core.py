"""Mutants of geometry, heads, losses, measures, schedule, imbalance and statistics."""

GEOMETRY, HEADS, LOSSES = "tests/test_geometry.py", "tests/test_heads.py", "tests/test_losses.py"
ACCURACY, CALIBRATION = "tests/test_metrics_accuracy.py", "tests/test_metrics_calibration.py"
COLLAPSE, TRANSFER = "tests/test_metrics_collapse.py", "tests/test_metrics_transfer.py"
MOMENTS = "tests/test_moments.py -k 'not processes'"
COLLAPSE_MOMENTS = f"{COLLAPSE} {MOMENTS}"
SCHEDULE, IMBALANCE = "tests/test_schedule.py", "tests/test_data_imbalance.py"
STATISTICS, VARIANCE = "tests/test_compare_statistics.py", "tests/test_compare_variance.py"
SWAP, MODELS = "tests/test_swap.py -k 'not torchvision and not own'", "tests/test_models.py -k cifar"

BROKEN: dict[tuple[str, str], list[tuple[str, str]]] = {
    ("heads/base.py", HEADS): [
        ("logits + self.bias", "logits - self.bias"),
        ("self.scale * nn.functional", "nn.functional"),
        ("weight.shape[1] ** -0.5", "weight.shape[0] ** -0.5"),
        ("self.weight.dtype), torch.float32)", "self.weight.dtype), features.dtype)"),
    ],
    ("heads/unit.py", HEADS): [
        ("along * (dot * inverse).unsqueeze(-1), value=-1)", "along * (dot * inverse).unsqueeze(-1), value=1)"),
        ("unsqueeze(-1), value=-1)\n        return across", "unsqueeze(-1), value=1)\n        return across"),
        ("return across.div_(norm)", "return across"),
        ("            norm = _norm(x)", "            pass"),
        ("masked_fill(norm <= torch", "masked_fill(norm < 0 * torch"),
        ("to_other = x * along", "to_other = x * grad.unsqueeze(-1)"),
    ],
    ("records.py", HEADS): [
        ("torch.autocast(device_type, enabled=False)", "torch.autocast(device_type)"),
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
        ("__init__(shift=tau * log_prior", "__init__(shift=log_prior"),
        ("- tau * prior", "+ tau * prior"),
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
        ("square().sum(dim=1) / 2", "square().sum(dim=1)"),
        ("logits + self._bias", "logits - self._bias"),
        ("self._centred.T - self._half", "self._centred.T"),
        ("self._means[y] @ self._weight.T", "self._centred[y] @ self._weight.T"),
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
