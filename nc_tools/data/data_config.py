"""What data a run trains on: one frozen record that can be hashed, logged and repeated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from nc_tools.data.coarse_labels import check_grouping
from nc_tools.data.color_jitter import ColorJitter
from nc_tools.data.cutout import Cutout
from nc_tools.data.rand_augment import RandAugment
from nc_tools.data.sampling import Sampling
from nc_tools.data.source_names import (
    BLENDED,
    SCRAMBLED,
    parse_labels,
    parse_ood_source,
    parse_outlier_source,
    parse_source,
    same_images,
)
from nc_tools.data.synthetic_noise import Noise

Profile = Literal["exponential", "step", "pareto"]
Protocol = Literal["seeded", "ldam"]


def check_own_counts(class_counts: Sequence[int]) -> None:
    """Refuse counts that no training set can have.

    Raises:
        ValueError: If there are less than two, or one of them is not a positive whole number.
    """
    if len(class_counts) < 2:
        raise ValueError(f"class_counts needs a number for each of at least 2 classes, got {tuple(class_counts)}")
    if bad := [count for count in class_counts if isinstance(count, bool) or int(count) != count or count < 1]:
        raise ValueError(
            f"class_counts holds at least one sample of each class, in whole numbers, got {bad[0]} at place "
            f"{list(class_counts).index(bad[0])}: leave a class out with held_out_classes"
        )


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
        pareto_alpha: For the profile "pareto": its exponent; 6 in ImageNet-LT and Places-LT.
        class_counts: Training samples of each class, in the data's own order, instead of a profile; or None.
        protocol: ``seeded`` draws the long-tailed subset anew for each seed; ``ldam`` is the fixed choice of
            the LDAM-DRW code, the same for all seeds.
        sampling: How often each class is met in training, such as ``BalancedSampling()``; None: each sample once an
            epoch. Class counts that losses ask for stay those of the data.
        holdout: Share of the training subset that is kept for tuning, temperature and choice of epoch.
        held_out_classes: So many of the last classes are taken out of train and test and kept for transfer.
        transfer_data: Another source for transfer, in the same syntax.
        coarse: Train on groups of classes and keep the classes themselves, on the same images, for transfer: the name
            of a grouping (``digits-parity``, ``cifar10-animals``) or a CSV with the columns ``class`` and ``coarse``.
        skip_unreadable: Go on without images that cannot be decoded, instead of stopping.
        crop_padding: Pixels of zeros around an image before the random crop. None: image_size // 8 and at
            least 1, so 4 at 32 pixels and 1 at 8.
        flip: Mirror half of the training images. None: no for digits, yes for all else.
        rand_augment: Random operations on each training image, such as ``RandAugment(2, 9)``, or None.
        color_jitter: Random colors of each training image, such as ``ColorJitter(0.4)``, or None.
        cutout: A square that each training image lacks, such as ``Cutout(16)``, or None.
        memory_gb: Sets larger than this are decoded while training instead of once. None: half of the free
            memory.
        ood_near: Images of no class, close to those trained on, for out-of-distribution scores: a source in the same
            syntax, or ``scrambled``, the test images with their pixels in random order. Held-out classes serve as a
            near set beside it, without being asked for.
        ood_near_exclude: A CSV whose first column names classes to leave out of ``ood_near``: those that are trained
            on under another name.
        ood_far: Images far from them, likewise.
        outliers: Images of no class to train against, for losses that ask for them; others never see them. A source in
            the same syntax, of which the training part is taken, or ``blended``: averages of two images of different
            classes of the batch, for which no image is needed. It must not share an image with anything else that is
            trained on or measured.
        outliers_exclude: A CSV whose first column names classes to leave out of ``outliers``: those that are trained on
            or scored under another name.

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
    pareto_alpha: float = field(default=6.0, metadata={"later": True})
    class_counts: tuple[int, ...] | None = field(default=None, metadata={"later": True})
    protocol: Protocol = "seeded"
    sampling: Sampling | None = field(default=None, metadata={"later": True})
    holdout: float = 0.2
    held_out_classes: int = 0
    transfer_data: str | None = None
    skip_unreadable: bool = False
    crop_padding: int | None = None
    flip: bool | None = None
    rand_augment: RandAugment | None = field(default=None, metadata={"later": True})
    color_jitter: ColorJitter | None = field(default=None, metadata={"later": True})
    cutout: Cutout | None = field(default=None, metadata={"later": True})
    memory_gb: float | None = None
    ood_near: str | None = field(default=None, metadata={"later": True})
    ood_near_exclude: str | None = field(default=None, metadata={"later": True})
    ood_far: str | None = field(default=None, metadata={"later": True})
    coarse: str | None = field(default=None, metadata={"later": True})
    outliers: str | None = field(default=None, metadata={"later": True})
    outliers_exclude: str | None = field(default=None, metadata={"later": True})

    def __post_init__(self) -> None:
        kind = parse_source(self.source).kind
        if self.transfer_data is not None:
            parse_source(self.transfer_data)
        self._check_ood()
        self._check_outliers()
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

    def _check_ood(self) -> None:
        for text in (self.ood_near, self.ood_far):
            if text is not None:
                parse_ood_source(text)
        if self.ood_near_exclude is not None and self.ood_near in (None, SCRAMBLED):
            raise ValueError(
                f"ood_near_exclude leaves classes out of ood_near, and that is {self.ood_near}: name its source, or "
                "leave ood_near_exclude out"
            )

    def _check_outliers(self) -> None:
        if self.outliers_exclude is not None and self.outliers in (None, BLENDED):
            raise ValueError(
                f"outliers_exclude leaves classes out of outliers, and that is {self.outliers}: name its source, or "
                "leave outliers_exclude out"
            )
        if self.outliers is None:
            return
        own = parse_outlier_source(self.outliers)
        for name in ("source", "transfer_data", "ood_near", "ood_far"):
            other = getattr(self, name)
            if other is not None and same_images(own, parse_ood_source(other)):
                raise ValueError(
                    f"outliers are trained on, as images of no class, and must be another set than {name}, but both "
                    f"are {other}: name another one, or {BLENDED}"
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
        if not 0 < self.pareto_alpha < float("inf"):
            raise ValueError(f"pareto_alpha must be positive and finite, got {self.pareto_alpha:g}: 6 is usual")
        if self.class_counts is not None:
            if self.imbalance != 1:
                raise ValueError(
                    f"the training subset is cut by class_counts or by imbalance, and both were given: first set "
                    f"imbalance=1, or leave class_counts out (imbalance is {self.imbalance:g})"
                )
            check_own_counts(self.class_counts)
        if not 0 < self.holdout < 1:
            raise ValueError(f"holdout is a share and must lie between 0 and 1, got {self.holdout:g}")

    def _check_images(self) -> None:
        if self.image_size is not None and self.image_size < 1:
            raise ValueError(f"image_size is a side in pixels and must be at least 1, got {self.image_size}")
        if self.crop_padding is not None and self.crop_padding < 0:
            raise ValueError(f"crop_padding is a number of pixels and must not be negative, got {self.crop_padding}")
        if self.memory_gb is not None and not self.memory_gb >= 0:
            raise ValueError(f"memory_gb must not be negative, got {self.memory_gb:g}: 0 streams every folder")
