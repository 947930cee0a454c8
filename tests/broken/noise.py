"""Mutants of losses for noisy labels, of label noise, and of what is measured under it."""

LOSSES = "tests/test_losses_noise.py"
SLOPES = "tests/test_losses.py -k 'gradcheck or torch_func'"
NOISE = "tests/test_label_noise.py"
MEASURES = "tests/test_label_noise_measures.py"
RUNS = "tests/test_label_noise_runs.py -k 'keys or permuting or listed or given_labels or default or human'"

BROKEN: dict[tuple[str, str], list[tuple[str, str]]] = {
    ("losses/generalized_cross_entropy.py", LOSSES): [
        ("value = s if q == 0", "value = -s if q == 0"),
        ("torch.expm1(-q * s) / -q", "-torch.expm1(-q * s)"),
        ("torch.expm1(-q * s) / -q", "(1 - torch.exp(-q * s)) / q"),
        ("torch.expm1(-q * s) / -q", "torch.expm1(-s) / -q"),
    ],
    ("losses/symmetric_cross_entropy.py", LOSSES): [
        ("log_zero * torch.expm1(", "-log_zero * torch.expm1("),
        ("+ self.beta * value", "+ value"),
        ("self.alpha * s +", "-self.alpha * s +"),
        ("< log_zero < 0:", "< log_zero <= 0:"),
    ],
    ("losses/active_passive.py", LOSSES): [
        ("num_classes * (surprise + lead)", "(surprise + lead)"),
        ("num_classes * (surprise + lead)", "num_classes * (surprise - lead)"),
        ("lambda s: reverse_of(s, -1.0))", "lambda s: reverse_of(s, 1.0))"),
        ("loss.alpha * active", "active"),
        ("+ loss.beta * passive", "+ passive"),
        ("_normalized_and_reverse(self, outputs, batch, -1.0)", "_normalized_and_reverse(self, outputs, batch, -4.0)"),
        ("self.alpha * self.active", "self.active"),
        ("+ self.beta * self.passive", "+ self.passive"),
        ("passive=mean_absolute_error)", ")"),
        ("passive=partial(reverse_cross_entropy, log_zero=log_zero)", "passive=reverse_cross_entropy"),
    ],
    ("losses/early_learning.py", LOSSES): [
        ("pull * torch.linalg.vecdot(through, p)", "pull * torch.linalg.vecdot(targets, p)"),
        ("hardtanh_backward(targets, p, _LEAST, 1 - _LEAST)", "hardtanh_backward(targets, p, _LEAST, 1.0)"),
        ("strength * torch.log1p(-agreement)).mean()", "strength * torch.log1p(agreement)).mean()"),
        ("(surprise + strength * torch", "(surprise + torch"),
        ("1 - self.momentum)", "self.momentum)"),
        ("p / p.sum(1, keepdim=True)", "p"),
        ("own, clamped = labels.unsqueeze(1), p.clamp(_LEAST, 1 - _LEAST)", "own, clamped = labels.unsqueeze(1), p"),
        ("self._follow(p.clamp(_LEAST, 1 - _LEAST), batch", "self._follow(p, batch"),
        ("if self.training:", "if True:"),
        ("1 - _LEAST), batch.index)", "1 - _LEAST), batch.labels)"),
        ("if self.training:\n            self._follow", "if self.training and not self._follow"),
        ("part[:n] for part, n in zip(gathered", "part for part, n in zip(gathered"),
        ("dist.all_gather(gathered, sent_rows)", "pass"),
        ("batch.index).to(logits.dtype)", "batch.index)"),
    ],
    ("losses/forward_correction.py", LOSSES): [
        ("mixed = z + columns", "mixed = z - columns"),
        (".add_(r.amax(1).log_())", ""),
        (".sub_(p.amax(1).log_())", ""),
        ("matrix.T.log()", "matrix.log()"),
        ("matrix.sum(0) <= 0", "matrix.sum(1) <= 0"),
    ],
    ("losses/early_learning.py", SLOPES): [
        ("share - pull * torch", "share + pull * torch"),
        ("/ (agreement - 1)", "/ (1 - agreement)"),
        ("(through * pull).add_(rest)", "(through * pull)"),
        ("labels.unsqueeze(1), -share)", "labels.unsqueeze(1), share)"),
        ("if torch.is_grad_enabled():", "if False:"),
    ],
    ("losses/forward_correction.py", SLOPES): [
        ("(p - r)", "(r - p)"),
        ("(p - r) * grad.unsqueeze(1)", "(p - r)"),
        ("if torch.is_grad_enabled():", "if False:"),
    ],
    ("losses/generalized_cross_entropy.py", SLOPES): [("1 - q * value", "1 + q * value")],
    ("losses/symmetric_cross_entropy.py", SLOPES): [
        ("-log_zero - value", "log_zero - value"),
        ("+ self.beta * slope", "+ slope"),
    ],
    ("losses/active_passive.py", SLOPES): [
        ("1 / whole + by_lead, by_lead", "1 / whole, by_lead"),
        ("value * (-num_classes / whole)", "value * (num_classes / whole)"),
        ("+ loss.beta * slope", "+ slope"),
    ],
    ("data/label_noise.py", NOISE): [
        ("self.rate / (number - 1)", "self.rate / number"),
        ("fill_diagonal_(1 - self.rate)", "fill_diagonal_(self.rate)"),
        ("eye.roll(1, dims=1)", "eye.roll(-1, dims=1)"),
        ("= 1 - self.rate, self.rate\n", "= self.rate, 1 - self.rate\n"),
        ("u[:, None] >= cumulative[y]", "u[:, None] >= transition[y]"),
        ("cumulative = cumulative / cumulative[:, -1:]", "cumulative = cumulative * 1"),
        ('stream(seed, "noise")', 'stream(0, "noise")'),
        ('("cat", "dog"),', '("cat", "frog"),'),
    ],
    ("data/noise_rate.py", NOISE): [("0 <= rate < 1", "0 <= rate <= 1")],
    ("data/instance_noise.py", NOISE): [
        ("scores[:, k] = -torch.inf", "scores[:, k] += 0"),
        ("drawn[index, 0] < flip[index]", "drawn[index, 0] < self.rate"),
        ("drawn[index, 0] < flip[index]", "drawn[index, 0] > flip[index]"),
        ("low + (high - low) * u", "u"),
        ("mean + std *", "mean - std *"),
    ],
    ("data/subsets.py", NOISE): [
        ("labels if tail_labels is None else tail_labels", "labels"),
    ],
    ("metrics/memorisation.py", MEASURES): [
        ("to_given < to_true", "to_true < to_given"),
        ("to_true.mean() / spread", "to_true.mean()"),
        ("means[truth[wrong]]", "means[asked[wrong]]"),
        ("x[~wrong], truth[~wrong]", "x, truth"),
        ('"fitted": float((decided == asked', '"fitted": float((decided != asked'),
        ('"recovered": float((decided == truth', '"recovered": float((decided == asked'),
    ],
    ("metrics/suspects.py", MEASURES): [
        ("left[given] - others", "left[given] + others"),
        ("* left[given]", ""),
        ("counts / (counts - 1)", "counts / counts"),
        ("loss = -scores", "loss = scores"),
        ("(loss_rank + distance_rank)", "(loss_rank - distance_rank)"),
        ("apart.scatter(1, own, torch.inf)", "apart"),
        ("scores.scatter(1, own, -torch.inf)", "scores"),
        ("order[:looked]", "order[-looked:]"),
    ],
    ("metrics/transition.py", MEASURES): [
        ("true * num_classes + given", "given * num_classes + true"),
        ("pairs / totals.clamp(min=1)", "pairs / pairs.sum()"),
        ("percentile * (len(p) - 1)", "(1 - percentile) * (len(p) - 1)"),
        ("return p[anchors].cpu()", "return p[anchors].T.cpu()"),
        ("scores.argmax(1), given,", "given, scores.argmax(1),"),
        (".sum(1).mean() / 2)", ".sum(1).mean())"),
        ("(sums - 1).abs().argmax()", "(sums - 1).abs().argmin()"),
        ("return found / sums[:, None]", "return found"),
    ],
    ("experiment/noisy.py", RUNS): [
        ("on_clean_labels(model, train, clean,", "on_clean_labels(model, train, train.labels,"),
        ("wrong = (train.labels != clean)", "wrong = (train.labels == clean)"),
        ("confusion_transition(held.logits, held.labels)", "confusion_transition(held.logits, clean)"),
        ("(train.features, train.logits, train.labels)", "(train.features, train.logits, clean)"),
    ],
    ("experiment/setup.py", RUNS): [
        ("train=with_noise(sources.train, config.data.noise, seed)", "train=sources.train"),
    ],
    ("experiment/main.py", RUNS): [
        ('args.arms or ",".join(default_arms) or None', "args.arms"),
        ("replace(data, noise=None)", "replace(data)"),
    ],
}
