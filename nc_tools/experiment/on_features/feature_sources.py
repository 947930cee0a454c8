"""The feature sets of a comparison, written by the process that computed them and opened by all others."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from nc_tools._support.atomic_write import atomic_write
from nc_tools.data.image_set import Images
from nc_tools.data.sources import Sources, fingerprint
from nc_tools.features import Embeddings, FeatureSet, read_embeddings
from nc_tools.features.feature_cache import RowsFile

EMBEDDINGS = "embeddings:"
"""Beginning of the name of a data source that is an embedding file."""


@dataclass(frozen=True, eq=False)
class FeatureSources:
    """All feature sets of a comparison, and what a record says about the images that they were computed from.

    Training labels are those of the source: each arm has its own files of labels and corrections.

    Attributes:
        train: All training samples, before any subset is drawn.
        test: The test set.
        ood: Sets for out-of-distribution scores, by name.
        image_shape: Shape (C, H, W) of the images; (D, 1, 1) for embeddings, which have none.
        mean: Mean of each channel of the images; zeros for embeddings.
        std: Standard deviation of each channel of the images; ones for embeddings.
        fingerprint: Fingerprint of the images, or of the embeddings.
        backbone: What a record says about the backbone.
        images_fingerprint: As of :class:`~nc_tools.data.Sources`.
        root: The folder that paths of samples are relative to.
        skipped: Unreadable images that were left out.
    """

    train: FeatureSet
    test: FeatureSet
    ood: Mapping[str, FeatureSet] = field(default_factory=dict)
    image_shape: tuple[int, int, int] = (1, 1, 1)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    fingerprint: str = ""
    backbone: Mapping[str, Any] = field(default_factory=dict)
    images_fingerprint: str = ""
    root: Path | None = None
    skipped: tuple[str, ...] = ()

    def as_sources(self) -> Sources:
        """Return the sets as ``Sources``, which evaluations read; a feature set has the interface of an image set."""
        return Sources(
            train=cast(Images, self.train),
            test=cast(Images, self.test),
            transfer_train=None,
            transfer_test=None,
            mean=torch.tensor(self.mean, dtype=torch.float64),
            std=torch.tensor(self.std, dtype=torch.float64),
            fingerprint=self.fingerprint,
            skipped=self.skipped,
            ood={name: cast(Images, part) for name, part in self.ood.items()},
            images_fingerprint=self.images_fingerprint,
            root=self.root,
        )


def from_embeddings(read: Embeddings, root: Path | None = None) -> FeatureSources:
    """Return the sets of an embedding file; ``root`` is the folder that its ids are relative to."""
    sets, width = [read.train, read.test, *read.ood.values()], read.train.shape[0]
    unlabeled = dataclasses.replace(read.train, labels=torch.zeros_like(read.train.labels))
    return FeatureSources(
        train=read.train,
        test=read.test,
        ood=read.ood,
        image_shape=(width, 1, 1),
        mean=(0.0,) * width,
        std=(1.0,) * width,
        fingerprint=fingerprint(*(cast(Images, part) for part in sets)),
        images_fingerprint=fingerprint(*(cast(Images, part) for part in (unlabeled, read.test))),
        root=root,
    )


def write_feature_sources(sources: FeatureSources, files: Mapping[str, RowsFile], path: Path) -> None:
    """Write feature sets to a file: labels, names and row numbers; the features stay where they are.

    Args:
        sources: The sets.
        files: The file of features of each set, by "train", "test" or the name of an out-of-distribution set.
        path: A .safetensors file.
    """
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    parts: dict[str, Any] = {}
    for name, part in _named(sources).items():
        rows = torch.arange(len(part)) if part.rows is None else part.rows
        tensors |= {f"{name}.rows": rows, f"{name}.labels": part.labels}
        if part.further_rows is not None:
            tensors[f"{name}.further_rows"] = part.further_rows
        if part.groups is not None:
            tensors[f"{name}.groups"] = part.groups
        parts[name] = {"name": part.name, "classes": part.classes, "paths": part.paths}
        parts[name]["file"] = dataclasses.asdict(files[name])
    header: dict[str, Any] = {"parts": parts, "shape": sources.image_shape, "mean": sources.mean, "std": sources.std}
    header |= {"fingerprint": sources.fingerprint, "backbone": dict(sources.backbone)}
    header |= {"images_fingerprint": sources.images_fingerprint, "skipped": sources.skipped}
    header["root"] = None if sources.root is None else str(sources.root)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part_file:
        save_file({k: v.contiguous() for k, v in tensors.items()}, part_file, metadata={"sets": json.dumps(header)})


@lru_cache(maxsize=1)
def open_feature_sources(path: Path) -> FeatureSources:
    """Open the feature sets of an embedding file, or of a file of :func:`write_feature_sources`.

    A process that makes several runs of one comparison opens them once.
    """
    from safetensors import safe_open

    if not path.name.startswith(SETS_FILE):
        return from_embeddings(read_embeddings(path), path.parent)
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["sets"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    sets = {
        name: FeatureSet(
            RowsFile(**part["file"]).open(),
            tensors[f"{name}.labels"],
            tuple(part["classes"]),
            part["name"],
            paths=None if part["paths"] is None else tuple(part["paths"]),
            groups=tensors.get(f"{name}.groups"),
            rows=tensors[f"{name}.rows"],
            further_rows=tensors.get(f"{name}.further_rows"),
        )
        for name, part in header["parts"].items()
    }
    channels, height, width = header["shape"]
    return FeatureSources(
        train=sets.pop("train"),
        test=sets.pop("test"),
        ood=sets,
        image_shape=(channels, height, width),
        mean=tuple(header["mean"]),
        std=tuple(header["std"]),
        fingerprint=header["fingerprint"],
        backbone=header["backbone"],
        images_fingerprint=header["images_fingerprint"],
        root=None if header["root"] is None else Path(header["root"]),
        skipped=tuple(header["skipped"]),
    )


SETS_FILE = "feature-sets"
"""Beginning of the names of files that :func:`write_feature_sources` writes."""


def _named(sources: FeatureSources) -> dict[str, FeatureSet]:
    return {"train": sources.train, "test": sources.test, **sources.ood}
