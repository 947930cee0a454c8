"""Mutants of the classification losses and of uniform accuracy."""

TESTS, UNIFORM = "tests/test_losses_classification.py", "tests/test_metrics_uniform_accuracy.py"
SLOPES = "tests/test_losses.py -k 'gradcheck or torch_func'"

BROKEN: dict[tuple[str, str], list[tuple[str, str]]] = {
    ("losses/cross_entropy.py", TESTS): [
        ("s + strength * lead", "s - strength * lead"),
        ("s + strength * lead", "(1 - strength) * s + strength * lead"),
        ("strength = smoothing\n", "strength = 0.0\n"),
        ("cross_entropy(z, labels, reduction=reduction)", "cross_entropy(z, labels)"),
        ('"concave": quarter.sin()', '"concave": quarter.cos()'),
        ("1 - quarter.cos()", "quarter.cos()"),
        ("(self.head - self.tail) * f", "(self.tail - self.head) * f"),
        ("torch.ones_like(counts))", "torch.zeros_like(counts))"),
        (".clamp(min=0) + 1)", ".clamp(min=0))"),
    ],
    ("losses/focal.py", TESTS): [
        ("-torch.expm1(-s)", "torch.exp(-s)"),
        ("floored.pow(gamma)", "floored.pow(gamma + 1)"),
        (".clamp(min=torch.finfo(s.dtype).tiny)", ""),
    ],
    ("losses/focal.py", SLOPES): [
        ("value=gamma)", "value=-gamma)"),
        ("addcmul(1 - missing,", "addcmul(missing,"),
    ],
    ("losses/label_relaxation.py", SLOPES): [
        ("1 - alpha / missing", "1 + alpha / missing"),
        (" * (s > least)", " * (s < least)"),
    ],
    ("losses/cross_entropy.py", SLOPES): [
        ("slope, strength * slope\n", "slope, slope\n"),
    ],
    ("losses/surprise.py", SLOPES): [
        ("by_surprise * share", "by_surprise"),
        ("p * slope", "p"),
        ("slope.neg_()", "slope"),
        ("rise / z.shape[1]", "rise"),
        ("at_own += rise", "at_own -= rise"),
        ("at.sub_(z.mean(1, keepdim=True))", "at"),
        (".sub_(p.amax(1, keepdim=True).log_())", ""),
        ("if torch.is_grad_enabled():", "if False:"),
        ("    if traced():", "    if False:"),
        ("- z.mean(1, keepdim=True) if formula", "if formula"),
    ],
    ("losses/surprise.py", "nc_tools/losses/surprise.py tests/test_losses_classification.py"): [
        ("z.amax(1, keepdim=True).sub_(at)", "z.amin(1, keepdim=True).sub_(at)"),
    ],
    ("tracing.py", SLOPES): [("torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()", "False")],
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
        ("held = s.clamp(min=least)", "held = s"),
        ("- alpha * missing.log()", "+ alpha * missing.log()"),
        ("entropy + (1 - alpha) * held", "entropy + held"),
        ("+ alpha * math.log(alpha)", "- alpha * math.log(alpha)"),
    ],
    ("losses/logit_norm.py", TESTS): [
        ("unit(z, 1 / temperature)", "unit(z, temperature)"),
        ("unit(z, 1 / temperature)", "z / temperature"),
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
