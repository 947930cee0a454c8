"""The metrics of neural collapse: of features, of the head's class vectors, and of outliers."""

from __future__ import annotations

from dataclasses import replace

from nc_tools.comparison.metric_entry import MetricEntry, in_group

_COLLAPSE = {
    "nc0": ("NC0", "Squared length of the sum of the class vectors over D: 0 if they are balanced."),
    "nc1_pinv": ("NC1", "Spread within classes over that between them, in the directions of the class means: 0 if "
                 "every class is one point."),
    "nc1_trace": ("NC1 (trace ratio)", "Total spread within classes over total spread between them."),
    "cdnv": ("CDNV", "Spread of two classes over their squared distance, mean over pairs; it bounds few-shot errors."),
    "nc2_equinorm": ("NC2 equal norms", "Relative spread of the lengths of the class means: 0 if all are equal."),
    "nc2_equiangular": ("NC2 equal angles", "Mean distance of the cosines of class means from those of a simplex."),
    "nc2_gram": ("NC2 Gram distance", "Distance of the class means' Gram matrix from that of a simplex."),
    "nc3_distance": ("NC3 distance", "Distance of class vectors and class means, both at unit norm."),
    "nc3_cosine": ("NC3 cosine", "1 - cosine of a class's vector and mean, mean over classes: 0 if aligned."),
    "nc4_disagreement": ("NC4 disagreement", "Share of images whose prediction is not the nearest class mean."),
    "nc1_pinv_pooled": ("NC1 (samples pooled)", "NC1 in which every image has the same weight, not every class."),
    "nc1_trace_pooled": ("NC1 (trace, samples pooled)", "The trace ratio in which every image has the same weight."),
    "gnc2": ("GNC2", "Relative spread of the log distances between class directions: 0 if evenly spread."),
    "gnc2_energy": ("GNC2 energy", "Mean of those log distances, negated: lower means more evenly spread."),
    "nc3_uniform": ("NC3 uniform duality", "Relative spread over classes of the cosine of vector and mean."),
    "vci": ("variability collapse index", "Share of the variance along class differences that lies within classes."),
    "cosine_within": ("cosine within classes", "Mean cosine of two images of one class: 1 if collapsed."),
    "cosine_between": ("cosine between classes", "Mean cosine of images of two classes: -1/(K - 1) if collapsed."),
    "cosine_rare": ("cosine of rare classes", "Mean cosine between the means of the rarest third of the classes."),
    "cosine_frequent": ("cosine of frequent classes", "The same of the other classes."),
    "cosine_cross": ("cosine of rare and frequent classes", "The same between a rare and a frequent class."),
    "seli_means": ("distance of class means to SELI", "SELI is the limit of cross-entropy on imbalanced classes."),
    "etf_means": ("distance of class means to a simplex", "Of Gram matrices at unit norm, as for SELI."),
}  # fmt: skip
_HEAD = {
    "minority_cosine": ("cosine of rare class vectors", "Mean over pairs of the rarest third: 1 if they have merged."),
    "minority_cosine_max": ("largest cosine of rare class vectors", "1 means that two rare classes have merged."),
    "minority_angle_min": ("smallest angle of rare class vectors", "In degrees."),
    "majority_cosine": ("cosine of frequent class vectors", "Mean over pairs of the other classes."),
    "cross_cosine": ("cosine of rare and frequent class vectors", "Mean over pairs."),
    "minority_norm_ratio": ("norm of rare over frequent class vectors", "Below 1 the head favors frequent classes."),
    "seli_weight": ("distance of class vectors to SELI", "The limit of cross-entropy on imbalanced classes."),
    "etf_weight": ("distance of class vectors to a simplex", "Of Gram matrices at unit norm, as for SELI."),
    "stable_rank": ("stable rank of the class vectors", "Number of equally strong directions."),
}


def _of_split(split: str) -> tuple[MetricEntry, ...]:
    return tuple(
        MetricEntry(f"{split}/nc/{name}", f"{{0}} {label}" if split == "*" else f"{split} {label}", help=text)
        for name, (label, text) in _COLLAPSE.items()
    )


def _on_splits() -> tuple[MetricEntry, ...]:
    entries = _of_split("*")
    meaning = "within-class variation of the training features"
    entries = tuple(
        replace(e, column="NC1", meaning=meaning, split="train") if e.pattern == "*/nc/nc1_pinv" else e for e in entries
    )
    embedded = (
        MetricEntry(f"*/nc_embedded/{name}", f"{{0}} {label} after the head's projection", help=text)
        for name, (label, text) in _COLLAPSE.items()
    )
    return (*entries, *embedded)


GEOMETRY_ENTRIES: tuple[MetricEntry, ...] = (
    *in_group("Neural collapse", _on_splits()),
    *in_group("Class vectors of the head", (
        MetricEntry(f"head/{name}", label, help=text) for name, (label, text) in _HEAD.items()
    )),
    *in_group("Class vectors of the head", (
        MetricEntry("backbone/stable_rank", "stable rank of the network's layers",
                    help="Mean over layers with a weight matrix of at most 1,024 rows or columns."),
    )),
    *in_group("Transfer", (
        MetricEntry(f"transfer/{name}", f"transfer, {label} of its training part", help=text)
        for name, (label, text) in _COLLAPSE.items()
    )),
)  # fmt: skip
