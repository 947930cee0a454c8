"""The result of a comparison in a few sentences that claim no more than its tests do."""

from __future__ import annotations

from collections.abc import Sequence

from nc_tools.comparison.metric_info import MetricInfo
from nc_tools.comparison.result import ALPHA, ArmTest, Comparison
from nc_tools.comparison.wording import difference_text, p_text

_LEVEL = f"(Holm-adjusted p < {f'{ALPHA:g}'.removeprefix('0')})"


def headline(comparison: Comparison) -> str:
    """Return the result of a comparison in a few sentences."""
    return " ".join(result_sentences(comparison))


def result_sentences(comparison: Comparison) -> list[str]:
    """Return the sentences of a comparison's headline: the result first, then its limitations."""
    family, baseline, label = comparison.family, _baseline(comparison), comparison.primary.label
    tests = [test for test in family.tests if test.paired is not None]
    if all(test.p_holm is None for test in tests):
        reasons = sorted({test.paired.note for test in tests if test.paired is not None})
        return [f"No test of {label} is possible: {'; '.join(reasons)}.", *_doubts(comparison, tests)]
    better = [test for test in tests if family.verdict(test) == "better"]
    worse = [test for test in tests if family.verdict(test) == "worse"]
    largest = _largest_gain(better or tests, comparison.primary)
    if not better:
        sentences = [f"No arm is significantly better than {baseline} in {label} {_LEVEL}."]
        sentences.append(
            f"The largest observed gain is {_clause(largest, comparison)}." if largest else "No arm has a better mean."
        )
    elif len(better) == 1:
        clause = _clause(better[0], comparison, with_name=False)
        sentences = [f"{better[0].arm} is significantly better than {baseline} in {label} {_LEVEL}: {clause}."]
    else:
        names = join_names([test.arm for test in better])
        sentences = [
            f"{len(better)} of {len(tests)} arms are significantly better than {baseline} in {label} {_LEVEL}: {names}."
        ]
        sentences.append(f"The largest gain is {_clause(largest, comparison)}." if largest else "")
    if worse:
        sentences.append(f"Significantly worse: {join_names([test.arm for test in worse])}.")
    return [*sentences, *_controls(comparison, better), *_doubts(comparison, tests)]


def join_names(names: Sequence[str]) -> str:
    """Join names with commas and "and", for a sentence.

    Example:
        >>> join_names(["a", "b", "c"])
        'a, b and c'
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _controls(comparison: Comparison, better: Sequence[ArmTest]) -> list[str]:
    """Compare the better arms with the reference of the same loss, since their gain may come from the loss alone."""
    controls = comparison.controls
    if controls is None:
        return []
    arms = {test.arm for test in better}
    tests = [test for test in controls.tests if test.arm in arms and test.paired is not None]
    by_verdict = {
        verdict: [t.arm for t in tests if controls.verdict(t) == verdict] for verdict in ("better", "worse", "open")
    }
    parts = [
        f"{join_names(names)} {'is' if len(names) == 1 else 'are'} {words}"
        for names, words in (
            (by_verdict["better"], "still significantly better"),
            (by_verdict["open"], "not significantly better"),
            (by_verdict["worse"], "significantly worse"),
        )
        if names
    ]
    if not parts:
        return []
    references = join_names(sorted({test.reference for test in tests}))
    return [f"Against the reference with the same loss ({references}), {join_names(parts)}."]


def _doubts(comparison: Comparison, tests: Sequence[ArmTest]) -> list[str]:
    """Name the arms whose difference from the baseline may have another cause than the method."""
    arms = {c.arm for c in comparison.cautions if c.kind in {"confounded", "not paired"}}
    names = [test.arm for test in tests if test.arm in arms]
    if not names:
        return []
    return [f"{join_names(names)} differ{'s' * (len(names) == 1)} in more than the method: see the cautions."]


def _largest_gain(tests: Sequence[ArmTest], primary: MetricInfo) -> ArmTest | None:
    sign = -1.0 if primary.direction == "lower" else 1.0
    ahead = [test for test in tests if test.paired is not None and sign * test.paired.mean > 0]
    return max(ahead, key=lambda test: sign * test.paired.mean if test.paired else 0.0, default=None)


def _clause(test: ArmTest, comparison: Comparison, *, with_name: bool = True) -> str:
    name = f"{test.arm}: " if with_name else ""
    if test.paired is None:
        return f"{name}no common seed"
    p = p_text(test.p_holm)
    p = f"p {p[0]} {p[1:]}" if p.startswith("<") else f"p = {p}"
    unit = f" {comparison.primary.unit}" if comparison.primary.unit else ""
    return f"{name}{difference_text(test.paired, comparison.primary, unit)}, adjusted {p}, n = {test.paired.n}"


def _baseline(comparison: Comparison) -> str:
    tuned = any(trial.get("arm") == comparison.baseline for trial in comparison.experiment.trials)
    return f"the tuned baseline {comparison.baseline}" if tuned else f"the baseline {comparison.baseline}"
