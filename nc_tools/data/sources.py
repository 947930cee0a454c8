"""All image sets of a training run, and the fingerprint by which runs on the same data are recognized."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from nc_tools.data.image_set import Images
from nc_tools.data.listing import Reading


@dataclass(frozen=True, eq=False)
class Sources:
    """All image sets of a training run.

    Attributes:
        train: All training images, before any subset is drawn.
        test: The test set.
        transfer_train: Images of other classes, or the same images with finer classes, on which transfer measures are
            fitted; or None.
        transfer_test: Images of those classes, on which transfer measures are evaluated; or None.
        mean: Mean of each channel (C,), over all pixels of ``train``, in 0..1.
        std: Standard deviation of each channel (C,), likewise.
        fingerprint: 32 hexadecimal digits that depend on class names, labels and pixels of the sets and on how they
            were read. The same on every machine, and whether or not the pixels fit into memory.
        skipped: Unreadable files that were left out.
        ood: Sets for out-of-distribution scores, with the keys "near", "far" and "held_out".
        outliers: Images to train against, none of which is in another set; None if there are none or they are blended.
        reading: How the source of ``train`` and ``test`` was read.
        root: Folder that the paths of ``train`` and ``test`` are relative to; None if they have none.
        images_fingerprint: The same for two runs that train on the same images and are tested on the same ones with the
            same labels, whatever their training labels.
        given_labels: (N,) the training labels before a person corrected some; None if no labels, true labels or
            corrections are configured.
        excluded: (N,) bool, the training images that corrections leave out of every subset; None without corrections.
    """

    train: Images
    test: Images
    transfer_train: Images | None
    transfer_test: Images | None
    mean: Tensor
    std: Tensor
    fingerprint: str
    skipped: tuple[str, ...]
    ood: Mapping[str, Images] = field(default_factory=dict)
    outliers: Images | None = None
    reading: Reading = field(default_factory=Reading)
    root: Path | None = None
    images_fingerprint: str = ""
    given_labels: Tensor | None = None
    excluded: Tensor | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes that are trained on, K."""
        return self.train.num_classes


def fingerprint(*sets: Images, choices: Mapping[str, str] | None = None) -> str:
    """Return a hash of class names, labels, groups, sizes and pixels of the image sets: 32 hexadecimal digits.

    Args:
        sets: The image sets.
        choices: What was chosen when they were read, such as the column of the labels; part of the hash.
    """
    digest = hashlib.sha256(json.dumps(choices, sort_keys=True).encode() if choices else b"")
    for images in sets:
        digest.update(json.dumps([images.classes, images.shape, len(images)]).encode())
        for labels in (images.labels, images.clean_labels, images.groups):
            digest.update(b"" if labels is None else labels.numpy().astype("<i8").tobytes())
        digest.update(images.digests().numpy().tobytes())
    return digest.hexdigest()[:32]
