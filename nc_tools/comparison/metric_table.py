"""The table of all metrics: the name, direction, unit, format and place in the report of each metric key.

A key that has an entry here is written in words everywhere. The options of its entry put it into the summary table,
the forest plots or the cost table. A key without an entry is shown in the full tables under its own name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Direction = Literal["higher", "lower", "neither"]
Unit = Literal["", "points"]

DEFAULT_PRIMARY = "test/gen/balanced_accuracy"
NLL = "test/cal/nll"
ECE = "test/cal/ece"
ECE_SCALED = "test/cal_ts/ece"
NC1 = "train/nc/nc1_pinv"
HOLDOUT_NC1 = "holdout/nc/nc1_pinv"
PROBE = "transfer/probe/accuracy"
FITTED = "train/noise/fitted"
WRONG_SHARE = "train/noise/rate"
RECOVERED = "train/noise/recovered"

SPLITS = {"test": "test", "train": "train", "holdout": "hold-out", "best": "best epoch"}
OOD_SETS = {"near": "near outliers", "held_out": "held-out classes", "far": "far outliers"}
OOD_SCORES = {
    "msp": "MSP",
    "max_logit": "MaxLogit",
    "energy": "Energy",
    "gen": "GEN",
    "knn": "KNN",
    "mahalanobis": "Mahal.",
    "rmds": "RMDS",
    "vim": "ViM",
    "neco": "NECO",
    "nci": "NCI",
    "fdbd": "fDBD",
    "grood": "GROOD",
}
TRANSFER_METHODS = {
    "probe": "linear probe",
    "ridge": "ridge probe",
    "knn": "kNN",
    "ncc_1": "1-shot nearest class mean",
    "ncc_5": "5-shot nearest class mean",
    "imprint_1": "1-shot imprint",
    "imprint_5": "5-shot imprint",
    "finetune": "fine-tuning",
    "lpft": "probe, then fine-tuning",
    "scl": "one layer and a skip connection",
}


@dataclass(frozen=True)
class MetricEntry:
    """One entry of the table of metrics.

    Attributes:
        pattern: The metric's key in the records, ``split/group/name``; ``*`` matches any one part.
        label: Its name in words. ``{0}`` is the words of the part that the first ``*`` matches, and so on. Without a
            placeholder a leading ``*`` is the split, which is added in parentheses unless it is the test set.
        direction: Which way is better; ``"neither"`` for metrics that only describe, such as collapse and counts.
        unit: ``"points"`` for fractions, which are shown in per cent with differences in percentage points.
        decimals: Digits after the point; None writes three significant digits.
        column: Heading in the summary table; "" leaves the metric out of it.
        meaning: What that column shows.
        then: Key of a second metric that the column shows after an arrow, if it was recorded.
        instead_of: Key of a metric that takes this one's place in the summary table, if it was recorded.
        forest: Whether the report draws its differences in a forest plot beside the primary metric.
        cost: Whether the report lists it in the cost table.
        split: The split that the summary table and the forest plots show.
    """

    pattern: str
    label: str
    direction: Direction = "neither"
    unit: Unit = ""
    decimals: int | None = None
    column: str = ""
    meaning: str = ""
    then: str = ""
    instead_of: str = ""
    forest: bool = False
    cost: bool = False
    split: str = "test"

    @property
    def key(self) -> str:
        """The metric key that summary table, forest plots and cost table show for this entry."""
        return self.pattern.replace("*", self.split, 1)


def _score(name: str, label: str, column: str = "", meaning: str = "", instead_of: str = "") -> MetricEntry:
    return MetricEntry(f"*/gen/{name}", label, "higher", "points", 1, column, meaning, instead_of=instead_of)


_SCORES = (
    ("balanced_accuracy", "balanced accuracy"),
    ("accuracy", "accuracy"),
    ("macro_f1", "macro F1"),
    ("worst_class", "worst class"),
)


def _scaled(entry: MetricEntry, *, forest: bool) -> tuple[MetricEntry, ...]:
    """Return three entries of a calibration metric: as trained, after temperature scaling, with oracle temperature."""
    name = entry.pattern.removeprefix("*/cal/")
    plain = replace(entry, column="", meaning="", then="", forest=False)
    return (
        entry,
        replace(plain, pattern=f"*/cal_ts/{name}", label=f"{entry.label} after temperature", forest=forest),
        replace(plain, pattern=f"*/cal_oracle/{name}", label=f"{entry.label} after oracle temperature"),
    )


def _calibration() -> tuple[MetricEntry, ...]:
    nll = MetricEntry("*/cal/nll", "NLL", "lower", "", 3, "NLL", "negative log-likelihood on the test set", forest=True)
    ece = MetricEntry(
        "*/cal/ece", "ECE", "lower", "points", 1, "ECE", "expected calibration error in points", then=ECE_SCALED
    )
    return (
        *_scaled(nll, forest=False),
        *_scaled(MetricEntry("*/cal/brier", "Brier score", "lower", "", 3), forest=False),
        *_scaled(ece, forest=True),
        *_scaled(MetricEntry("*/cal/ece_mass", "ECE (equal mass)", "lower", "points", 1), forest=False),
    )


_COLLAPSE = {
    "nc0": "NC0",
    "nc1_pinv": "NC1",
    "nc1_trace": "NC1 (trace ratio)",
    "cdnv": "CDNV",
    "nc2_equinorm": "NC2 equal norms",
    "nc2_equiangular": "NC2 equal angles",
    "nc2_gram": "NC2 Gram distance",
    "nc3_distance": "NC3 distance",
    "nc3_cosine": "NC3 cosine",
    "nc4_disagreement": "NC4 disagreement",
    "nc1_pinv_pooled": "NC1 (samples pooled)",
    "nc1_trace_pooled": "NC1 (trace, samples pooled)",
}


def _collapse() -> tuple[MetricEntry, ...]:
    on_splits = [MetricEntry(f"*/nc/{name}", f"{{0}} {label}") for name, label in _COLLAPSE.items()]
    nc1 = on_splits[1]
    on_splits[1] = replace(nc1, split="train", column="NC1", meaning="within-class variation of the training features")
    on_target = [
        MetricEntry(f"transfer/{name}", f"transfer, {label} of its training part") for name, label in _COLLAPSE.items()
    ]
    return (*on_splits, *on_target)


METRICS: tuple[MetricEntry, ...] = (
    _score("balanced_accuracy", "balanced accuracy", "bal. acc.", "balanced accuracy on the test set"),
    _score("accuracy", "accuracy"),
    _score("macro_f1", "macro F1"),
    _score("worst_class", "worst class"),
    _score("many", "many-shot accuracy"),
    _score("medium", "medium-shot accuracy"),
    _score("few", "few-shot accuracy", "few", "few-shot accuracy"),
    _score("head", "head third"),
    _score("middle", "middle third"),
    _score("tail", "tail third", "tail", "tail third", instead_of="test/gen/few"),
    *_calibration(),
    MetricEntry("*/noise/fitted", "wrong labels fitted", "lower", "points", 1, "wrong fitted",
                "share of the wrong training labels that the model fits", split="train"),
    MetricEntry("*/noise/recovered", "mislabeled images classified as their true class", "higher", "points", 1),
    MetricEntry("*/noise/carried_over", "mislabeled images closer to the class of their label", "lower", "points", 1),
    MetricEntry("*/noise/rate", "share of wrong labels", "neither", "points", 1),
    MetricEntry("*/noise/distance_true", "distance of mislabeled images to their true class"),
    MetricEntry("*/noise/distance_given", "distance of mislabeled images to the class of their label"),
    MetricEntry("*/noise/dilation", "dilation of the classes"),
    MetricEntry("noise/transition_error_anchor", "error of the transition matrix from anchors", "lower", "", 3),
    MetricEntry("noise/transition_error_confusion", "error of the transition matrix from the hold-out", "lower", "", 3),
    MetricEntry("*/suspects/precision", "wrong labels among the first suspects", "higher", "points", 1, "suspects",
                "share of wrong labels among as many first suspects as labels are wrong", split="train"),
    MetricEntry("*/suspects/precision_loss", "wrong labels among the first suspects by loss", "higher", "points", 1),
    MetricEntry("*/suspects/precision_distance", "wrong labels among the first suspects by distance", "higher",
                "points", 1),
    *(replace(_score(name, f"{label} under true labels"), pattern=f"*/gen_clean/{name}") for name, label in _SCORES),
    *_collapse(),
    MetricEntry(PROBE, "transfer, linear probe", "higher", "points", 1, "probe",
                "transfer: accuracy of a linear probe", forest=True),
    MetricEntry("transfer/*/accuracy", "transfer, {0}", "higher", "points", 1),
    MetricEntry("transfer/*/interval", "transfer, {0}: half of the 95 % interval over draws of shots", "neither",
                "points", 1),
    MetricEntry("transfer/layers/spearman", "transfer, Spearman of NC1 and probe over layers"),
    MetricEntry("transfer/layers/kendall", "transfer, Kendall of NC1 and probe over layers"),
    MetricEntry("transfer/layers/number", "transfer, layers"),
    MetricEntry("transfer/*/*", "transfer, {0} {1}"),
    MetricEntry("transfer/*", "transfer, {0}"),
    MetricEntry("*/ood/*/*/auroc", "{1}, {2}, AUROC", "higher", "points", 1),
    MetricEntry("*/ood/*/*/aupr_in", "{1}, {2}, AUPR in", "higher", "points", 1),
    MetricEntry("*/ood/*/*/aupr_out", "{1}, {2}, AUPR out", "higher", "points", 1),
    MetricEntry("*/ood/*/*/fpr95", "{1}, {2}, FPR at 95 % TPR", "lower", "points", 1),
    MetricEntry("*/ood/*/*/*", "{1}, {2}, {3}"),
    MetricEntry("cal/temperature", "temperature"),
    MetricEntry("cal/temperature_oracle", "oracle temperature"),
    MetricEntry("best/epoch", "best epoch on the hold-out"),
    MetricEntry("perf/seconds", "training seconds", "lower", cost=True),
    MetricEntry("perf/parameters", "parameters", decimals=0, cost=True),
    MetricEntry("perf/head_parameters", "head parameters", decimals=0, cost=True),
    MetricEntry("perf/max_memory_mb", "peak memory (MB)", "lower", cost=True),
    MetricEntry("perf/images_per_s", "images per second", "higher"),
)  # fmt: skip
"""All entries, in the order of the report's columns and plots."""
