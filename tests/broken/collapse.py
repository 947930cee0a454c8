"""Mutants of the measures beside NC0 to NC4, of measuring a whole model, and of its report."""

MORE = "tests/test_metrics_collapse_more.py"
LAYERS = "tests/test_metrics_regression_layers.py"
MEASURING = "tests/test_measuring.py"
COMMAND = "tests/test_measure_command.py -k 'not run_is and not library and not random'"

BROKEN: dict[tuple[str, str], list[tuple[str, str]]] = {
    ("metrics/uniformity.py", MORE): [
        (".log_().mul_(-0.5)", ".log_().mul_(0.5)"),
        ("variance.sqrt() / mean.abs()", "variance / mean.abs()"),
        ("energy[rows - start, rows] = 0", "pass"),
        ("len(units) * (len(units) - 1)", "len(units) ** 2"),
    ],
    ("metrics/duality.py", MORE): [
        ("std(correction=0) / cosines.mean()", "std(correction=1) / cosines.mean()"),
        ("(rows * centred).sum(dim=1) / norms", "(rows * centred).sum(dim=1)"),
    ],
    ("metrics/orthogonality.py", MORE): [
        ("norms).abs().mean()", "norms).mean().abs()"),
        ("own = means.detach().double()[index]", "own = present_means(means, counts)[1]"),
    ],
    ("metrics/cosines.py", MORE): [
        ("(number * squares - 1)[several]", "(number * squares)[several]"),
        ("- squares.sum()) / pairs", ") / pairs"),
        ("moved / torch.linalg", "features / torch.linalg"),
    ],
    ("metrics/variability.py", MORE): [
        ("1 - seen / min(width, number - 1)", "1 - seen / min(width, number)"),
        ("+ centred.T @ centred / number", "+ centred.T @ centred"),
        ("keep = values > ", "keep = values >= 0 * "),
        ("clamp(min=1) * len(index))", "clamp(min=1))"),
    ],
    ("metrics/minority.py", MORE): [
        ("descending=True", "descending=False"),
        ("gram[rows - start, rows] = 0", "pass"),
        ("acos() * (180 / math.pi)", "acos()"),
        ("norms[rare].mean() / norms[common].mean()", "norms[common].mean() / norms[rare].mean()"),
        ("max(2, number // 3)", "max(3, number // 3)"),
    ],
    ("metrics/seli.py", MORE): [
        ("(basis * roots) @ basis.T, (basis / roots)", "(basis / roots) @ basis.T, (basis * roots)"),
        ("values[1:].sqrt()", "values[1:]"),
        ("- 1 / number\n    scatter", "\n    scatter"),
        ("/ torch.linalg.matrix_norm(gram) - ideal", " - ideal"),
        ("rows = centred if name", "rows = centred if not name"),
    ],
    ("metrics/dilation.py", MORE): [
        ('found["nc1_trace"]} if', 'found["nc1_trace_pooled"]} if'),
        ('values["dilation"] / clean["nc1_trace"]', 'values["dilation"]'),
    ],
    ("metrics/subgroups.py", MORE): [
        ("spread[group] / between", "spread[group]"),
        ("* cell_counts.view(shape)\n", "\n"),
        ("cell = y * several + member", "cell = y + member"),
        ("(x.double() - means[y]).square()", "x.double().square()"),
    ],
    ("metrics/means.py", MORE): [
        ("chosen - chosen.mean(dim=0)", "chosen"),
        ("index = (number > 0)", "index = (number >= 0)"),
    ],
    ("metrics/regression_collapse.py", LAYERS): [
        ("centred = x - x.mean(dim=0)", "centred = x"),
        ("[:, -min(rows.shape[0], x.shape[1]) :]", "[:, : min(rows.shape[0], x.shape[1])]"),
        ("(trace * size - overlap * root.trace())", "(trace * size + overlap * root.trace())"),
        ("2 - 2 * cosines[best]", "1 - cosines[best]"),
        ("tries[best].square()", "tries[best]"),
        ("centred[some] / norms[some]", "centred[some]"),
    ],
    ("metrics/tagwise.py", LAYERS): [
        ("own.T @ (means[single] - centre)", "own.T @ means[single]"),
        ("means[shown] - centre, sets", "means[shown], sets"),
        ("& ~torch.eye", "| torch.eye"),
        (".acos().rad2deg()", ".acos()"),
        ("(sizes > 1) & complete", "sizes > 1"),
    ],
    ("metrics/geometric_complexity.py", LAYERS): [
        ("2 * drawn - 1", "2 * drawn"),
        ("probes is None else total / probes", "probes is None else total"),
        ("squares.std() / len(squares) ** 0.5", "squares.std()"),
        ("module.training = False", "pass"),
    ],
    ("metrics/stable_rank.py", LAYERS): [
        ("squares.sum() / squares[-1]", "squares.sqrt().sum() / squares[-1].sqrt()"),
        ("isinstance(module, nn.Embedding | nn.EmbeddingBag)", "False"),
    ],
    ("metrics/alignment.py", LAYERS): [
        ('"gradient": w.T @ gradient @ w', '"gradient": w.T @ w'),
        ('"feature": w @ feature @ w.T', '"feature": w @ w.T'),
        ('"weight": w @ w.T', '"weight": w @ feature @ w.T'),
        ("two.square().sum()).sqrt()", "two.square().sum())"),
        ("slope.flatten(0, -2)", "slope.flatten(0, -2).abs()"),
    ],
    ("measuring/space.py", MEASURING): [
        ("found.nc1_pinv_pooled * len(x)", "found.nc1_pinv_pooled"),
        ("found.disagreement * len(x)", "found.disagreement"),
        ("pooled / total", "pooled"),
        ("second.units += unit_sums", "second.units = unit_sums"),
        ("frame.counts.double() * len(frame.index)", "frame.counts.double()"),
        ("_SAME * first + floor", "1e9"),
        ("frame.means.square().sum() * 1e-10", "0"),
    ],
    ("measuring/taps.py", MEASURING): [
        ("== output.shape[2] != output.shape[3]", "== output.shape[2]"),
        ("return output.mean(dim=1)", "return output.mean(dim=2)"),
        ("features.clone() if", "features if"),
        ("if len(calls) != 1", "if not calls"),
        ("if len(outputs) == 1 and", "if"),
    ],
    ("measuring/pupil.py", MEASURING): [
        ("start += len(labels)", "pass"),
        ("place is None", "place is not None"),
        ("logits.argmax(dim=1)", "logits.argmin(dim=1)"),
        ("eval_mode(self.model)", "torch.no_grad()"),
        ("self.weight.shape[1] == width", "True"),
    ],
    ("measuring/survey.py", MEASURING): [
        ("float(number) / first.samples", "float(number)"),
        ("main.variances / between", "main.variances"),
        ("kept = None\n", "pass\n"),
        ("if prefix else key", "if not prefix else key"),
    ],
    ("measuring/images.py", COMMAND): [
        ("- starts < per_class", "- starts <= per_class"),
        ("subsets.train if drawn.whole else subsets.fit", "subsets.fit if drawn.whole else subsets.train"),
        ("[loaded.train, loaded.test]}", "[loaded.test]}"),
        ("train = loaded.train if drawn is None else", "train = loaded.train if True else"),
    ],
    ("measuring/models.py", COMMAND): [
        ("part.shape != own[key].shape", "False"),
        ("if missing or extra:", "if False:"),
    ],
    ("measuring/command.py", COMMAND): [
        ("shape[1] != len(sets.classes)", "False"),
        ("len(values) not in (1, channels)", "False"),
    ],
    ("measuring/readings.py", COMMAND): [
        ("factor = test / train", "factor = train / test"),
        ("if factor > 1.5", "if factor > 150"),
    ],
    ("measuring/figures.py", COMMAND): [
        ("value - simplex, strongest, pair", "value, strongest, pair"),
        ("fill_diagonal_(-2).nan_to_num(nan=-2.0).amax", "nan_to_num(nan=-2.0).amax"),
        ("topk(most).indices.tolist()]", "topk(most, largest=False).indices.tolist()]"),
    ],
    ("measuring/report.py", COMMAND): [
        ("value if math.isfinite(value) else None", "value"),
        ("autoescape=True", "autoescape=False"),
    ],
}
