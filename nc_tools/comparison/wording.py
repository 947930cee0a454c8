"""The sentences of a comparison's report, which terminal, Markdown and HTML share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from nc_tools.comparison.compared_run import SCORED_KINDS
from nc_tools.comparison.metric_info import MetricInfo, metric_info
from nc_tools.comparison.pairing import name_seeds
from nc_tools.comparison.result import ALPHA, Comparison, Family
from nc_tools.comparison.statistics import PairedDifference

SHARES_HEADING = (
    "variance of the difference to the baseline between single runs, by source (random effects, method of moments). "
    "The intervals above include all of it. If every seed has frames of its own, the part of the frames also holds all "
    "other randomness within a seed"
)

IMAGES_HEADING = (
    "exact McNemar test over test images, first draw of each seed, p unadjusted. It compares two trained models, not "
    "two recipes, and seeds are not pooled. + means that the arm is right more often, - that the baseline is"
)


def p_text(p: float | None) -> str:
    """Return a p value as text with two or three digits.

    Example:
        >>> p_text(0.0312), p_text(0.00004), p_text(1.0), p_text(None)
        ('.031', '<.001', '1', '–')
    """
    if p is None or not math.isfinite(p):
        return "–"
    if p < 0.001:
        return "<.001"
    if p >= 0.9995:
        return "1"
    return f"{p:.3f}".removeprefix("0") if p < 0.1 else f"{p:.2f}".removeprefix("0")


def difference_text(paired: PairedDifference | None, primary: MetricInfo, unit: str = "") -> str:
    """Return a paired difference with its interval as text.

    Example:
        >>> from nc_tools.comparison.statistics import paired_difference
        >>> difference = paired_difference([0.72, 0.75, 0.71], [0.70, 0.71, 0.70])
        >>> difference_text(difference, metric_info("test/gen/accuracy"))
        '+2.3 [-1.5, +6.1]'
    """
    if paired is None:
        return "–"
    mean = primary.difference(paired.mean) + unit
    if paired.low is None or paired.high is None:
        return mean
    return f"{mean} [{primary.difference(paired.low)}, {primary.difference(paired.high)}]"


def unfinished_texts(comparison: Comparison) -> list[str]:
    """Return a sentence for each arm that did not finish: what is missing, and why."""
    texts = []
    for state in comparison.states:
        if not state.missing and not state.unfinished:
            continue
        missing = f"no result at seed {name_seeds(state.missing)}" if state.missing else "a run is missing"
        reasons = f" ({'; '.join(state.unfinished)})" if state.unfinished else ""
        texts.append(f"{state.arm} did not finish: {missing}{reasons}")
    return texts


def family_text(family: Family, *, tuned_each_seed: bool = False) -> str:
    """Return a description of a family of tests and of the adjustment of its p values."""
    metric = metric_info(family.metric)
    tuning = "and tuning anew on another hold-out" if tuned_each_seed else "given the settings that tuning chose"
    return (
        f"{family.name}, in {metric.label} ({metric.reading}): {family.size} two-sided paired t "
        f"test{'s' * (family.size != 1)}, p values Holm-adjusted together, alpha {ALPHA:g}. {coverage_text(family)}, "
        f"{tuning}"
    )


def test_texts(comparison: Comparison) -> list[str]:
    """Return a description of the tests, and what does not differ between seeds if the records say so."""
    family = family_text(comparison.family, tuned_each_seed=comparison.experiment.tuned_each_seed)
    return [text for text in (family, seed_sources_text(comparison)) if text]


def coverage_text(family: Family) -> str:
    """Return a sentence that says what the intervals of a family cover: new seeds, frames and test images.

    Example:
        >>> coverage_text(Family("", "test/gen/accuracy", ()))
        'The intervals cover training with another seed, on these test images'
    """
    tests = [test for test in family.tests if test.paired is not None]
    covered = ["training with another seed"]
    if any(test.frames in ("own", "crossed") for test in tests):
        covered.append("another frame")
    if family.resplit:
        covered.append("another split into training and test images")
    elif family.covers_images:
        covered.append("other test images like these")
    text = f"The intervals cover {join_names(covered)}"
    if not family.covers_images and not family.resplit:
        text += ", on these test images"
    for design, words in (("fixed", "the one frame that all seeds share"), ("shared", "these frames")):
        arms = [test.arm for test in tests if test.frames == design]
        if arms:
            text += f"; those of {join_names(arms)} hold for {words} only"
    return text


def seed_sources_text(comparison: Comparison) -> str:
    """Return a sentence saying that all seeds train on the same images, if the records show it; otherwise ""."""
    runs = comparison.cells[comparison.baseline].values()
    whole = all(
        run.data.get("num_samples") and sum(run.data.get("class_counts") or ()) == run.data["num_samples"]
        for run in runs
    )
    same = len({run.data.get("fingerprint") for run in runs}) == 1
    noise = any(isinstance(run.config.get("data"), Mapping) and run.config["data"].get("noise") for run in runs)
    if not whole or not same or noise:
        return ""
    differ = "hold-out, tuning, " if comparison.experiment.tuned_each_seed else ""
    return (
        f"All seeds train on the same images: seeds differ in {differ}initial weights, order and augmentation, and the "
        "intervals do not cover other training images"
    )


def margin_texts(comparison: Comparison) -> list[str]:
    """Return the results of the tests with the margin that was fixed before the runs; none without a margin."""
    margin, primary = comparison.experiment.margin, comparison.primary
    if margin is None or not comparison.margins:
        return []
    size = f"{primary.value(margin)}{' ' + primary.unit if primary.unit else ''}"
    equivalent = [test.arm for test in comparison.margins if test.p_equivalent < ALPHA]
    noninferior = [test.arm for test in comparison.margins if test.p_noninferior < ALPHA and test.arm not in equivalent]
    parts = [
        f"{join_names(arms)} {'is' if len(arms) == 1 else 'are'} {words}"
        for arms, words in (
            (noninferior, f"no worse than {comparison.baseline} by more than {size}"),
            (equivalent, f"within {size} of {comparison.baseline} in either direction"),
        )
        if arms
    ]
    if not parts:
        return [
            f"No arm is shown to be no worse than {comparison.baseline} by more than {size}, the margin fixed "
            "before the runs."
        ]
    return [f"{join_names(parts)} (margin fixed before the runs, Holm-adjusted p < .05)."]


def join_names(names: Sequence[str]) -> str:
    """Join names with commas and "and", for a sentence.

    Example:
        >>> join_names(["a", "b", "c"])
        'a, b and c'
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def power_heading(comparison: Comparison) -> str:
    """Return the definition of the detectable difference as text."""
    return (
        "smallest true difference that these runs detect with power .8 at alpha .05, given the observed spread "
        f"(adjusted: at .05 / {max(comparison.family.size, 1)}, the strictest step of Holm's method)"
    )


