"""Mutants of the losses that control collapse, of several labels, outliers, schedules and sums."""

CONTROL = "tests/test_losses_control.py -k 'not processes and not digits and not training'"
PROCESSES, DATA = (
    "tests/test_losses_control.py -k processes",
    "tests/test_losses_control.py -k 'digits or outliers_come'",
)
COMPOSITION = "tests/test_losses_composition.py -k 'not a_run'"

BROKEN: dict[tuple[str, str], list[tuple[str, str]]] = {
    ("losses/class_centres.py", CONTROL): [
        ("(1 - self.momentum * self.seen.to(features.dtype))", "(1 - self.momentum)"),
        (
            "(1 - self.momentum * self.seen.to(features.dtype)) * present",
            "(1 - self.momentum * self.seen.to(features.dtype))",
        ),
        ("known = self.seen | present", "known = present"),
        ("if self.training:", "if True:"),
        ("0 <= momentum < 1", "0 <= momentum <= 1"),
    ],
    ("losses/class_centres.py", PROCESSES): [
        ("total = grad.clone()\n        dist.all_reduce(total)", "total = grad.clone()"),
        ("sums = sum_over_processes(", "sums = ("),
        ("counts = sum_over_processes(", "counts = ("),
    ],
    ("losses/compactness.py", PROCESSES): [
        ("return process_count() * class", "return class"),
    ],
    ("losses/compactness.py", CONTROL): [
        ("(squares / counts.index_select(0, labels)).sum() / len(centres)", "squares.mean()"),
        ("features - centres.index_select", "features + centres.index_select"),
        ("at_least_float32(outputs.features)", "at_least_float32(outputs.embedded)"),
    ],
    ("losses/class_spread.py", CONTROL): [
        ("return (centres - mean) * mask", "return centres * mask"),
        ("/ mask.sum().clamp(min=1)", "/ len(mask)"),
        ("cosines.amax(1)", "cosines.mean(1)"),
        ("return -torch.where(pairs", "return torch.where(pairs"),
        ("known[:, None] & known & ~torch.eye", "~torch.eye"),
        (".clamp(-1 + _GUARD, 1 - _GUARD)", ""),
        ("/ known.sum().clamp(min=1)", "/ len(known)"),
    ],
    ("losses/alignment.py", CONTROL): [
        ("1 - cosines", "1 + cosines"),
        ("unit(centred(centres, known))", "unit(centres)"),
        ("known & (known.sum() > 1)", "known"),
        ("outputs.head.embed(centres)", "centres[:, : outputs.weight.shape[1]]"),
    ],
    ("losses/feature_entropy.py", CONTROL): [
        ("return -torch.log", "return torch.log"),
        (".argmax(1)", ".argmin(1)"),
        ("rows[:, None] == positions", "rows[:, None] < 0 * positions"),
        ("dim=1) + eps)", "dim=1) + 2 * eps)"),
    ],
    ("losses/coding_rate.py", CONTROL): [
        ("together - (size * apart).sum() / count", "together - apart.sum()"),
        ("return -coding_rate_gain", "return coding_rate_gain"),
        ("width / (count * squared_distortion)", "1 / (count * squared_distortion)"),
        (".masked_fill(~same, 0)", ""),
        ("(count / size).sqrt()", "(count / size)"),
        ("gram if count <= width else z.T @ z", "gram if count <= width else gram[:width, :width]"),
    ],
    ("losses/feature_decay.py", CONTROL): [
        ("square().sum(1) / 2", "square().sum(1)"),
        ("feature_decay(outputs.features).mean()", "feature_decay(outputs.features).sum()"),
        ("feature_decay(outputs.features)", "feature_decay(outputs.embedded)"),
    ],
    ("losses/pick_all_label.py", CONTROL): [
        ("return -torch.where(tags", "return torch.where(tags"),
        (".log_softmax(1), 0).sum(1)", ".log_softmax(1), 0).mean(1)"),
        ("2 * self.decay", "self.decay"),
    ],
    ("losses/orthogonal_outliers.py", CONTROL): [
        (".abs().mean(1)", ".mean(1)"),
        ("unit(weight.to(h.dtype))", "weight.to(h.dtype)"),
        ("outliers_of(self, outputs).embedded", "outputs.embedded"),
    ],
    ("data/outliers.py", DATA): [
        ("self._from(epoch * len(self) + start)", "self._from(epoch * len(self))"),
        ("round_, place = round_ + 1, 0", "place = 0"),
    ],
    ("data/pairs.py", DATA): [
        ("tags[rows, images.labels[right]] = True", "tags[rows, images.labels[left]] = True"),
        ("images.take(left), images.take(right)", "images.take(right), images.take(left)"),
        ("top = (side - height) // 2", "top = 0"),
    ],
    ("losses/schedule.py", COMPOSITION): [
        ("if not 0 <= progress <= 1", "if progress > 1"),
        ("self.start + (self.end - self.start) * min", "self.end + (self.start - self.end) * min"),
        ("min(max(done, 0.0), 1.0)", "max(done, 0.0)"),
        ("< self.at else", "<= self.at else"),
        ("self.end + (self.start - self.end) * 0.5", "self.start + (self.end - self.start) * 0.5"),
        ("if not 0 <= share <= 1", "if not 0 <= share"),
    ],
    ("losses/composition.py", COMPOSITION): [
        ("self.weights[place] * value", "value"),
        ("if not (value >= 0 and", "if not (value > -1 and"),
        ("part.set_progress(progress)", "part.set_progress(0.0)"),
        ("self.views = max(", "self.views = min("),
        ("self._now[place] = value", "self._now[0] = value"),
        (
            "self.weights[place].fill_(value)",
            "self.weights = torch.tensor(self._now).index_fill(0, torch.tensor(place), value)",
        ),
        ('f"{name}_{called}"', "called"),
    ],
    ("spec.py", COMPOSITION): [
        ("return value.build(facts)", "return value"),
        ("_built(value, facts) for name, value in filled", "value for name, value in filled"),
    ],
}
