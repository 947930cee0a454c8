"""What a metric key means to a reader: its name in words, which way is better, how its numbers are shown."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from nc_tools._support.suggestions import did_you_mean

Direction = Literal["higher", "lower", "neither"]

PRIMARY = "test/gen/balanced_accuracy"

_SPLITS = {"test": "test", "train": "train", "holdout": "hold-out", "best": "best epoch"}

_GENERALIZATION = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "worst_class": "worst class",
    "many": "many-shot accuracy",
    "medium": "medium-shot accuracy",
    "few": "few-shot accuracy",
    "head": "head third",
    "middle": "middle third",
    "tail": "tail third",
}
_CALIBRATION = {"nll": "NLL", "brier": "Brier score", "ece": "ECE", "ece_mass": "ECE (equal mass)"}
_CALIBRATION_GROUPS = {"cal": "", "cal_ts": " after temperature", "cal_oracle": " after oracle temperature"}
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
_TRANSFER = {
    "probe": "linear probe",
    "ridge": "ridge probe",
    "knn": "kNN",
    "ncc_1": "1-shot class center",
    "ncc_5": "5-shot class center",
    "imprint_1": "1-shot imprint",
    "imprint_5": "5-shot imprint",
    "finetune": "fine-tuning",
    "lpft": "probe, then fine-tuning",
    "scl": "one layer and a skip connection",
}
_LAYERS = {
    "spearman": "Spearman of NC1 and probe over layers",
    "kendall": "Kendall of NC1 and probe over layers",
    "number": "layers",
}
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
_SEPARATION = {"auroc": "AUROC", "aupr_in": "AUPR in", "aupr_out": "AUPR out", "fpr95": "FPR at 95 % TPR"}
_RUN = {
    "cal/temperature": "temperature",
    "cal/temperature_oracle": "oracle temperature",
    "best/epoch": "best epoch on the hold-out",
}
_COST = {
    "seconds": "training seconds",
    "images_per_s": "images per second",
    "max_memory_mb": "peak memory (MB)",
    "parameters": "parameters",
    "head_parameters": "head parameters",
}


@dataclass(frozen=True)
class MetricInfo:
    """How one metric is named, read and written.

    Attributes:
        key: The metric's key in the records, ``split/group/name``.
        label: Its name in words.
        direction: Which way is better; ``"neither"`` for what only describes (the collapse measures, counts).
        unit: ``"points"`` for fractions, which are shown in per cent with differences in percentage points.
        decimals: Digits after the point; None writes three significant digits.
    """

    key: str
    label: str
    direction: Direction = "neither"
    unit: Literal["", "points"] = ""
    decimals: int | None = None

    @property
    def arrow(self) -> str:
        """The mark that says which way is better: an upward arrow, a downward arrow, or nothing."""
        return {"higher": "↑", "lower": "↓", "neither": ""}[self.direction]

    @property
    def reading(self) -> str:
        """The direction in words, for headings."""
        return {
            "higher": "higher is better",
            "lower": "lower is better",
            "neither": "describes, does not judge",
        }[self.direction]

    def value(self, number: float | None) -> str:
        """Write a value (fractions in per cent), or a dash where there is none."""
        return "–" if number is None or not math.isfinite(number) else self._write(number)

    def difference(self, number: float | None) -> str:
        """Write a difference with its sign, so that no reader has to guess it."""
        if number is None or not math.isfinite(number):
            return "–"
        text = self._write(number)
        return text if text.startswith("-") else f"+{text}"

    def mean_and_sd(self, mean: float | None, sd: float | None) -> str:
        """Write a mean with its standard deviation, both to the mean's last digit."""
        text = self.value(mean)
        if mean is None or sd is None or not math.isfinite(mean + sd):
            return text
        digits = len(text.partition(".")[2]) if "e" not in text else None
        scale = 100.0 if self.unit == "points" else 1.0
        return f"{text} ± {self.value(sd) if digits is None else f'{scale * sd:,.{digits}f}'}"

    def improvement(self, number: float) -> Literal["better", "worse", "neither"]:
        """Say what a difference of this sign means."""
        if self.direction == "neither" or number == 0 or not math.isfinite(number):
            return "neither"
        return "better" if (number > 0) == (self.direction == "higher") else "worse"

    def _write(self, number: float) -> str:
        shown = 100.0 * number if self.unit == "points" else number
        if self.decimals is not None:
            text = f"{shown:,.{self.decimals}f}"
        elif abs(shown) >= 1000:
            text = f"{shown:,.0f}"
        else:
            text = f"{shown:.3g}"
        return text.removeprefix("-") if float(text.replace(",", "")) == 0 else text


