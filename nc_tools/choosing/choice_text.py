"""The choice in sentences to act on: which arm, how sure, for which classes, calibrated or not, at what cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nc_tools.choosing.choice import Choice
from nc_tools.choosing.class_effects import ClassEffect, class_effects
from nc_tools.comparison import Comparison
from nc_tools.comparison.wording import coverage_text, difference_text, join_names

_NAMED = 4  # classes that a sentence names
_CALIBRATED = 0.02  # largest ECE that is called calibrated
WORDS = {
    "linear": "the linear head",
    "linear_la": "the linear head with logit adjustment",
    "linear_balanced_softmax": "the linear head with balanced softmax",
    "cosine": "the cosine head",
    "cosine_la": "the cosine head with logit adjustment",
    "etf": "a fixed ETF behind a learned projection",
    "etf_la": "a fixed ETF behind a learned projection, with logit adjustment",
    "etf_dr": "a fixed ETF behind a learned projection, with dot regression",
    "nearest_etf": "the nearest ETF behind a learned projection",
    "nearest_etf_la": "the nearest ETF behind a learned projection, with logit adjustment",
    "simplex": "the minimal simplex behind a learned projection",
    "simplex_la": "the minimal simplex behind a learned projection, with logit adjustment",
    "random": "fixed random class vectors behind a learned projection",
    "random_la": "fixed random class vectors behind a learned projection, with logit adjustment",
    "least_squares_start": "the linear head, started from least squares",
    "least_squares_start_la": "the linear head with logit adjustment, started from least squares",
    "linear_tau": "the linear head, its class vectors tau-normalized after training",
    "class_means": "the nearest class mean",
    "k_means": "the nearest of several centers for each class",
    "linear_gce": "the linear head with generalized cross-entropy",
    "linear_sce": "the linear head with symmetric cross-entropy",
    "linear_elr": "the linear head with early-learning regularization",
    "linear_nce_mae": "the linear head with normalized cross-entropy and mean absolute error",
    "linear_smoothing": "the linear head with label smoothing",
    "cosine_gce": "the cosine head with generalized cross-entropy",
    "linear_relaxation": "the linear head with label relaxation",
    "logistic": "scikit-learn's logistic regression",
}
"""What each arm is, in words."""


def choice_sentences(choice: Choice, comparison: Comparison) -> list[str]:
    """Return the sentences: what to use, how sure, which classes gain and lose, calibration, cost.

    Args:
        choice: The arm that was chosen, and why.
        comparison: The comparison of all arms.
    """
    reference = _reference(choice, comparison)
    sentences = [*_use(choice, comparison), _range(comparison)]
    if reference is not None:
        sentences += _classes(class_effects(comparison, choice.arm, reference), choice.arm, reference)
    means = {row.metric: row.mean for row in comparison.rows if row.arm == choice.arm and row.mean is not None}
    baseline = {row.metric: row.mean for row in comparison.rows if row.arm == choice.default and row.mean is not None}
    return [text for text in (*sentences, _calibration(means), _cost(choice, means, baseline)) if text]


def _use(choice: Choice, comparison: Comparison) -> list[str]:
    primary = comparison.primary
    use = f"Use {choice.arm}: {WORDS.get(choice.arm, 'your own arm')}."
    mean = next(row.mean for row in comparison.rows if row.arm == choice.arm and row.metric == primary.key)
    score = f"Its {primary.label} on the test set is {primary.value(mean)}{' %' if primary.unit == 'points' else ''}."
    if choice.candidate == choice.default:
        return [use, f"It is the default, and no other arm did better on the hold-outs ({_ranking(choice)}).", score]
    if choice.difference is None:
        return [use, f"It is the default. {choice.candidate} did better on the hold-outs, but {choice.reason}.", score]
    unit = " points" if primary.unit == "points" else ""
    difference = difference_text(choice.difference, primary, unit)
    if choice.confirmed:
        return [
            use,
            f"It was the best of {len(choice.holdout)} arms on the hold-outs ({_ranking(choice)}), and the test set, "
            f"read once, confirms it: {difference} against {choice.default}, n = {choice.difference.n} seeds.",
            score,
        ]
    return [
        use,
        f"It is the default. {choice.candidate} did better on the hold-outs ({_ranking(choice)}), but {choice.reason}: "
        f"{difference} against {choice.default}, n = {choice.difference.n} seeds.",
        score,
    ]


def _ranking(choice: Choice) -> str:
    """Return the first arms on the hold-outs, with their scores in percent."""
    ranked = sorted(choice.holdout.items(), key=lambda pair: -pair[1])[:3]
    return ", ".join(f"{arm} {100 * score:.1f}" for arm, score in ranked)


def _range(comparison: Comparison) -> str:
    return f"{coverage_text(comparison.family)}, and tuning anew on another hold-out."


def _reference(choice: Choice, comparison: Comparison) -> str | None:
    """Return the arm with which class effects are compared: the default, or the plain linear head for the default."""
    if choice.arm != choice.default:
        return choice.default
    return "linear" if choice.default != "linear" and "linear" in comparison.arms else None


def _classes(effects: Sequence[ClassEffect], arm: str, reference: str) -> list[str]:
    sure = [effect for effect in effects if effect.sure]
    gains = [effect for effect in sure if effect.difference > 0]
    losses = [effect for effect in reversed(sure) if effect.difference < 0]
    if not effects:
        return []
    if not sure:
        return [f"Against {reference}, the recall of no single class differs beyond the spread of the seeds."]
    parts = []
    if gains:
        parts.append(f"it helps {len(gains)} of {len(effects)} classes: {_named(gains)}")
    if losses:
        parts.append(f"it costs {len(losses)}: {_named(losses)}")
    else:
        parts.append("it costs none")
    return [f"Against {reference}, {arm} changes the recall of classes as follows: {'; '.join(parts)}."]


def _named(effects: Sequence[ClassEffect]) -> str:
    names = [f"{e.name} {100 * e.difference:+.1f} ({e.train_count:,} training samples)" for e in effects[:_NAMED]]
    rest = len(effects) - _NAMED
    return join_names([*names, f"{rest} more"]) if rest > 0 else join_names(names)


def _calibration(means: Mapping[str, float]) -> str:
    raw, scaled = means.get("test/cal/ece"), means.get("test/cal_ts/ece")
    if raw is None:
        return ""
    text = f"Its probabilities are off by {100 * raw:.1f} points on average (ECE)"
    if scaled is None:
        return f"{text}, without temperature scaling."
    judged = "calibrated" if scaled <= _CALIBRATED else "not calibrated: do not read them as chances"
    return f"{text}, and by {100 * scaled:.1f} with the temperature from the hold-out, which is {judged}."


def _cost(choice: Choice, means: Mapping[str, float], baseline: Mapping[str, float]) -> str:
    seconds, parameters = means.get("perf/seconds"), means.get("perf/parameters")
    if seconds is None or parameters is None:
        return ""
    text = f"Training this head takes {seconds:.2g} s beside the others, and it has {parameters:,.0f} parameters"
    base = (baseline.get("perf/seconds"), baseline.get("perf/parameters"))
    if choice.arm != choice.default and base[0] is not None and base[1] is not None:
        text += f" ({base[0]:.2g} s and {base[1]:,.0f} for {choice.default})"
    return f"{text}; a prediction costs a pass through the backbone with every head."
