"""What data a run trains on: one frozen record that can be hashed, logged and repeated."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from nc_tools.data.coarse import check_grouping
from nc_tools.data.label_noise import Noise

Profile = Literal["exponential", "step"]
Protocol = Literal["seeded", "ldam"]
SOURCE_KINDS = ("digits", "imagefolder", "cifar10", "cifar100")


class SourceName(NamedTuple):
    """A parsed source: what kind it is and where it lies (None: the kind's own default place)."""

    kind: str
    path: Path | None


def parse_source(text: str) -> SourceName:
    r"""Split ``KIND[:PATH]`` at the first colon, so that ``imagefolder:C:\\data`` keeps its drive letter.

    Example:
        >>> parse_source("digits")
        SourceName(kind='digits', path=None)
        >>> parse_source("imagefolder:birds").path.name
        'birds'

    Raises:
        ValueError: If the kind is unknown, or a path is missing or not wanted.
    """
    kind, colon, path = text.partition(":")
    if kind not in SOURCE_KINDS:
        near = difflib.get_close_matches(kind, SOURCE_KINDS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "; a folder of images is imagefolder:PATH"
        raise ValueError(f"a data source must be one of {', '.join(SOURCE_KINDS)}, got {text!r}{hint}")
    if kind == "imagefolder" and not path:
        raise ValueError("an image folder needs its path, as in imagefolder:PATH, and none was given")
    if kind == "digits" and colon:
        raise ValueError(f"the embedded digits have no path, got {text!r}: say digits alone")
    return SourceName(kind, Path(path).expanduser() if path else None)


def parse_labels(text: str) -> tuple[Path, str]:
    r"""Split ``FILE:COLUMN`` at the last colon, so that ``C:\\labels.csv:worse`` keeps its drive letter.

    Example:
        >>> parse_labels("labels.csv:worse")[1]
        'worse'

    Raises:
        ValueError: If file or column is missing.
    """
    file, _, column = text.rpartition(":")
    if not file or not column or "/" in column or "\\" in column:
        raise ValueError(f"labels must be given as FILE:COLUMN, as in labels.csv:worse, got {text!r}")
    return Path(file).expanduser(), column


@dataclass(frozen=True)
class DataConfig:
    """Source, long tail, hold-out and transfer set of a run.

    Attributes:
        source: ``digits``, ``imagefolder:PATH``, ``cifar10[:ROOT]`` or ``cifar100[:ROOT]``.
        labels: ``FILE:COLUMN`` of a CSV that overrides the training labels, or None.
        noise: Synthetic noise on the training labels, such as ``SymmetricNoise(0.4)``, or None. Drawn anew for each
            seed; a long tail is cut by the true classes before, as in the literature on both, and the hold-out is split
            off by the noisy labels after.
        image_size: Side of the square images in pixels. None: the set's own; for a folder, the median of the
            shorter sides, at most 224.
        imbalance: n_max / n_min of the training subset, 1 for all images.
        profile: How the counts fall from the first to the last class.
        protocol: ``seeded`` draws the long-tailed subset anew for each seed; ``ldam`` is the fixed choice of
            the LDAM-DRW code, the same for all seeds.
        holdout: Share of the training subset that is kept for tuning, temperature and choice of epoch.
        held_out_classes: So many of the last classes are taken out of train and test and kept for transfer.
        transfer_data: Another source for transfer, in the same syntax.
        coarse: Train on groups of classes and keep the classes themselves, on the same images, for transfer: the name
            of a grouping (``digits-parity``, ``cifar10-animals``) or a CSV with the columns ``class`` and ``coarse``.
        skip_unreadable: Go on without images that cannot be decoded, instead of stopping.
        crop_padding: Pixels of zeros around an image before the random crop. None: image_size // 8 and at
            least 1, so 4 at 32 pixels and 1 at 8.
        flip: Mirror half of the training images. None: no for digits, yes for all else.
        memory_gb: Sets larger than this are decoded while training instead of once. None: half of the free
            memory.

    Example:
        >>> DataConfig(imbalance=0.01)
        Traceback (most recent call last):
            ...
        ValueError: imbalance is n_max / n_min and must be at least 1, got 0.01: did you mean 100?

    Raises:
        ValueError: If a value is out of its range or two of them contradict each other.
    """

    source: str = "digits"
    labels: str | None = None
    noise: Noise | None = field(default=None, metadata={"later": True})
    image_size: int | None = None
    imbalance: float = 1.0
    profile: Profile = "exponential"
    protocol: Protocol = "seeded"
    holdout: float = 0.2
    held_out_classes: int = 0
    transfer_data: str | None = None
    skip_unreadable: bool = False
    crop_padding: int | None = None
    flip: bool | None = None
    memory_gb: float | None = None
    coarse: str | None = field(default=None, metadata={"later": True})

    def __post_init__(self) -> None:
        kind = parse_source(self.source).kind
        if self.transfer_data is not None:
            parse_source(self.transfer_data)
        self._check_sampling()
        self._check_images()
        if self.held_out_classes < 0 or self.held_out_classes == 1:
            raise ValueError(
                f"held_out_classes must be 0 or at least 2, got {self.held_out_classes}: "
                "a transfer task needs two classes to tell apart"
            )
        if self.held_out_classes and self.transfer_data is not None:
            raise ValueError(
                "transfer is measured on held-out classes or on transfer_data, and both were given: "
                "set held_out_classes=0 or leave transfer_data out"
            )
        self._check_coarse()
        if self.labels is not None:
            parse_labels(self.labels)
            if self.noise is not None:
                raise ValueError(
                    "training labels come from a CSV or from synthetic noise, and both were given: set noise=None or "
                    "leave labels out"
                )
            if kind != "imagefolder":
                raise ValueError(f"labels from a CSV are matched by path and need imagefolder:PATH, got {kind}")
            if self.held_out_classes:
                raise ValueError(
                    "labels from a CSV may name a class that is held out: use transfer_data instead of held_out_classes"
                )

    def _check_coarse(self) -> None:
        if self.coarse is None:
            return
        check_grouping(self.coarse)
        if self.held_out_classes or self.transfer_data is not None:
            raise ValueError(
                "with coarse labels transfer is measured on the classes that they gather, so held_out_classes must be "
                "0 and transfer_data None: leave them out, or coarse"
            )
        if self.labels is not None:
            raise ValueError(
                "coarse labels are made of the folders' own classes, and labels from a CSV stand in for those: give "
                "coarse or labels"
            )

    def _check_sampling(self) -> None:
        if not self.imbalance >= 1 or self.imbalance == float("inf"):
            hint = f": did you mean {1 / self.imbalance:g}?" if 0 < self.imbalance < 1 else ""
            raise ValueError(f"imbalance is n_max / n_min and must be at least 1, got {self.imbalance:g}{hint}")
        for name, value, choices in (
            ("profile", self.profile, get_args(Profile)),
            ("protocol", self.protocol, get_args(Protocol)),
        ):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        if not 0 < self.holdout < 1:
            raise ValueError(f"holdout is a share and must lie between 0 and 1, got {self.holdout:g}")

    def _check_images(self) -> None:
        if self.image_size is not None and self.image_size < 1:
            raise ValueError(f"image_size is a side in pixels and must be at least 1, got {self.image_size}")
        if self.crop_padding is not None and self.crop_padding < 0:
            raise ValueError(f"crop_padding is a number of pixels and must not be negative, got {self.crop_padding}")
        if self.memory_gb is not None and self.memory_gb < 0:
            raise ValueError(f"memory_gb must not be negative, got {self.memory_gb:g}: 0 streams every folder")
