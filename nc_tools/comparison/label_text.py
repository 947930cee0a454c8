"""Which labels the arms were trained on, in words: drawn noise, the labels of a file, a person's corrections."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from statistics import fmean
from typing import Any

from nc_tools.comparison.compared_run import ComparedRun
from nc_tools.comparison.metric_table import WRONG_SHARE
from nc_tools.comparison.result import Comparison

LABELS_OF_THE_DATA = "labels of the data"
"""Words for training labels that no file, no noise and no decision has changed."""


def training_labels(runs: Sequence[ComparedRun]) -> str:
    """Describe the training labels of an arm's runs, with the share of wrong labels where it is known.

    Args:
        runs: Of one arm, with one configuration of the data.

    Example:
        >>> noise = {"dataclass": "nc_tools.data.synthetic_noise.SymmetricNoise", "rate": 0.4}
        >>> training_labels([ComparedRun("linear", 0, 0, "FINISHED", config={"data": {"noise": noise}})])
        'labels with drawn noise (symmetric, rate 0.4)'
        >>> human = {"labels": "cifar10n.csv:worse", "clean": "data"}
        >>> training_labels([ComparedRun("linear", 0, 0, "FINISHED", {WRONG_SHARE: 0.4}, config={"data": human})])
        'labels of cifar10n.csv:worse, not drawn (40.0 % differ from the true labels)'
    """
    data = next((run.config.get("data") for run in runs), None)
    data = data if isinstance(data, Mapping) else {}
    shares = [share for run in runs if math.isfinite(share := run.final.get(WRONG_SHARE, math.nan))]
    wrong = f"{100 * fmean(shares):.1f} % " if shares else ""
    if data.get("noise"):
        facts = [_noise(data["noise"]), *([f"{wrong}are wrong"] if wrong else [])]
        return f"labels with drawn noise ({'; '.join(facts)})"
    text = LABELS_OF_THE_DATA if data.get("labels") is None else f"labels of {_file_name(data['labels'])}"
    if data.get("corrections") is not None:
        text += f" with the decisions of {_file_name(data['corrections'])}"
    if any(shares):
        return f"{text}, not drawn ({wrong}differ from the true labels)"
    return text


def arm_labels(comparison: Comparison) -> dict[str, str]:
    """Return the training labels of each arm in words."""
    cells = comparison.cells
    return {arm: training_labels(list(cells[arm].values())) if arm in cells else "" for arm in comparison.arms}


def labels_caption(comparison: Comparison) -> str:
    """Return a sentence about the training labels, shown with each table; "" for the data's own labels."""
    groups = _groups(comparison)
    if set(groups) <= {LABELS_OF_THE_DATA}:
        return ""
    if len(groups) == 1:
        return f"Training labels of all arms: {next(iter(groups))}."
    parts = [f"{', '.join(arms)}: {text}" for text, arms in groups.items()]
    return f"Training labels differ by arm. {'; '.join(parts)}."


def labels_clause(comparison: Comparison) -> str:
    """Return the start of a headline, which names the training labels; "" for the data's own labels."""
    groups = _groups(comparison)
    if set(groups) <= {LABELS_OF_THE_DATA}:
        return ""
    same = next(iter(groups)) if len(groups) == 1 else "labels that differ by arm, as listed at the table"
    return f"Trained on {same}: "


def _groups(comparison: Comparison) -> dict[str, list[str]]:
    """Return the arms that share each text, arms without a run left out."""
    groups: dict[str, list[str]] = {}
    for arm, text in arm_labels(comparison).items():
        if text:
            groups.setdefault(text, []).append(arm)
    return groups


def _noise(noise: Any) -> str:
    """Return the kind of drawn noise and its rate, as the record of a run holds them."""
    if not isinstance(noise, Mapping):
        return "of a kind that the record does not name"
    kind = str(noise.get("dataclass") or "").rpartition(".")[2].removesuffix("Noise").lower() or "unknown kind"
    rate = noise.get("rate")
    return f"{kind}, rate {rate:g}" if isinstance(rate, int | float) else kind


def _file_name(text: Any) -> str:
    """Return the name of a file without its folders; a column behind a colon stays."""
    return PurePath(str(text)).name
