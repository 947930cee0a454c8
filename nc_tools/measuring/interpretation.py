"""Explain the value of each collapse metric in words, one line per metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class MeasureReading:
    """The name of one collapse metric and the explanation of its values.

    Attributes:
        key: Key of the metric in results.
        label: Its usual name.
        in_words: Turns a value into words.
        compare_test: Whether to state the test value as a multiple of the training value.
    """

    key: str
    label: str
    in_words: Callable[[float], str]
    compare_test: bool = False


def steps(first: float, near: str, second: float, middle: str, far: str) -> Callable[[float], str]:
    """Return a function from numbers to words: ``near`` below ``first``, ``middle`` below ``second``, else ``far``."""
    return lambda value: near if value < first else middle if value < second else far


FEATURE_READINGS = (
    MeasureReading(
        "nc1_pinv", "NC1, pseudo-inverse",
        steps(0.1, "classes are nearly single points", 1.0, "classes are tight, but not single points",
              "classes are spread out"), compare_test=True),
    MeasureReading(
        "nc1_trace", "NC1, trace ratio",
        steps(0.1, "far less variance within classes than between", 1.0, "less variance within classes than between",
              "more variance within classes than between"), compare_test=True),
    MeasureReading(
        "cdnv", "CDNV",
        steps(0.1, "class pairs are far apart for their width", 1.0, "class pairs overlap little",
              "class pairs overlap"), compare_test=True),
    MeasureReading(
        "vci", "variability index",
        steps(0.05, "almost no spread that a linear map cannot remove", 0.3,
              "a little spread that a linear map cannot remove", "much spread that a linear map cannot remove"),
        compare_test=True),
    MeasureReading(
        "cosine_within", "cosine within classes",
        lambda v: f"samples of a class {'point the same way' if v > 0.9 else 'differ in direction'}; 1 is collapsed"),
    MeasureReading("cosine_between", "cosine between classes", lambda _: "-1/(K - 1) in a simplex"),
    MeasureReading(
        "nc2_equinorm", "NC2, equal norms",
        steps(0.05, "class means have equal lengths", 0.25, "class means have roughly equal lengths",
              "class means have unequal lengths")),
    MeasureReading(
        "nc2_equiangular", "NC2, equal angles",
        steps(0.03, "class means are at equal angles", 0.12, "class means are at roughly equal angles",
              "some class means are much closer than others")),
    MeasureReading(
        "nc2_gram", "NC2, distance to simplex",
        steps(0.1, "class means form a simplex", 0.4, "class means are close to a simplex",
              "class means do not form a simplex")),
    MeasureReading(
        "gnc2", "GNC2, uniformity",
        steps(0.1, "classes are evenly spaced", 0.4, "classes are fairly evenly spaced",
              "classes are unevenly spaced")),
    MeasureReading(
        "nc3_distance", "NC3, head to means",
        steps(0.1, "head rows equal the class means", 0.5, "head rows are close to the class means",
              "head rows differ from the class means")),
    MeasureReading(
        "nc3_cosine", "NC3, 1 - cosine",
        steps(0.05, "head rows point along the class means", 0.3, "head rows point roughly along the class means",
              "head rows point elsewhere")),
    MeasureReading(
        "nc3_uniform", "NC3, uniform",
        steps(0.05, "all classes are equally aligned", 0.3, "classes are unequally aligned",
              "some classes are far less aligned")),
    MeasureReading(
        "nc4_disagreement", "NC4, not the nearest mean",
        lambda v: "head always predicts the nearest class mean" if v == 0 else
        f"head predicts another class than the nearest mean for {100 * v:.1f} %"),
    MeasureReading(
        "nc0", "NC0, common direction",
        steps(1e-3, "head rows sum to zero", 0.1, "head rows almost sum to zero", "head rows share a direction")),
)  # fmt: skip
"""The measures of features, in the order of the report."""

HEAD_READINGS = {
    "minority_cosine": ("cosine, rare classes", "mean over pairs; -1/(K - 1) in a simplex"),
    "minority_cosine_max": ("largest of these", "1 means merged"),
    "minority_angle_min": ("smallest angle, degrees", "between two rare classes"),
    "majority_cosine": ("cosine, other classes", "mean over pairs"),
    "cross_cosine": ("cosine, rare and other", "mean over pairs"),
    "minority_norm_ratio": ("norm, rare over other", "below 1 the head favors frequent classes"),
    "seli_weight": ("distance to SELI", "limit of imbalanced cross-entropy; 0 means reached"),
    "etf_weight": ("distance to simplex", "0 means reached"),
}
"""Label and explanation of each measure of the head's rows, by the key of the measure."""


def reading(measure: MeasureReading, train: float | None, test: float | None) -> str:
    """Return a metric's training value in words, compared with its test value; either value may be missing."""
    value = train if train is not None else test
    if value is None:
        return ""
    words = measure.in_words(value)
    if not measure.compare_test or train is None or test is None or train <= 0:
        return words
    factor = test / train
    if factor > 1.5:
        return f"{words}; {factor:.1f} times as much on test" if factor < 100 else f"{words}; far more on test"
    return f"{words}; similar on test" if factor > 0.67 else f"{words}; less on test"


def collapse_headline(train: Mapping[str, float] | None, test: Mapping[str, float] | None) -> str:
    """Return the first sentence of a collapse report, about the metric NC1."""
    value = (train or test or {}).get("nc/nc1_pinv")
    if value is None:
        return "NC1 is not defined for these images: it needs a class with two images, and class means that differ."
    images = "training" if train else "these"
    first = f"On {images} images {FEATURE_READINGS[0].in_words(value)} (NC1 {value:.3g})"
    if train and test and "nc/nc1_pinv" in test:
        factor = test["nc/nc1_pinv"] / value if value > 0 else float("inf")
        second = "similar" if factor < 1.5 else f"{min(factor, 999):.3g} times as large"
        return f"{first}; on test images NC1 is {second}."
    return f"{first}."
