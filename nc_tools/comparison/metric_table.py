"""The table of all metrics: the name, direction, unit, format, group and meaning of each metric key.

A key that has an entry here is written in words everywhere. The options of its entry put it into the summary table,
the forest plots or the cost table. A key without an entry is shown in the full tables under its own name.
"""

from __future__ import annotations

from nc_tools.comparison.geometry_entries import GEOMETRY_ENTRIES
from nc_tools.comparison.metric_entry import MetricEntry, fraction, in_group
from nc_tools.comparison.prediction_entries import PREDICTION_ENTRIES

NC1 = "train/nc/nc1_pinv"
PROBE = "transfer/probe/accuracy"
FITTED = "train/noise/fitted"
WRONG_SHARE = "train/noise/rate"
RECOVERED = "train/noise/recovered"

_NOISE = (
    MetricEntry("*/noise/fitted", "wrong labels fitted", "lower", "points", 1, "wrong fitted",
                "share of the wrong training labels that the model fits", split="train",
                help="Memorization: how many wrong labels the model repeats."),
    fraction("*/noise/recovered", "mislabeled images classified as their true class", "higher",
           "Images with a wrong label that the model classifies rightly nevertheless."),
    fraction("*/noise/carried_over", "mislabeled images closer to the class of their label", "lower",
           "By the distance of their features to the two class means."),
    fraction("*/noise/rate", "share of wrong labels", "neither", "Of the training labels."),
    MetricEntry("*/noise/distance_true", "distance of mislabeled images to their true class"),
    MetricEntry("*/noise/distance_given", "distance of mislabeled images to the class of their label"),
    MetricEntry("*/noise/dilation", "dilation of the classes", help="NC1 (trace ratio) under true labels."),
    MetricEntry("noise/transition_error_anchor", "error of the transition matrix from anchors", "lower", "", 3),
    MetricEntry("noise/transition_error_confusion", "error of the transition matrix from the hold-out", "lower", "", 3),
    MetricEntry("*/suspects/precision", "wrong labels among the first suspects", "higher", "points", 1, "suspects",
                "share of wrong labels among as many first suspects as labels are wrong", split="train"),
    fraction("*/suspects/precision_loss", "wrong labels among the first suspects by loss", "higher", ""),
    fraction("*/suspects/precision_distance", "wrong labels among the first suspects by distance", "higher", ""),
)  # fmt: skip
_TRANSFER = (
    MetricEntry(PROBE, "transfer, linear probe", "higher", "points", 1, "probe",
                "transfer: accuracy of a linear probe", forest=True,
                help="A linear classifier is trained on the frozen features of the transfer set."),
    fraction("transfer/*/accuracy", "transfer, {0}", "higher", "Accuracy on the transfer set."),
    fraction("transfer/*/interval", "transfer, {0}: half of the 95 % interval over draws of shots", "neither", ""),
    MetricEntry("transfer/layers/spearman", "transfer, Spearman of NC1 and probe over layers"),
    MetricEntry("transfer/layers/kendall", "transfer, Kendall of NC1 and probe over layers"),
    MetricEntry("transfer/layers/number", "transfer, layers"),
    MetricEntry("transfer/*/*", "transfer, {0} {1}"),
    MetricEntry("transfer/*", "transfer, {0}"),
)  # fmt: skip
_OUTLIERS = (
    fraction("*/ood/*/*/auroc", "{1}, {2}, AUROC", "higher",
           "Chance that an outlier gets a higher score than a test image; 50 is guessing."),
    fraction("*/ood/*/*/aupr_in", "{1}, {2}, AUPR in", "higher", "Average precision with test images as positives."),
    fraction("*/ood/*/*/aupr_out", "{1}, {2}, AUPR out", "higher", "Average precision with outliers as positives."),
    fraction("*/ood/*/*/fpr95", "{1}, {2}, FPR at 95 % TPR", "lower",
           "Outliers taken for known classes where 95 % of the test images are."),
    MetricEntry("*/ood/*/*/*", "{1}, {2}, {3}"),
    MetricEntry("*/ood/mean/*/auroc", "AUROC of {1}, mean over the outlier sets", "higher", "points", 1,
                "AUROC", "AUROC of the score, mean over the sets of outliers",
                help="Mean of the AUROC over the sets of outliers, so that no set decides alone."),
    MetricEntry("*/ood/*/nc5", "{1}, NC5",
                help="Mean |cosine| of the class means and the outliers' mean: 0 if outliers are orthogonal."),
)  # fmt: skip
_COST = (
    MetricEntry("perf/seconds", "training seconds", "lower", cost=True),
    MetricEntry("perf/side_by_side", "runs side by side", decimals=0, cost=True,
                help="Runs that trained in one process; the training seconds of each are its share."),
    MetricEntry("perf/processes", "processes", decimals=0, cost=True,
                help="Processes that trained each run together; the training seconds are those of all at once."),
    MetricEntry("perf/parameters", "parameters", decimals=0, cost=True),
    MetricEntry("perf/trained_parameters", "trained parameters", decimals=0, cost=True),
    MetricEntry("perf/head_parameters", "head parameters", decimals=0, cost=True),
    MetricEntry("perf/max_memory_mb", "peak memory (MB)", "lower", cost=True),
    MetricEntry("perf/images_per_s", "images per second", "higher"),
    MetricEntry("perf/evaluation_seconds", "evaluation seconds", "lower",
                help="Everything that is measured after training, which is not part of the training seconds."),
)  # fmt: skip

METRICS: tuple[MetricEntry, ...] = (
    *PREDICTION_ENTRIES,
    *in_group("Label noise", _NOISE),
    *GEOMETRY_ENTRIES,
    *in_group("Transfer", _TRANSFER),
    *in_group("Out-of-distribution detection", _OUTLIERS),
    MetricEntry("best/epoch", "best epoch on the hold-out"),
    *in_group("Cost", _COST),
)
"""All entries, in the order of the report's columns and plots."""
