"""Mutants of the measures of calibration and of the scalings fitted on a hold-out."""

PARTS = "tests/test_metrics_calibration_parts.py"

BROKEN: dict[tuple[str, str], list[tuple[str, str]]] = {
    ("metrics/classwise.py", PARTS): [
        ("/ (count * classes)", "/ count"),
        ("num_bins * torch.arange(classes", "0 * torch.arange(classes"),
        ("+ num_bins * guess", ""),
        ("confidence - (guess == target)", "confidence + (guess == target)"),
    ],
    ("metrics/kernel_calibration.py", PARTS): [
        ("/ (2 * bandwidth)", "/ bandwidth"),
        ("total -= error", "total += error"),
        ("(count * (count - 1))", "(count * count)"),
        ("p=1) / (2", "p=2) / (2"),
    ],
    ("metrics/debiased.py", PARTS): [
        ("mean.square() - variance", "mean.square() + variance"),
        ("variance / (size - 1)", "variance / (size)"),
        ("found + centre - high", "2 * found - high"),
        ("[0.025, 0.975]", "[0.4, 0.6]"),
    ],
    ("metrics/brier.py", PARTS): [
        ("(mean_p - mean_f).square()", "(mean_p - mean_f).abs()"),
        ("- inside", "+ inside"),
        ("base * (1 - base)", "base * base"),
    ],
    ("metrics/risk_coverage.py", PARTS): [
        ("sort(descending=True)", "sort(descending=False)"),
        ("risk.mean() - best", "risk.mean() + best"),
        ("!= 0).cumsum(0)", "!= 9).cumsum(0)"),
        ("wrong.sort().values", "wrong.sort(descending=True).values"),
    ],
    ("metrics/scaling.py", PARTS): [
        ("log_p * a + b, a, b", "log_p * a - b, a, b"),
        ("((a - 1).square()", "((a).square()"),
        ("/ apart", "/ classes**2"),
        ("off + on + b.square().mean()", "off + b.square().mean()"),
    ],
    ("metrics/grouped.py", PARTS): [
        ("members[target]", "members[scores.argmax(1)]"),
    ],
}
