"""Mutants of the classification losses and of uniform accuracy."""

TESTS, UNIFORM = "tests/test_losses_classification.py", "tests/test_metrics_uniform_accuracy.py"

BROKEN: dict[tuple[str, str], list[tuple[str, str]]] = {
    ("losses/cross_entropy.py", TESTS): [
        ("label_smoothing=smoothing,", "label_smoothing=0.0,"),
        ("(1 - strength) * own", "own"),
        ("- strength / z.shape[1] * log_p", "+ strength / z.shape[1] * log_p"),
        ("strength / z.shape[1] * log_p", "strength / (z.shape[1] - 1) * log_p"),
        ('"concave": quarter.sin()', '"concave": quarter.cos()'),
        ("1 - quarter.cos()", "quarter.cos()"),
        ("(self.head - self.tail) * f", "(self.tail - self.head) * f"),
        ("torch.ones_like(counts))", "torch.zeros_like(counts))"),
        (".clamp(min=0) + 1)", ".clamp(min=0))"),
    ],
    ("losses/focal.py", TESTS): [
        ("-torch.expm1(-cross_entropy)", "torch.exp(-cross_entropy)"),
        (".pow(gamma) * cross_entropy", ".pow(gamma + 1) * cross_entropy"),
        (".clamp(min=torch.finfo(missing.dtype).tiny)", ""),
    ],
    ("losses/binary.py", TESTS): [
        ("x - thresholds", "x + thresholds"),
        ('+ nn.functional.nll_loss(x, labels, reduction="none")', ""),
        (".sum(dim=1) +", ".mean(dim=1) +"),
    ],
    ("losses/mean_squared.py", TESTS): [
        ("(kappa - 1) * (own", "kappa * (own"),
        ("(own - target)", "(own + target)"),
        ("labels.unsqueeze(1), target)", "labels.unsqueeze(1), 1.0)"),
        ("squares / z.shape[1]", "squares"),
    ],
    ("losses/label_relaxation.py", TESTS): [
        ("clamp(min=-math.log1p(-alpha))", "clamp(min=0)"),
        ("- alpha * log_missing", "+ alpha * log_missing"),
        ("entropy + (1 - alpha) * surprise", "entropy + surprise"),
        ("+ alpha * math.log(alpha)", "- alpha * math.log(alpha)"),
    ],
    ("losses/logit_norm.py", TESTS): [
        ("_UnitRows.apply(z, 1 / temperature)", "_UnitRows.apply(z, temperature)"),
        ("* inverse.square()", "* inverse"),
        ("along, value=-1)", "along, value=1)"),
        ("if torch.is_grad_enabled():", "if False:"),
        ("return x * (inverse * scale)", "return x * scale"),
    ],
    ("losses/ntce.py", TESTS): [
        ("u = unit(checked_logits(features, labels))", "u = checked_logits(features, labels)"),
        ("return unit(vectors) / temperature", "return vectors / temperature"),
        ("/ temperature @ u.T", "* temperature @ u.T"),
        ("if len(vectors) <= len(u)", "if len(vectors) <= 1"),
        ("classes, row = labels, torch.arange(len(u), device=u.device)", "classes, row = labels, labels"),
        ("scores.logsumexp(dim=1).index_select", "scores.logsumexp(dim=0).index_select"),
        ("row) - _own(scores, row)).masked", "row) + _own(scores, row)).masked"),
        ("classes.unsqueeze(1) == labels", "classes.unsqueeze(1) != labels"),
        (".masked_fill(alone, 0.0)", ""),
    ],
    ("losses/cosine_regression.py", TESTS): [
        ("return 1 - own_score", "return 2 - 2 * own_score"),
    ],
    ("losses/dot_regression.py", TESTS): [
        ('if self.mean_over == "samples"', 'if self.mean_over != "samples"'),
    ],
    ("losses/per_sample.py", TESTS): [
        ("values / counts.index_select(0, labels)", "values * counts.index_select(0, labels)"),
        (".sum() / (counts > 0).sum()", ".sum() / len(counts)"),
    ],
    ("metrics/uniform_accuracy.py", UNIFORM): [
        ("ends = torch.cat([high[right], low[right]])", "ends = torch.cat([low[right], high[right]])"),
        ("right = high > low", "right = high >= low"),
        ("best = covered.argmax()", "best = covered.argmin()"),
        ("most / len(target)", "most / len(low[right])"),
        ("(left + until) / 2", "left"),
    ],
    ("training/optim.py", "tests/test_training.py -k 'loss and not gpu'"): [
        ('"lr": config.lr, "peak_lr": config.lr, "weight_decay": 0.0})',
         '"lr": config.lr, "peak_lr": config.lr, "weight_decay": config.weight_decay})'),
        ("and p not in of_model", ""),
        ("        if own:\n", "        if False:\n"),
    ],
    ("training/loop.py", "tests/test_training.py -k thresholds"): [
        ("make_optimizer(model, optim, loss)", "make_optimizer(model, optim)"),
        ("[*model.parameters(), *loss.parameters()]", "[*model.parameters()]"),
    ],
}  # fmt: skip
