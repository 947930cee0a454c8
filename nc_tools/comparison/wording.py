"""Says in words what was found, once, so that every output says the same."""

from __future__ import annotations

from nc_tools.comparison.metric_info import MetricInfo, metric_info, p_text
from nc_tools.comparison.pairing import name_seeds
from nc_tools.comparison.result import ALPHA, Comparison, Family, Test
from nc_tools.comparison.statistics import PairedDifference


def headline(comparison: Comparison) -> str:
    """State the result in a few sentences that claim no more than the tests do."""
    return " ".join(result_sentences(comparison))


def result_sentences(comparison: Comparison) -> list[str]:
    """Return the headline's sentences: the result first, then what qualifies it."""
    family, baseline, label = comparison.family, _baseline(comparison), comparison.primary.label
    tests = [test for test in family.tests if test.paired is not None]
    if all(test.p_holm is None for test in tests):
        why = sorted({test.paired.note for test in tests if test.paired is not None})
        return [
            f"Nothing can be said beyond doubt about {label}: {'; '.join(why)}.",
            *_doubts(comparison, tests),
        ]
    better = [test for test in tests if family.verdict(test) == "better"]
    worse = [test for test in tests if family.verdict(test) == "worse"]
    top = _best(better or tests, comparison.primary)
    if not better:
        said = [f"No arm is better than {baseline} in {label} beyond doubt."]
        said.append(f"The largest gain seen is {_clause(top, comparison)}." if top else "No arm was ahead of it.")
    elif len(better) == 1:
        found = _clause(better[0], comparison, named=False)
        said = [f"{better[0].arm} is better than {baseline} in {label}: {found}."]
    else:
        names = _list([test.arm for test in better])
        said = [f"{len(better)} of {len(tests)} arms are better than {baseline} in {label}: {names}."]
        said.append(f"The largest gain is {_clause(top, comparison)}." if top else "")
    if worse:
        said.append(f"Worse beyond doubt: {_list([test.arm for test in worse])}.")
    return [*said, *_controls(comparison, better), *_doubts(comparison, tests)]


def _controls(comparison: Comparison, better: list[Test]) -> list[str]:
    """An arm that beats the baseline only through its loss must not be read as a better head."""
    controls = comparison.controls
    if controls is None:
        return []
    beaters = {test.arm for test in better}
    tests = [test for test in controls.tests if test.arm in beaters and test.paired is not None]
    found = {
        verdict: [t.arm for t in tests if controls.verdict(t) == verdict] for verdict in ("better", "worse", "open")
    }
    parts = [
        f"{_list(arms)} {'is' if len(arms) == 1 else 'are'} {word}"
        for arms, word in (
            (found["better"], "still better"),
            (found["open"], "not better beyond doubt"),
            (found["worse"], "worse"),
        )
        if arms
    ]
    if not parts:
        return []
    references = _list(sorted({test.reference for test in tests}))
    return [f"Against the reference with the same loss ({references}), {_list(parts)}."]


def _doubts(comparison: Comparison, tests: list[Test]) -> list[str]:
    """A result that something else explains just as well must not stand without saying so."""
    arms = {c.arm for c in comparison.cautions if c.kind in {"confounded", "not paired"}}
    named = [test.arm for test in tests if test.arm in arms]
    if not named:
        return []
    return [f"{_list(named)} differ{'s' * (len(named) == 1)} in more than the method: see the cautions."]


def unfinished_texts(comparison: Comparison) -> list[str]:
    """Say which arms did not finish, what they lack, and why."""
    texts = []
    for state in comparison.states:
        if not state.missing and not state.unfinished:
            continue
        lacks = f"has no result at seed {name_seeds(state.missing)}" if state.missing else "lacks a draw"
        why = f" ({'; '.join(state.unfinished)})" if state.unfinished else ""
        texts.append(f"{state.arm} did not finish: it {lacks}{why}")
    return texts


def _best(tests: list[Test], primary: MetricInfo) -> Test | None:
    sign = -1.0 if primary.direction == "lower" else 1.0
    ahead = [test for test in tests if test.paired is not None and sign * test.paired.mean > 0]
    return max(ahead, key=lambda test: sign * test.paired.mean if test.paired else 0.0, default=None)


def _clause(test: Test, comparison: Comparison, *, named: bool = True) -> str:
    name = f"{test.arm}: " if named else ""
    if test.paired is None:
        return f"{name}no common seed"
    p = p_text(test.p_holm)
    p = f"p {p[0]} {p[1:]}" if p.startswith("<") else f"p = {p}"
    unit = f" {comparison.primary.unit}" if comparison.primary.unit else ""
    return f"{name}{difference_text(test.paired, comparison.primary, unit)}, Holm {p}, n = {test.paired.n}"


def _baseline(comparison: Comparison) -> str:
    trials = comparison.experiment.tuning.get("trials") or ()
    tuned = any(trial.get("arm") == comparison.baseline for trial in trials if isinstance(trial, dict))
    return f"the tuned baseline {comparison.baseline}" if tuned else f"the baseline {comparison.baseline}"


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def difference_text(paired: PairedDifference | None, primary: MetricInfo, unit: str = "") -> str:
    """Write a difference with its interval, as the tables show it.

    Example:
        >>> from nc_tools.comparison.statistics import paired_difference
        >>> found = paired_difference([0.72, 0.75, 0.71], [0.70, 0.71, 0.70])
        >>> difference_text(found, metric_info("test/gen/accuracy"))
        '+2.3 [-1.5, +6.1]'
    """
    if paired is None:
        return "–"
    mean = primary.difference(paired.mean) + unit
    if paired.low is None or paired.high is None:
        return mean
    return f"{mean} [{primary.difference(paired.low)}, {primary.difference(paired.high)}]"


