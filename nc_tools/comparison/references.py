"""Which arms are also tested against a reference: the arm with the standard head and the same loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nc_tools.comparison.compared_run import ComparedRun


def valid_references(
    references: Mapping[str, str], cells: Mapping[str, Mapping[Any, ComparedRun]]
) -> tuple[dict[str, str], list[str]]:
    """Return the references that have the loss of their arm, and a note about each of the others.

    A test against a reference shows the effect of the head without that of the loss, so the losses may differ only in
    their numbers. Where the records do not say what the losses are, the reference is kept.

    Args:
        references: Arm -> its reference.
        cells: Runs by arm.
    """
    valid, notes = {}, []
    for arm, reference in references.items():
        own, other = (loss_kind(_loss(cells.get(name, {}).values())) for name in (arm, reference))
        if own and other and own != other:
            notes.append(f"{arm} is not tested against its reference {reference}: their losses differ")
        else:
            valid[arm] = reference
    return valid, notes


def loss_kind(recorded: object) -> object:
    """Return the classes of a recorded loss and of the losses in it, without numbers; None if the record holds no loss.

    Example:
        >>> loss_kind({"class": "FocalLoss", "arguments": {"gamma": 2.0}})
        ('FocalLoss', ())
    """
    if not isinstance(recorded, Mapping) or "class" not in recorded:
        return [loss_kind(part) for part in recorded] if isinstance(recorded, list | tuple) else None
    arguments = recorded.get("arguments")
    named = arguments.items() if isinstance(arguments, Mapping) else ()
    parts = sorted((name, kind) for name, value in named if (kind := loss_kind(value)))
    return str(recorded["class"]), tuple(parts)


def _loss(runs: Iterable[ComparedRun]) -> object:
    return next((run.config.get("loss") for run in runs if isinstance(run.config, Mapping)), None)
