"""Mutants of the losses for class imbalance."""

TESTS = "tests/test_losses_imbalance.py"

BROKEN: dict[tuple[str, str], list[tuple[str, str]]] = {
    ("losses/affine.py", TESTS): [
        ("index_select(0, labels).neg()", "index_select(0, labels)"),
        ("z = z * a", "z = z / a"),
        ("z = z + _fitting", "z = z - _fitting"),
        ("margin = scale * margin", "pass"),
        ("or scale != 1)", "or scale == 1)"),
        ("addcmul(z, a)", "addcmul(z, a, value=-1)"),
    ],
    ("losses/logit_adjusted.py", TESTS): [
        ("super().__init__(class_counts, tau=1.0)", "super().__init__(class_counts, tau=0.5)"),
        ("ARB = BalancedSoftmax", "ARB = LogitAdjusted"),
    ],
    ("losses/vector_scaling.py", TESTS): [
        ("counts / counts.max()", "counts / counts.min()"),
        (".pow(gamma)", ".pow(-gamma)"),
        ("shift=tau * log_prior", "shift=-tau * log_prior"),
        ("gamma: float = 0.3", "gamma: float = 0.15"),
    ],
    ("losses/ldam.py", TESTS): [
        ("pow(-0.25)", "pow(-0.5)"),
        ("counts / counts.min()", "counts / counts.max()"),
        ("max_margin * (counts", "(counts"),
    ],
    ("losses/class_weights.py", TESTS): [
        ("-torch.expm1(counts * decay)", "-torch.expm1(decay / counts)"),
        ("counts * decay) / (1 - beta)", "counts * decay) / (1 + beta)"),
        ("len(inverse) / inverse.sum()", "1 / inverse.sum()"),
        (".reciprocal()", ""),
    ],
    ("losses/class_counts.py", TESTS): [
        ("counts <= 0", "counts < 0"),
        ("per_class.shape[-1] != logits.shape[-1]", "False"),
    ],
    ("losses/per_sample.py", TESTS): [
        ("torch.dot(weights, values) / weights.sum()", "(weights * values).mean()"),
    ],
    ("losses/reweighting.py", TESTS): [
        ("if progress >= self.start", "if progress > self.start"),
        ("self.weight.fill_(1.0)", "pass"),
        ("self.weight.copy_(self.late)", "self.weight = self.late.clone()"),
        ("        super().set_progress(check_progress(progress))\n", ""),
    ],
}
