"""Cautions about arms that trained on other data: outlier images, or labels that make other classes rare."""

from __future__ import annotations

from nc_tools.comparison.pairing import Cells
from nc_tools.comparison.result import Caution


def outlier_cautions(cells: Cells) -> list[Caution]:
    """Caution against arms that trained with outlier images, which is more information, if other arms did not."""
    sources: dict[str, str] = {}
    for arm, of_arm in cells.items():
        names = {str(run.data["outliers"]) for run in of_arm.values() if run.data.get("outliers")}
        if names:
            sources[arm] = ", ".join(sorted(names))
    if not sources or len(sources) == len(cells):
        return []
    text = (
        f"{', '.join(sources)} trained with outlier images ({', '.join(dict.fromkeys(sources.values()))}), the other "
        "arms did not. Only a comparison among these arms separates the effect of a method from that of the outliers"
    )
    return [Caution("outliers", "", text)]


def group_cautions(cells: Cells) -> list[Caution]:
    """Caution against values by class group if the labels of the arms differ, and with them the frequent classes."""
    counts: dict[int, set[tuple[int, ...]]] = {}
    for of_arm in cells.values():
        for run in of_arm.values():
            if isinstance(own := run.data.get("class_counts"), list | tuple):
                counts.setdefault(run.seed, set()).add(tuple(own))
    if not any(len(different) > 1 for different in counts.values()):
        return []
    text = (
        "the labels of the arms make other classes rare or frequent: values of many, medium and few or of the head, "
        "middle and tail third are about other classes in each arm, so do not compare them"
    )
    return [Caution("frequency groups", "", text)]