def family_text(family: Family) -> str:
    """Name a family and its correction."""
    metric = metric_info(family.metric)
    return (
        f"{family.name}, on {metric.label} ({metric.reading}); {family.size} test{'s' * (family.size != 1)}, "
        f"two-sided paired t over seeds, Holm-corrected within this family, alpha {ALPHA:g}"
    )


def reach_texts(comparison: Comparison) -> list[str]:
    """Say per arm which difference these pairs could have found."""
    primary = comparison.primary
    spaced = f" {primary.unit}" if primary.unit else ""
    texts = []
    for test in comparison.family.tests:
        if test.paired is None:
            texts.append(f"{test.arm}: no seed in common with {test.reference}")
        elif test.reach is None or test.reach.plain is None or test.reach.corrected is None:
            texts.append(f"{test.arm}: {test.paired.note}")
        else:
            plain, corrected = (_size(primary, size) for size in (test.reach.plain, test.reach.corrected))
            texts.append(f"{test.arm}: {plain}{spaced} ({corrected} corrected), n = {test.paired.n}")
    return texts


def _size(metric: MetricInfo, size: float) -> str:
    """Write a detectable difference; a share cannot differ by more than 100 points, however far the formula goes."""
    return "over 100" if metric.unit == "points" and size > 1 else metric.value(size)


def reach_heading(comparison: Comparison) -> str:
    """Say what the detectable difference is."""
    size = max(comparison.family.size, 1)
    return (
        "smallest true difference these pairs find with power .8 at alpha .05 "
        f"(corrected: at .05 / {size}, Holm's strictest step), given the observed spread"
    )


def share_texts(comparison: Comparison) -> list[str]:
    """Say per arm how much of the variance of one run is due to seeds, draws and the rest."""
    primary = comparison.primary
    texts = []
    for arm, shares in comparison.shares.items():
        if shares.total == 0:
            texts.append(f"{arm}: nothing varies over {shares.num_seeds} seeds x {shares.num_draws} draws")
            continue
        parts = [
            f"{name} {100 * part / shares.total:.0f} %"
            for name, part in (("seeds", shares.seed), ("draws", shares.draw), ("rest", shares.rest))
        ]
        clipped = f" (negative estimate of {' and '.join(shares.clipped)} set to 0)" if shares.clipped else ""
        texts.append(
            f"{arm}: {', '.join(parts)}{clipped}, {shares.num_seeds} seeds x {shares.num_draws} draws; "
            f"the draws add a standard error of {primary.value(shares.draw_error)}"
            f"{' ' + primary.unit if primary.unit else ''}"
        )
    return texts


SHARES_HEADING = (
    "variance of one run by origin (two-way random effects, method of moments); intervals are over seeds "
    "for these draws, so for any draw the standard error beside it adds in quadrature"
)

IMAGES_HEADING = (
    "per-image exact McNemar answers whether two trained models differ, not whether two recipes do; "
    "uncorrected p, one per seed (first draw), never pooled; + the arm is right more often, - the baseline"
)


def rank_text(comparison: Comparison) -> str:
    """Say what a rank or sign-flip test could reach at this n, and its p where it can say something."""
    pairs = max((test.paired.n for test in comparison.family.tests if test.paired is not None), default=0)
    lowest = f"{2.0 ** (1 - pairs):.4g}".removeprefix("0")
    floor = f"a sign-flip or rank test of {pairs} pair{'s' * (pairs != 1)} cannot go below p = {lowest}"
    given = [f"{test.arm} {p_text(test.sign_flip)}" for test in comparison.family.tests if test.sign_flip is not None]
    if given:
        return f"{floor}; sign-flip p, uncorrected: {', '.join(given)}"
    return f"{floor}, so it is {'left to six pairs or more' if pairs < 6 else 'not given'}"


def status_text(comparison: Comparison) -> str:
    """Count the runs by status."""
    counts: dict[str, int] = {}
    scored = [run for run in comparison.runs if run.kind in {"final", "loop"}]
    for run in scored:
        counts[run.status] = counts.get(run.status, 0) + 1
    return f"{len(scored)} runs compared or listed: " + ", ".join(f"{n} {s}" for s, n in sorted(counts.items()))


def seeds_text(comparison: Comparison) -> str:
    """Name the seeds of the baseline."""
    return name_seeds(comparison.state(comparison.baseline).seeds)


def image_texts(comparison: Comparison) -> list[str]:
    """Write McNemar's p of every arm, one per seed."""
    by_arm: dict[str, list[str]] = {}
    for found in comparison.disagreements:
        mark = "+" if found.only_arm > found.only_reference else "-" if found.only_arm < found.only_reference else "="
        by_arm.setdefault(found.arm, []).append(f"s{found.seed} {mark} {p_text(found.p)}")
    return [f"{arm}: {', '.join(texts)}" for arm, texts in by_arm.items()]
