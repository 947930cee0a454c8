"""The result of a comparison in a few sentences that claim no more than its tests do."""

from __future__ import annotations

from collections.abc import Sequence

from nc_tools.comparison.label_text import labels_clause
from nc_tools.comparison.metric_info import MetricInfo
from nc_tools.comparison.pairing import name_seeds
from nc_tools.comparison.result import ALPHA, ArmTest, Comparison
from nc_tools.comparison.wording import coverage_text, difference_text, join_names, margin_texts, p_text

_LEVEL = f"(Holm-adjusted p < {f'{ALPHA:g}'.removeprefix('0')})"


def headline(comparison: Comparison) -> str:
    """Return the result of a comparison in a few sentences."""
    return " ".join(result_sentences(comparison))


def result_sentences(comparison: Comparison) -> list[str]:
    """Return the sentences of a comparison's headline: the result first, then its limitations.

    The first sentence also tells which labels the arms were trained on, if those are not the data's own.
    """
    first, *others = _sentences(comparison)
    clause = labels_clause(comparison)
    return [f"{clause}{_after_colon(first, comparison) if clause else first}", *others]


def _after_colon(sentence: str, comparison: Comparison) -> str:
    """Return a sentence with a lowercase first letter, unless it begins with the name of an arm."""
    return sentence if sentence.startswith(comparison.arms) else sentence[:1].lower() + sentence[1:]


def _sentences(comparison: Comparison) -> list[str]:
    family, baseline, label = comparison.family, _baseline(comparison), comparison.primary.label
    tests = [test for test in family.tests if test.paired is not None]
    if family.withheld:
        return [f"No verdict: {family.withheld}."]
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
    return [
        *sentences,
        f"{coverage_text(family)}.",
        *_same_images(comparison, largest),
        *margin_texts(comparison),
        *_controls(comparison, better),
        *_lost(comparison),
        *_fewer_pairs(tests),
        *_doubts(comparison, tests),
    ]


def _same_images(comparison: Comparison, test: ArmTest | None) -> list[str]:
    """Give the narrower statement, on the same test images, if the interval of the result covers new ones."""
    if test is None or not comparison.family.covers_images or test.same_images is None:
        return []
    return [
        f"{test.arm} trained again and read on these same test images: "
        f"{difference_text(test.same_images, comparison.primary)}."
    ]


def _lost(comparison: Comparison) -> list[str]:
    """Name the arms that lost runs, whose mean is over the remaining runs."""
    sentences = []
    for test in comparison.family.tests:
        withheld = comparison.family.unrestricted_verdict(test) != comparison.family.verdict(test)
        for arm, lost in ((test.arm, test.lost), (test.reference, test.reference_lost)):
            if lost and (arm == test.arm or withheld):
                seeds = name_seeds(sorted({one.seed for one in lost}))
                reason = f"{arm} has no value at seed {seeds} ({lost[0].reason})"
                sentences.append(f"{reason}, so {test.arm} gets no verdict." if withheld else f"{reason}.")
    return list(dict.fromkeys(sentences))


def _fewer_pairs(tests: Sequence[ArmTest]) -> list[str]:
    """Name the arms that are paired at fewer seeds than others."""
    most = max((len(test.seeds) for test in tests), default=0)
    fewer = [f"{test.arm} at {len(test.seeds)}" for test in tests if len(test.seeds) < most]
    return [f"Not every arm is paired at all {most} seeds: {join_names(fewer)}."] if fewer else []


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
    arms = {c.arm for c in comparison.cautions if c.kind in {"confounded", "not paired", "frames"}}
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
