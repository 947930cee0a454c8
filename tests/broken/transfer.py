"""Mutants of probes, imprint, rankings, coarse labels and fine-tuning."""

PROBES, COARSE = "tests/test_transfer_probes.py", "tests/test_transfer_coarse.py"
TUNING = "tests/test_transfer_fine_tuning.py"
LAYERS = f"{TUNING} -k 'looked_at_as or tokens or write_into or not_there'"
METHODS = (
    f"{TUNING} -k 'starts_from or not_seen or moves_nothing or skip_connection or widens or eval_mode or least_nc1'"
)
LOOP = f"{TUNING} -k 'rate or look_at_the_hold_out or dropout'"
RUNS = (
    "tests/test_transfer_runs.py -k "
    "'without_a_transfer or part_of or recorded or must_be or ranking or shows or named or held_out or never'"
)

BROKEN: dict[tuple[str, str], list[tuple[str, str]]] = {
    ("metrics/logistic.py", PROBES): [
        ("decay = 1 / (strength * len(x))", "decay = 1 / strength"),
        ("decay / 2 * weight", "decay * weight"),
        ("error[rows, labels] -= 1", "error[rows, labels] += 1"),
        ("torch.addmm(decay * weight, error.T, x)", "error.T @ x"),
        ("weight = now[:, :-1]", "weight = now[:, :-1] * 0.5"),
    ],
    ("metrics/ridge.py", PROBES): [
        ("torch.float64, device=x.device) * count", "torch.float64, device=x.device)"),
        ("(1 - 1 / count - along", "(1 - along"),
        ("residual / left[:, None]", "residual * left[:, None]"),
        ("best = found.index(min(found))", "best = found.index(max(found))"),
        ("level - weight @ middle", "level + weight @ middle"),
        ("filters = filters * values if wide", "filters = filters if wide"),
        ("x, y = x - middle, y - level", "x, y = x - middle, y"),
    ],
    ("metrics/probe.py", PROBES): [
        ("bias - weight @ middle", "bias + weight @ middle"),
        ("weight = weight * scale", "weight = weight"),
        ("torch.where(spread > 0, 1 / spread, 0.0)", "1 / spread"),
        ("return self.classes[scores.argmax(1)]", "return scores.argmax(1)"),
    ],
    ("metrics/transfer.py", PROBES): [
        ("taken = weight > 0", "taken = weight >= 0"),
        ("x[rows[taken]], y[rows[taken]], number", "x[rows[taken]].abs(), y[rows[taken]], number"),
    ],
    ("metrics/transfer.py", "tests/test_metrics_transfer.py"): [
        ("clamp(max=shots)[:, None]", "clamp(max=shots + 1)[:, None]"),
    ],
    ("metrics/ranking.py", PROBES): [
        ("row.collapse.get(by, math.inf))", "-row.collapse.get(by, math.inf))"),
        ("if len(pairs) < 3", "if len(pairs) < 2"),
        ("if math.isfinite(a) and math.isfinite(b)]", "]"),
        ("stats.kendalltau(a, b)", "stats.kendalltau(a, b, variant='c')"),
        ("stats.spearmanr(a, b)", "stats.pearsonr(a, b)"),
    ],
    ("metrics/checks.py", PROBES): [
        ("if len(known) < 2:", "if len(known) < 1:"),
        ('_check_finite("training", bank)', "pass"),
    ],
    ("data/coarse.py", COARSE): [
        ("if not 2 <= len(groups) < len(classes)", "if not 2 <= len(groups) <= len(classes)"),
        ("if not 2 <= len(groups)", "if not 1 <= len(groups)"),
        ("torch.tensor(group_of)[images.labels]", "images.labels % len(groups)"),
        ("!= group:", "== group + group:"),
    ],
    ("data/sources.py", COARSE): [
        ("return replace(pair, train=train, test=test), pair", "return pair, replace(pair, train=train, test=test)"),
    ],
    ("transfer/layers.py", LAYERS): [
        ("first.clone() if first.ndim == 2", "first if first.ndim == 2"),
        ("(2, 3) if first.ndim == 4 else 1", "(2, 3) if first.ndim == 4 else 2"),
        ("handle.remove()", "pass"),
        ("if missing := [name for name in layers if name not in seen]:", "if missing := []:"),
    ],
    ("transfer/methods.py", METHODS): [
        ("F.pad(features, (0, width - features.shape[1])) + F", "F.pad(features, (0, width - features.shape[1])) - F"),
        ("        super().train(False)\n", "        super().train(mode)\n"),
        ("self.backbone = backbone.requires_grad_(False)", "self.backbone = backbone"),
        ("head.bias.fill_(float(probe.bias.min()))", "head.bias.fill_(float(probe.bias.max()) + 1)"),
        ("target.plain_batches(samples), ())", "target.plain_batches(torch.arange(len(target.labels))), ())"),
        (").rows[0].name", ").rows[-1].name"),
        ("return Classifier(copy.deepcopy(backbone).requires_grad_(), head)\n\n\n@dataclass(frozen=True)\nclass Probe",
         "return Classifier(backbone.requires_grad_(), head)\n\n\n@dataclass(frozen=True)\nclass Probe"),
    ],
    ("transfer/fine_tuning.py", LOOP): [
        ("how, rate, kept, seed, stop)", "how, rate, torch.arange(len(target.labels)), seed, stop)"),
        ("_accuracy(model, target.plain_batches(held), how)", "_accuracy(model, target.test_batches(), how)"),
        ("(-(scores[rate] or 0.0), rate)", "((scores[rate] or 0.0), rate)"),
        ("torch.arange(len(target.labels)), seed, stop)", "kept, seed, stop)"),
        ("torch.manual_seed(seed)  # dropout", "pass"),
        ("except NonFiniteLossError:", "except OSError:"),
        ("rates[-1] ** 2 / rates[-2]", "rates[-1] * rates[-2]"),
        ("rates[0] ** 2 / rates[1]", "rates[1] ** 2 / rates[0]"),
    ],
    ("experiment/transfer.py", RUNS): [
        ('rules.primary.startswith("transfer/")', "False"),
        ("outcomes = {name: ridge_probe(seen[name]", "outcomes = {name: ridge_probe(-seen[name]"),
    ],
    ("experiment/execute.py", RUNS): [
        ("[encode(rules.fine_tuning)]", "[]"),
        ('["rank_layers"] if rules.rank_layers', '[] if rules.rank_layers'),
    ],
    ("experiment/ranking.py", RUNS): [
        ('pair[1].collapse.get("nc1_pinv", float("inf"))', '-pair[1].collapse.get("nc1_pinv", float("inf"))'),
    ],
}  # fmt: skip