def power_texts(comparison: Comparison) -> list[str]:
    """Return one text per arm with the smallest difference that its pairs can detect."""
    primary = comparison.primary
    unit = f" {primary.unit}" if primary.unit else ""
    texts = []
    for test in comparison.family.tests:
        power = test.power
        if test.paired is None:
            texts.append(f"{test.arm}: no seed in common with {test.reference}")
        elif power is None or power.detectable is None or power.detectable_adjusted is None:
            texts.append(f"{test.arm}: {test.paired.note}")
        else:
            plain, adjusted = (_size(primary, size) for size in (power.detectable, power.detectable_adjusted))
            seeds = power.pairs_for_half_width
            needs = "cannot be had by more seeds alone" if seeds is None else f"takes {seeds} seeds"
            width = f"an interval of ± {_size(primary, power.half_width)}{unit} {needs}"
            texts.append(f"{test.arm}: {plain}{unit} ({adjusted} adjusted), n = {test.paired.n}; {width}")
    return texts


def _size(metric: MetricInfo, size: float) -> str:
    """Return a detectable difference as text; "over 100" for more than 100 points."""
    return "over 100" if metric.unit == "points" and size > 1 else metric.value(size)


def share_texts(comparison: Comparison) -> list[str]:
    """Return one text per arm with its shares of variance between seeds, between frames, and the rest."""
    primary = comparison.primary
    texts = []
    for arm, shares in comparison.shares.items():
        if shares.total == 0:
            texts.append(f"{arm}: no variance over {shares.num_seeds} seeds x {shares.frames_by_seed} frames")
            continue
        sources = [("seeds", shares.seed), ("frames", shares.frame), ("rest", shares.rest)]
        if shares.nested:
            sources = [("seeds", shares.seed), ("frames and rest", shares.frame)]
        parts = [f"{name} {100 * part / shares.total:.0f} %" for name, part in sources]
        clipped = f" (negative estimate of {' and '.join(shares.clipped)} set to 0)" if shares.clipped else ""
        texts.append(
            f"{arm}: {', '.join(parts)}{clipped}, {shares.num_seeds} seeds x {shares.frames_by_seed} "
            f"{'own ' * shares.nested}frames; standard error that the frames add {primary.value(shares.frame_error)}"
            f"{' ' + primary.unit if primary.unit else ''}"
        )
    return texts


def sign_flip_text(comparison: Comparison) -> str:
    """Return a text with the p values of the sign-flip test, or with the reason why there are none."""
    pairs = max((test.paired.n for test in comparison.family.tests if test.paired is not None), default=0)
    lowest = f"{2.0 ** (1 - pairs):.4g}".removeprefix("0")
    floor = f"with {pairs} pair{'s' * (pairs != 1)} a sign-flip or rank test cannot give p below {lowest}"
    p_values = [
        f"{test.arm} {p_text(test.sign_flip)}" for test in comparison.family.tests if test.sign_flip is not None
    ]
    if p_values:
        return f"{floor}; sign-flip p, unadjusted: {', '.join(p_values)}"
    return f"{floor}, so it is {'only given for six pairs or more' if pairs < 6 else 'not given'}"


def image_texts(comparison: Comparison) -> list[str]:
    """Return a line for each arm: the p value, at each seed, of McNemar's test against its reference."""
    by_arm: dict[str, list[str]] = {}
    for test in comparison.disagreements:
        mark = "+" if test.only_arm > test.only_reference else "-" if test.only_arm < test.only_reference else "="
        by_arm.setdefault(test.arm, []).append(f"s{test.seed} {mark} {p_text(test.p)}")
    return [f"{arm}: {', '.join(texts)}" for arm, texts in by_arm.items()]


def status_text(comparison: Comparison) -> str:
    """Return the numbers of runs by status as text."""
    counts: dict[str, int] = {}
    scored = [run for run in comparison.runs if run.kind in SCORED_KINDS]
    for run in scored:
        counts[run.status] = counts.get(run.status, 0) + 1
    return f"{len(scored)} runs: " + ", ".join(f"{n} {s}" for s, n in sorted(counts.items()))


def seeds_text(comparison: Comparison) -> str:
    """Return the seeds of the baseline as text."""
    return name_seeds(comparison.state(comparison.baseline).seeds)
