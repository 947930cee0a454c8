"""The images of a data source whose labels are checked: features of a pretrained network, extracted once and cached."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from nc_tools.choosing.head_arms import ArmOptions, head_arms
from nc_tools.experiment.on_features.feature_options import SourceOptions, model_config, source_config
from nc_tools.experiment.on_features.feature_sources import open_feature_sources
from nc_tools.experiment.on_features.prepare import prepare_features
from nc_tools.experiment.progress_display import ProgressDisplay
from nc_tools.experiment.recipe_cli import torch_device
from nc_tools.features import FeatureSet
from nc_tools.suspects.labeled_rows import LabeledSamples, with_labels_of


def read_labeled_images(
    options: SourceOptions, labels: str | None, out: Path
) -> tuple[dict[str, LabeledSamples], Path | None]:
    """Return the training and test images with features and labels, and the folder that their paths are relative to.

    Args:
        options: The images and the network.
        labels: ``FILE:COLUMN`` or ``FILE:COLUMN,COLUMN,...``, see
            :func:`~nc_tools.suspects.labeled_rows.read_labeled_rows`.
        out: The output folder; the feature cache is in it if ``options`` name no other.

    Raises:
        FileNotFoundError: If data, weights or labels are missing.
        ValueError: If they do not fit together.
    """
    data = source_config(options)
    if labels is not None:
        replace(data, labels=labels.partition(",")[0])  # refuses a source whose images have no paths
    common = ArmOptions(data=data, model=model_config(options))
    arm = next(iter(head_arms(common, imbalanced=False).values()))
    with ProgressDisplay(Console(highlight=False)) as display:
        prepared = prepare_features(
            arm, out, options.cache or out / "cache", seed=0, device=torch_device(options.device), display=display,
            check=lambda _counts, _noisy: None, tuned=False,  # nothing is compared
        )  # fmt: skip
    sources = open_feature_sources(prepared.path)
    parts = {"train": _samples(sources.train, 0), "test": _samples(sources.test, len(sources.train))}
    if labels is None:
        return parts, sources.root
    return with_labels_of(parts, labels, sources.root or Path()), sources.root


def _samples(part: FeatureSet, start: int) -> LabeledSamples:
    everything = torch.arange(len(part))
    return LabeledSamples(part.take(everything), part.labels, part.classes, start + everything, part.paths)
