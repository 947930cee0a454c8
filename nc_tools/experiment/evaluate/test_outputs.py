"""Write what a report needs of the test set image by image and class by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from nc_tools.experiment.weight_files import save_tensors
from nc_tools.metrics import per_class
from nc_tools.records import Collected
from nc_tools.run_records.json_files import write_json


def write_test_outputs(
    run: Path,
    outputs: Collected,
    *,
    classes: Sequence[str],
    counts: Sequence[int],
    temperatures: Mapping[str, float],
    coverage: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """Write per_class.json and predictions.safetensors into a run's folder.

    Args:
        run: The folder.
        outputs: The model's outputs for the test set.
        classes: K names.
        counts: Training samples of each class (K,).
        temperatures: Fitted temperatures by name, such as "temperature".
        coverage: Share of the test samples of each class whose prediction set contains it (K,), by method; None if
            there are no sets.
    """
    recall = per_class(outputs.logits, outputs.labels, torch.tensor(list(counts)))
    table = {
        "classes": list(classes),
        "train_counts": list(counts),
        "test_counts": recall.test_counts,
        "recall": recall.recall,
        "group": recall.group,
    }
    if coverage:
        table["coverage"] = dict(coverage)
    write_json(run / "per_class.json", table)
    tensors = {"test_logits": outputs.logits, "test_labels": outputs.labels}
    tensors |= {name: torch.tensor([value]) for name, value in temperatures.items()}
    save_tensors(tensors, run / "predictions.safetensors")
