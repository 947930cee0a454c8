"""Mutants of the contrastive losses and of the second view."""

CONTRASTIVE, LOADER = "tests/test_losses_contrastive.py -k 'not never_holds'", "tests/test_data_loader.py"
PEAK = "tests/test_losses_contrastive.py -k 'never_holds'"
TRAINING = "tests/test_training.py -k 'goes_through or contrastive'"

BROKEN: dict[tuple[str, str], list[tuple[str, str]]] = {
    ("losses/similarity.py", CONTRASTIVE): [
        ("_NONE = -1e30", "_NONE = 0.0"),
        ("masked_fill(~keep, _NONE)", "masked_fill(keep, _NONE)"),
        ("torch.where(keep, values, 0).sum(1)", "values.sum(1)"),
        ("keep.sum(1).clamp(min=1)", "(keep.sum(1) + 1)"),
        ("if not 0 < temperature < math.inf", "if not 0 <= temperature < math.inf"),
    ],
    ("losses/similarity.py", PEAK): [
        ("if len(anchors) <= rows:", "if len(anchors) > 0:"),
        ("checkpoint(per_anchor, *part, use_reentrant=False, preserve_rng_state=False)", "per_anchor(*part)"),
    ],
    ("losses/supervised_contrastive.py", CONTRASTIVE): [
        ("scores = anchors @ z.T / temperature", "scores = anchors @ z.T * temperature"),
        ("positive = others & (labels", "positive = (labels"),
        (
            "log_sum_exp(scores, others) - mean_over(scores, positive)",
            "log_sum_exp(scores, others) + mean_over(scores, positive)",
        ),
        ("torch.where(positive.any(1), loss, 0)", "loss"),
        ("log_sum_exp(scores - size.log(), others)", "log_sum_exp(scores + size.log(), others)"),
        ("torch.where(same, members, members + 1)", "members + 1"),
        ("mean_over(scores, others & same)", "mean_over(scores, same)"),
        ("anchors @ keys.T / temperature", "anchors @ keys.T"),
    ],
    ("losses/class_conditional.py", CONTRASTIVE): [
        ("labels[rows][:, None] == labels", "labels[rows][:, None] != labels"),
        ("- (u * v).sum(1) / temperature", "- (u * v).sum(1)"),
        ("temperature: float = 0.5) -> None", "temperature: float = 0.1) -> None"),
    ],
    ("losses/spread.py", CONTRASTIVE): [
        ("log_sum_exp(scores, ~same)", "log_sum_exp(scores, same)"),
        ("softplus(negatives[:, None] - scores)", "softplus(scores - negatives[:, None])"),
        ("/ (self.attract + self.separate)", "/ 2"),
        ("self.attract * pull + self.separate * push", "self.separate * pull + self.attract * push"),
    ],
    ("losses/dhel.py", CONTRASTIVE): [
        ("rows[:, None] != positions", "rows[:, None] <= positions"),
        ("_energy(u, temperature) + _energy(v, temperature) - aligned", "2 * _energy(u, temperature) - aligned"),
        ("aligned = (u * v).sum(1) / temperature", "aligned = (u * v).sum(1)"),
        ("temperature: float = 0.3) -> None", "temperature: float = 0.5) -> None"),
    ],
    ("data/plan.py", LOADER): [
        ('stream(seed, "augment", epoch, 1)', 'stream(seed, "augment", epoch)'),
        ("how is None or not how.random", "how is None"),
    ],
    ("data/batches.py", LOADER): [
        ("self._view(pixels, second, begin, end)", "self._view(pixels, first, begin, end)"),
        ("tags[indices].to(home)", "tags[: len(indices)].to(home)"),
    ],
    ("training/loop.py", TRAINING): [
        ("(batch.inputs, batch.second, batch.outliers)", "(batch.inputs, batch.outliers, batch.second)"),
    ],
}
