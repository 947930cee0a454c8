"""Mutants of out-of-distribution scores, of what separates two sets, and of the sets themselves."""

SCORES = "tests/test_ood_scores.py tests/test_ood_scores_contract.py"
SEPARATION = "tests/test_ood_separation.py"
SETS = "tests/test_ood_runs.py -k 'not final and not fitted_on'"
RUNS = "tests/test_ood_runs.py -k 'final or fitted_on or large or affine'"
EXPOSURE = "tests/test_losses_control.py -k outlier_exposure"
TRAINED_SETS, TRAINED_BATCHES = "tests/test_outliers.py", "tests/test_outliers_batches.py"
TRAINED_RUNS = "tests/test_outliers_runs.py -k 'stopped or record or told or output'"

BROKEN: dict[tuple[str, str], list[tuple[str, str]]] = {
    ("ood/of_logits.py", SCORES): [
        ("return -_others(logits)", "return _others(logits)"),
        ("logits.amax(dim=1)", "logits.amin(dim=1)"),
        ("self.temperature * torch.logsumexp(", "torch.logsumexp("),
        ("logits / self.temperature, dim=1", "logits, dim=1"),
        ("torch.log1p(-log_p[:, 1:].exp())", "torch.log1p(log_p[:, 1:].exp())"),
        ("first = _others(logits) + log_p[:, 0]", "first = _others(logits)"),
        ("return -(self.gamma *", "return (self.gamma *"),
        ("min(self.largest, logits.shape[1])", "logits.shape[1]"),
        ("scatter(1, place, -torch.inf)", "scatter(1, place, 0.0)"),
        ("(logits - largest).scatter", "logits.scatter"),
    ],
    ("ood/knn.py", SCORES): [
        ("self._unit = F.normalize(bank.features, dim=1)", "self._unit = bank.features"),
        ("cosine = F.normalize(features, dim=1)", "cosine = features"),
        (".amin(dim=1)", ".amax(dim=1)"),
        ("return -(2 - 2 * kth)", "return (2 - 2 * kth)"),
        ("(2 - 2 * kth)", "(2 - kth)"),
        ("min(self.k, len(self._unit))", "min(self.k, len(self._unit) - 1)"),
    ],
    ("ood/whitening.py", SCORES): [
        ("values[kept].rsqrt()", "values[kept].sqrt()"),
        ("len(values) * torch.finfo(dtype).eps *", "0 *"),
        ("vectors.flip(1)", "vectors"),
    ],
    ("ood/bank.py", SCORES): [
        ("return self.within + between", "return self.within - between"),
        ("shifted = means - centre", "shifted = means"),
        ("(shifted * shares[:, None]).T @ shifted", "shifted.T @ shifted"),
        ("(self._moments.counts > 0)", "(self._moments.counts >= 0)"),
        ("return self.shares @ self.means", "return self.means.mean(0)"),
        ("(y < 0) | (y >= number)", "(y < 0) | (y > number)"),
    ],
    ("ood/mahalanobis.py", SCORES): [
        (
            "return -self._nearest.distances(features).amin(dim=1)",
            "return self._nearest.distances(features).amin(dim=1)",
        ),
        (
            "return -self._nearest.distances(features).amin(dim=1)",
            "return -self._nearest.distances(features).amax(dim=1)",
        ),
        ("self._whole.distances(features)[:, 0] - self", "-self._whole.distances(features)[:, 0] - self"),
        ("bank.mean[None], bank.total", "bank.mean[None], bank.within"),
        ("bank.means, bank.within, type", "bank.means, bank.total, type"),
        ("self._centres.T, alpha=-2)", "self._centres.T, alpha=-1)"),
        ("((centres - bank.mean) @ map_)", "(centres @ map_)"),
    ],
    ("ood/vim.py", SCORES): [
        ("origin = -torch.linalg.pinv", "origin = torch.linalg.pinv"),
        (".double(), rtol=rounding)", ".double())"),
        ("bank.total + torch.outer(shift, shift)", "bank.total"),
        ("vectors[:, dims:]", "vectors[:, :dims]"),
        ("float(largest / length)", "float(length / largest)"),
        ("dim=1) - self._scale", "dim=1) + self._scale"),
        ("((features - self._origin) @ self._residual", "(features @ self._residual"),
        ("else width // 2", "else width // 3"),
        ("or float(largest) <= 0", "or False"),
    ],
    ("ood/neco.py", SCORES): [
        ("number - 1 if", "number if"),
        ("bank.total / torch.outer(deviation, deviation)", "bank.total"),
        ("vectors[:, :dims]", "vectors[:, dims:]"),
        ("(features - self._mean) * self._inverse", "features * self._inverse"),
        ("/ length(x, self._floor)", "* length(x, self._floor)"),
        ("_SUM_ROUNDING * torch", "0 * torch"),
    ],
    ("ood/nci.py", SCORES): [
        ("centred = features - self._mean", "centred = features"),
        ("(own * centred).sum(dim=1) / length(centred, self._floor)", "(own * centred).sum(dim=1)"),
        ("near + self.alpha", "near - self.alpha"),
        ("features.abs().sum(dim=1)", "features.square().sum(dim=1)"),
        ("logits.argmax(dim=1)", "logits.argmin(dim=1)"),
    ],
    ("ood/fdbd.py", SCORES): [
        ("(largest - logits) *", "largest *"),
        ("/ (logits.shape[1] - 1)", "/ logits.shape[1]"),
        ("/ length(features - self._mean, self._floor)", "/ length(features, self._floor)"),
        ("- 2 * products", "- products"),
        (".rsqrt() * kept", ".rsqrt()"),
        (".eps * 16 * self", ".eps * 0 * self"),
    ],
    ("ood/grood.py", SCORES): [
        ("(bank.mean + others) / 2", "bank.mean + others"),
        ("indices[:, 1]", "indices[:, 0]"),
        ("logits = bank.logits[:, bank.present]", "logits = bank.logits[:, : len(bank.present)]"),
        ("F.softmax(-distances, dim=1)[:, -1:]", "F.softmax(-distances, dim=1)[:, :1]"),
        ("F.softmax(-distances", "F.softmax(-distances.square()"),
        ("share * F.normalize(x - self._outlier, dim=1)", "share * (x - self._outlier)"),
        ("beta=-1).argmax", "beta=1).argmax"),
        ("square().sum(dim=1) / 2", "square().sum(dim=1)"),
        ("return -distances", "return distances"),
        ("(bank.logits.argmax(dim=1) == bank.labels)", "(bank.labels >= 0)"),
    ],
    ("ood/base.py", SCORES): [
        ("return norms.clamp(min=floor)", "return norms"),
    ],
    ("ood/separation.py", SEPARATION): [
        ("(below + negatives / 2)", "below"),
        ("(below + negatives / 2)", "(below + negatives)"),
        ("negatives.cumsum(0) - negatives", "negatives.cumsum(0)"),
        ("math.ceil(0.95 * len(a) - 1e-9)", "math.floor(0.95 * len(a)) + 1"),
        ("math.ceil(0.95 * len(a) - 1e-9)", "math.ceil(0.9 * len(a) - 1e-9)"),
        ("negatives.flip(0).cumsum(0)[reached]", "negatives.flip(0)[reached]"),
        ("(found + misses.cumsum(0))", "(found + misses)"),
        ("_average_precision(negatives, positives)", "_average_precision(negatives.flip(0), positives.flip(0))"),
        ("over.var() / len(a) + under.var() / len(b)", "over.var() / len(b) + under.var() / len(a)"),
        ("/ (value * (1 - value))", "/ value"),
        ("0.5 + confidence / 2", "confidence"),
        ("/ (2 * len(others))", "/ len(others)"),
    ],
    ("ood/report.py", SEPARATION): [
        ("Bank.checked(train.embedded", "Bank.checked(train.features"),
        ("separation(inside, score", "separation(score"),
        ("inside = score.score(test.embedded", "inside = score.score(train.embedded"),
    ],
    ("losses/outlier_exposure.py", EXPOSURE): [
        ("z.logsumexp(1) - z.mean(1)", "z.logsumexp(1) + z.mean(1)"),
        ("z.logsumexp(1) - z.mean(1)", "z.logsumexp(1) - z.sum(1)"),
        ("z.logsumexp(1) - z.mean(1)", "z.logsumexp(1) - z.amax(1)"),
        ("outliers_of(self, outputs).logits", "outputs.logits"),
        (".mean()\n", ".sum()\n"),
    ],
    ("losses/composition.py", TRAINED_BATCHES): [
        ("any(part.needs_outliers", "all(part.needs_outliers"),
    ],
    ("data/outliers.py", TRAINED_BATCHES): [
        ("(batch.inputs + partners) / 2", "(batch.inputs - partners) / 2"),
        ("(batch.inputs + partners) / 2", "batch.inputs + partners"),
        ("self._batches.epoch(epoch, start):", "self._batches.epoch(epoch):"),
        ("(end + nth *", "(begin + nth *"),
        ("(len(labels) - own) // own", "(len(labels) - own)"),
        ("device=labels.device) - begin", "device=labels.device)"),
        ("order, order[chosen])", "order, chosen)"),
        ("scatter_(0, order, order[chosen])", "copy_(order[chosen])"),
        ("sort(stable=True)", "sort(stable=True, descending=True)"),
    ],
    ("data/exposure.py", TRAINED_SETS): [
        ('"train", config.outliers_exclude', '"test", config.outliers_exclude'),
        ('"train", config.outliers_exclude', '"train", config.ood_near_exclude'),
        ("if shared:", "if len(shared) > 1:"),
        ("outliers.paths[shared[0]]", "outliers.paths[0]"),
        ("if (key := row.tobytes()) in places", "if (key := row.tobytes())[:0] in places"),
        ("if len(images) == 0:", "if False:"),
    ],
    ("data/source_names.py", TRAINED_SETS): [
        ("source.folder.resolve() if", "source.folder if"),
        ("and places[0] == places[1]", ""),
        ("one.kind == other.kind and", ""),
        ("[SCRAMBLED, BLENDED], n=1", "[SCRAMBLED], n=1"),
    ],
    ("data/config.py", TRAINED_SETS): [
        ('"source", "transfer_data", "ood_near", "ood_far"', '"transfer_data", "ood_near", "ood_far"'),
        ('"source", "transfer_data", "ood_near", "ood_far"', '"source", "ood_near", "ood_far"'),
        ('"source", "transfer_data", "ood_near", "ood_far"', '"source", "transfer_data", "ood_far"'),
        ('"source", "transfer_data", "ood_near", "ood_far"', '"source", "transfer_data", "ood_near"'),
        ("self.outliers in (None, BLENDED)", "self.outliers is None"),
        ("self.outliers in (None, BLENDED)", "self.outliers == BLENDED"),
    ],
    ("data/sources.py", TRAINED_SETS): [
        ("measured.append(outliers)", "pass"),
        ('"training": pair.train,', ""),
        ('"test": pair.test,', ""),
        ("for name, s in ood.items()", "for name, s in {}.items()"),
        ('"transfer training": transfer.train,', ""),
        (', "transfer test": transfer.test', ""),
        ("+ left + lost", "+ left"),
    ],
    ("experiment/setup.py", TRAINED_BATCHES): [
        ("if not loss.needs_outliers:\n            return batches", "if False:\n            return batches"),
        ('stream_seed(self.seed, "outliers")', "self.seed"),
        ("augment=augment_for(self.config.data, outliers.shape[1]),", "augment=None,"),
    ],
    ("experiment/setup.py", TRAINED_RUNS): [
        ("if loss.needs_outliers and config.data.outliers is None:", "if False:"),
    ],
    ("experiment/execute.py", TRAINED_RUNS): [
        ("self.data.batches_for(loss, indices)", "self.data.training_batches(indices, loss.views)"),
        ("cls.needs_outliers for cls", "not cls.needs_outliers for cls"),
    ],
    ("experiment/run.py", TRAINED_RUNS): [
        ("check_outliers(variant, loss)", "pass"),
        ("if any(loss.needs_outliers for loss in losses)", "if losses"),
    ],
    ("spec.py", TRAINED_RUNS): [
        ("yield from inner.classes()", "yield inner.cls"),
    ],
    ("compare/checks.py", TRAINED_RUNS): [
        ("len(exposed) == len(cells)", "False"),
        ('if run.data.get("outliers")}', "}"),
    ],
    ("compare/outliers.py", TRAINED_RUNS): [
        ('if caution.kind == "outliers"', 'if caution.kind == "record"'),
    ],
    ("data/unknown.py", SETS): [
        ("name not in left_out for name", "name in left_out for name"),
        ("if (tree.root / tree.test.split).is_dir():", "if True:"),
        ("key.argsort(dim=1)[:, None]", "key[:1].argsort(dim=1)[:, None]"),
        ('split=f"{listing.split}-part"', "split=listing.split"),
        ("skipped += bad", "pass"),
        ("tuple(names[1:])", "tuple(names)"),
    ],
    ("data/sources.py", SETS): [
        ('ood["held_out"] = transfer.test', 'ood["held_out"] = transfer.train'),
        ("*ood.values()]", "]"),
    ],
    ("experiment/ood.py", RUNS): [
        ("randperm(len(images), generator", "randperm(MOST, generator"),
        ("unknown(model, train, test, collected", "unknown(model, test, train, collected"),
    ],
    ("evaluation.py", RUNS): [
        ("(scale[:, None] if scale.ndim == 1 else scale)", "scale"),
        ("if not head.affine:\n        return None, None", "if False:\n        return None, None"),
    ],
    ("compare/outliers.py", SETS): [
        ('parts[4] == "auroc"', 'parts[4] == "fpr95"'),
    ],
}