def metric_info(key: str) -> MetricInfo:
    """Describe a metric key; an unknown one keeps its key as its name and is not judged.

    Example:
        >>> metric_info("test/cal/nll").reading
        'lower is better'
        >>> metric_info("test/gen/balanced_accuracy").difference(0.021)
        '+2.1'
        >>> metric_info("my/own/number").label
        'my/own/number'
    """
    split, _, rest = key.partition("/")
    group, _, name = rest.partition("/")
    place = _SPLITS.get(split, split)
    if group == "gen" and name in _GENERALIZATION:
        return MetricInfo(key, _placed(_GENERALIZATION[name], place), "higher", "points", 1)
    if group in _CALIBRATION_GROUPS and name in _CALIBRATION:
        label = _placed(_CALIBRATION[name] + _CALIBRATION_GROUPS[group], place)
        share = name.startswith("ece")
        return MetricInfo(key, label, "lower", "points" if share else "", 1 if share else 3)
    if group == "nc" and name in _COLLAPSE:
        return MetricInfo(key, f"{place} {_COLLAPSE[name]}")
    if group == "ood" and name.count("/") == 2:
        return _ood(key, *name.split("/"))
    if split == "transfer":
        return _of_transfer(key, group, name)
    if key in _RUN:
        return MetricInfo(key, _RUN[key])
    if split == "perf" and group in _COST:
        lower = group in {"seconds", "max_memory_mb"}
        direction: Direction = "lower" if lower else "higher" if group == "images_per_s" else "neither"
        return MetricInfo(key, _COST[group], direction, decimals=0 if group.endswith("parameters") else None)
    return MetricInfo(key, key)


def check_known(key: str) -> None:
    """Refuse a key of the test set that no run records, with the nearest ones that runs do.

    Raises:
        ValueError: If it is none of ours.

    Example:
        >>> check_known("test/gen/balanced_acuracy")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: no run records 'test/gen/balanced_acuracy'; did you mean 'test/gen/balanced_accuracy' or ...
    """
    if key.startswith("test/") and metric_info(key).label == key:
        known = [f"test/gen/{name}" for name in _GENERALIZATION]
        known += [f"test/{group}/{name}" for group in _CALIBRATION_GROUPS for name in _CALIBRATION]
        raise ValueError(f"no run records {key!r}; {did_you_mean(key, known)}")


def _ood(key: str, where: str, score: str, name: str) -> MetricInfo:
    label = f"{OOD_SETS.get(where, where)}, {OOD_SCORES.get(score, score)}, {_SEPARATION.get(name, name)}"
    if name not in _SEPARATION:
        return MetricInfo(key, label)
    return MetricInfo(key, label, "lower" if name == "fpr95" else "higher", "points", 1)


def _of_transfer(key: str, group: str, name: str) -> MetricInfo:
    reader = _TRANSFER.get(group, group)
    if name == "accuracy":
        return MetricInfo(key, f"transfer, {reader}", "higher", "points", 1)
    if name == "interval":
        return MetricInfo(
            key, f"transfer, {reader}: half of the 95 % interval over draws of shots", "neither", "points", 1
        )
    if group in _COLLAPSE and not name:
        return MetricInfo(key, f"transfer, {_COLLAPSE[group]} of its training part")
    if group == "layers" and name in _LAYERS:
        return MetricInfo(key, f"transfer, {_LAYERS[name]}")
    return MetricInfo(key, f"transfer, {reader} {name}".rstrip())


def _placed(label: str, place: str) -> str:
    """Name the split unless it is the test set, which is what a reader expects."""
    return label if place == "test" else f"{label} ({place})"


def p_text(p: float | None) -> str:
    """Write a p value without false precision.

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
