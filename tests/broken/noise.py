"""Mutants of losses for noisy labels, of label noise, and of what is measured under it."""

LOSSES = "tests/test_losses_noise.py"
NOISE = "tests/test_label_noise.py"
MEASURES = "tests/test_label_noise_measures.py"
RUNS = "tests/test_label_noise_runs.py -k 'keys or permuting or listed or given_labels or default or human'"

BROKEN: dict[tuple[str, str], list[tuple[str, str]]] = {
    ("losses/generalized_cross_entropy.py", LOSSES): [
        ("-log_p if q == 0", "log_p if q == 0"),
        ("-torch.expm1(q * log_p) / q", "-torch.expm1(q * log_p)"),
        ("-torch.expm1(q * log_p) / q", "(1 - torch.exp(q * log_p)) / q"),
        ("-torch.expm1(q * log_p) / q", "-torch.expm1(log_p) / q"),
    ],
    ("losses/symmetric_cross_entropy.py", LOSSES): [
        ("return log_zero * torch.expm1(", "return -log_zero * torch.expm1("),
        ("self.beta * self.log_zero", "self.log_zero"),
        ("- self.alpha * log_p", "+ self.alpha * log_p"),
        ("< log_zero < 0:", "< log_zero <= 0:"),
    ],
    ("losses/active_passive.py", LOSSES): [
        ("/ log_p.sum(1)", "/ log_p.mean(1)"),
        ("return -torch.expm1(own", "return torch.expm1(own"),
        ("self.alpha * self.active", "self.active"),
        ("+ self.beta * self.passive", "+ self.passive"),
        ("passive=mean_absolute_error)", ")"),
    ],
    ("losses/early_learning.py", LOSSES): [
        ("torch.log1p(-agreement)", "torch.log1p(agreement)"),
        ("fit + self.strength *", "fit + "),
        ("1 - self.momentum)", "self.momentum)"),
        ("p / p.sum(1, keepdim=True)", "p"),
        ("clamp(_LEAST, 1 - _LEAST)", "clamp(0, 1)"),
        ("if self.training:", "if True:"),
        ("self._follow(p.detach(), batch.index)", "self._follow(p.detach(), batch.labels)"),
        ("if self.training:\n            self._follow", "if self.training and not self._follow"),
        ("part[:n] for part, n in zip(gathered", "part for part, n in zip(gathered"),
        ("dist.all_gather(gathered, sent_rows)", "pass"),
    ],
    ("losses/forward_correction.py", LOSSES): [
        ("return -torch.logsumexp", "return torch.logsumexp"),
        ("log_p + log_columns", "log_p - log_columns"),
        ("matrix.T.log()", "matrix.log()"),
        ("matrix.sum(0) <= 0", "matrix.sum(1) <= 0"),
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
