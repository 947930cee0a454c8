"""Get the features of a comparison: read an embedding file, or extract them from images with a frozen backbone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from nc_tools.data import make_subsets, with_noise
from nc_tools.data.first_lines import counts_text, first_lines
from nc_tools.data.image_set import Images
from nc_tools.data.imbalance import class_counts
from nc_tools.data.label_layers import with_label_files
from nc_tools.data.load_data import load_images
from nc_tools.data.source_names import parse_source
from nc_tools.data.sources import Sources
from nc_tools.experiment.check_model import check_model
from nc_tools.experiment.on_features.data_settings import refuse_unused_settings
from nc_tools.experiment.on_features.feature_data import labeled_sources
from nc_tools.experiment.on_features.feature_sources import SETS_FILE, FeatureSources, write_feature_sources
from nc_tools.experiment.progress_display import ProgressDisplay
from nc_tools.experiment.run_backbone import backbone_record, describe_backbone, frozen_backbone
from nc_tools.experiment.run_config import RunConfig
from nc_tools.features import Embeddings, ImageViews, extract_features, read_embeddings
from nc_tools.features.extract import ONE_VIEW
from nc_tools.features.image_views import image_views
from nc_tools.models.pretrained import PretrainedBackbone

CheckPlan = Callable[[tuple[int, ...], bool], object]
"""Called with the training samples of each class, and whether true labels are known; raises an error if the comparison
cannot be made on such data."""


@dataclass(frozen=True)
class PreparedFeatures:
    """The features of a comparison, ready for all its processes.

    Attributes:
        path: The file that :func:`~nc_tools.experiment.on_features.feature_sources.open_feature_sources` opens.
        class_counts: Training samples of each class.
        has_clean_labels: Whether the training labels are noisy and true ones are known.
    """

    path: Path
    class_counts: tuple[int, ...]
    has_clean_labels: bool


def prepare_features(
    config: RunConfig, out: Path, cache: Path, *, seed: int, device: str, display: ProgressDisplay, check: CheckPlan,
    tuned: bool = True,
) -> PreparedFeatures:  # fmt: skip
    """Get the features of a comparison, and print what the data are.

    Args:
        config: Any arm: all have the same data and backbone.
        out: The output folder.
        cache: Folder of the feature cache, which other comparisons can share.
        seed: Seed of the subsets that the printed lines describe.
        device: Where the backbone runs.
        display: Shows progress and lines.
        check: Called once the data are read and before features are computed, which may take an hour.
        tuned: Whether heads are tuned on a hold-out, for which some class then needs two images.

    Raises:
        FileNotFoundError: If data or weights are missing.
        ValueError: If they cannot be used together; the message says what to do.
    """
    source = parse_source(config.data.source)
    refuse_unused_settings(config.data, embeddings=source.kind == "embeddings")
    if source.kind == "embeddings" and source.path is not None:
        return _read_embeddings(source.path, config, display, check)
    return _extract(config, out, cache, seed, device, display, check, tuned=tuned)


def _read_embeddings(path: Path, config: RunConfig, display: ProgressDisplay, check: CheckPlan) -> PreparedFeatures:
    read = read_embeddings(path)
    labeled = labeled_sources(path.resolve(), config.data)
    train = labeled.train if labeled.excluded is None else labeled.train.subset((~labeled.excluded).nonzero().flatten())
    counts = class_counts(train.labels, train.num_classes)
    display.note(
        f"data {config.data.source}: {len(train):,} training and {len(read.test):,} test samples of "
        f"{train.num_classes} classes, {train.shape[0]} features"
    )
    lines = [f"training samples of each class: {counts_text(train.classes, counts)}", *labeled.reading.sentences]
    for line in (*lines, *read.notes, *_ood(read)):
        display.note(line)
    check(tuple(counts.tolist()), train.clean_labels is not None)
    return PreparedFeatures(path.resolve(), tuple(counts.tolist()), train.clean_labels is not None)


def _ood(read: Embeddings) -> list[str]:
    return [f"out-of-distribution samples ({name}): {len(part):,}" for name, part in read.ood.items()]


def _extract(
    config: RunConfig, out: Path, cache: Path, seed: int, device: str, display: ProgressDisplay, check: CheckPlan,
    *, tuned: bool,
) -> PreparedFeatures:  # fmt: skip
    if config.data.resplit is not None:
        raise ValueError(
            "the arm is chosen on the hold-outs of all seeds and confirmed on test images that none saw, so all "
            "seeds have the same test images: leave out data.resplit"
        )
    check_model(config.model)  # before the images are read, which may take minutes
    images = load_images(config.data, out / "cache", display.reading)
    sources = with_label_files(images, config.data)
    subsets = make_subsets(sources, config.data, seed)
    if tuned:
        subsets.check_holdout()
    given = sources.train.labels if sources.given_labels is None else sources.given_labels
    noise = config.data.noise
    shown = sources if noise is None else replace(sources, train=with_noise(sources.train, noise, seed))
    for line in first_lines(shown, config.data, make_subsets(shown, config.data, seed, given), given, tuned=tuned):
        display.note(line)
    counts, has_clean_labels = tuple(subsets.counts.tolist()), shown.train.clean_labels is not None
    check(counts, has_clean_labels)
    channels, size, _ = sources.train.shape
    shape = {"in_channels": channels, "image_size": size}
    mean, std = tuple(sources.mean.tolist()), tuple(sources.std.tolist())
    views = image_views(config.data, size)
    backbone = frozen_backbone(config.model, **shape, mean=mean, std=std)
    if (described := describe_backbone(config.model)) is not None:
        display.note(described)
    if views.count > 1:
        display.note(
            f"{views.count} views of each training image: {views}; each epoch takes one of them at random, and all "
            f"else uses the image itself"
        )
    extracted = _all_sets(images, views, backbone, cache, device, display)
    features = FeatureSources(
        train=extracted["train"].features,
        test=extracted["test"].features,
        ood={name: result.features for name, result in extracted.items() if name not in ("train", "test")},
        image_shape=(channels, size, size),
        mean=mean,
        std=std,
        fingerprint=images.fingerprint,
        backbone=backbone_record(config.model, **shape),
        images_fingerprint=images.images_fingerprint,
        root=images.root,
        skipped=images.skipped,
    )
    path = (out / "cache" / f"{SETS_FILE}.safetensors").resolve()
    write_feature_sources(features, {name: result.file for name, result in extracted.items()}, path)
    return PreparedFeatures(path, counts, has_clean_labels)


def _all_sets(
    sources: Sources, views: ImageViews, backbone: PretrainedBackbone, cache: Path, device: str,
    display: ProgressDisplay,
) -> dict[str, Any]:  # fmt: skip
    """Extract the features of all sets, and say how many images went through the backbone; only training has views."""
    sets: dict[str, Images] = {"train": sources.train, "test": sources.test, **sources.ood}
    results = {}
    for name, images in sets.items():
        display.extracting(name)
        results[name] = extract_features(
            images, backbone, cache, views=views if name == "train" else ONE_VIEW, device=torch.device(device),
            progress=display.extracted,
        )  # fmt: skip
        for note in results[name].notes:
            display.note(f"features of the {name} images: {note}")
    total = sum(map(len, sets.values())) + (views.count - 1) * len(sources.train)
    computed = sum(result.computed for result in results.values())
    kept = f", the others were in {cache}" if computed < total else f" and are kept in {cache}"
    counted = "images" if views.count == 1 else "images and views"
    display.note(f"features: {computed:,} of {total:,} {counted} went through the backbone{kept}")
    return results
