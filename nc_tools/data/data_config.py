"""The configuration of a training run's data: one frozen dataclass that is hashed and logged."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from nc_tools.data.class_folders import ClassFolder
from nc_tools.data.coarse_labels import check_grouping
from nc_tools.data.color_jitter import ColorJitter
from nc_tools.data.cutout import Cutout
from nc_tools.data.own_counts import check_own_counts
from nc_tools.data.rand_augment import RandAugment
from nc_tools.data.reading_settings import check_reading_settings
from nc_tools.data.sampling import Sampling
from nc_tools.data.source_names import (
    BLENDED,
    BUILTIN_KINDS,
    OWN_LABELS,
    SCRAMBLED,
    parse_labels,
    parse_ood_source,
    parse_outlier_source,
    parse_source,
    same_images,
)
from nc_tools.data.synthetic_noise import Noise
from nc_tools.data.table_config import TableConfig
from nc_tools.decoding.image_file import FileInterpolation

Profile = Literal["exponential", "step", "pareto"]
SubsetProtocol = Literal["seeded", "ldam"]
TailOrder = Literal["frequency", "class"]


@dataclass(frozen=True)
class DataConfig:
    """The data of a training run: source, long tail, label noise, augmentation, hold-out, transfer and outlier sets.

    Attributes:
        source: ``digits``, ``cifar10[:ROOT]``, ``imagefolder:PATH``, ``table:FILE`` or another of docs/data.md.
        labels: ``FILE:COLUMN`` of a table with the given training labels, such as those of annotators, instead of those
            of the source; or None. The test labels are always those of the source.
        clean: ``FILE:COLUMN`` of a table with the true training labels, or ``data`` if those of the source are the true
            ones; or None if they are unknown. They are used for measures only: nothing is chosen by them.
        corrections: A table of a person's decisions about the given labels: keep, relabel, exclude. Images without a
            row keep their label. The arms of a comparison may have different corrections.
        noise: Synthetic noise on the training labels, such as ``SymmetricNoise(0.4)``, or None. Drawn anew for each
            seed. The long tail is drawn before the noise, by the true classes, as in papers on long tails with noise;
            the hold-out is split off after it, by the noisy labels.
        image_size: Side of the square images in pixels. None: the set's own; for a folder, the median of the
            shorter sides, at most ``size_limit``.
        interpolation: How image files are resized: ``bilinear`` or ``bicubic``, both antialiased.
        size_limit: Largest side in pixels that is chosen for a folder. For a pretrained network, recipes set
            ``interpolation`` and ``size_limit`` as the network expects.
        imbalance: n_max / n_min of the training subset. 1 uses all images as they are, whatever their imbalance.
        profile: How the counts decrease from the largest to the smallest class.
        tail_order: Which classes a profile makes rare: ``frequency``, those that have the fewest images; ``class``, the
            last ones, as in benchmarks that are cut from a balanced set.
        pareto_alpha: Exponent of the profile "pareto"; 6 in ImageNet-LT.
        class_counts: Number of training samples of each class, in the order of the classes, instead of a profile; or
            None.
        protocol: ``seeded`` draws the long-tailed subset anew for each seed; ``ldam`` is the fixed choice of
            the LDAM-DRW code, the same for all seeds.
        sampling: How often each class is drawn in training, such as ``BalancedSampling()``. None: each sample once an
            epoch. The class counts that losses use stay those of the data.
        holdout: Share of the training subset that is kept for tuning, temperature and choice of epoch.
        resplit: For small test sets. Each seed draws its own test set: this share of all training and test images
            together. The spread over seeds then includes that of the test images. None: all seeds share the test set.
        held_out_classes: This many of the last classes are removed from training and test set and kept for transfer.
        table: How a table of images is read, for whatever its values alone do not show.
        transfer_data: Another source for transfer, in the same syntax.
        coarse: Train on groups of classes, and use the classes themselves, on the same images, for transfer: the name
            of a grouping (``digits-parity``, ``cifar10-animals``) or a CSV file with the columns ``class`` and
            ``coarse``.
        class_folder: Which folder of an image's path names its class, if the names of the folders do not show it:
            ``first``, the one below the training or test folder, or ``last``, the one that holds the image.
        skip_missing: Leave out what has no counterpart, instead of stopping: rows of a table without an image, training
            images without a row in ``labels``, and test images of classes without training images. They are counted.
        skip_unreadable: Leave out images that cannot be decoded, instead of stopping.
        drop_duplicates: Leave out training images whose pixels are those of a test image. Their number is reported in
            any case.
        crop_padding: Pixels of zeros around an image before the random crop. None: image_size // 8, at least 1.
        flip: Mirror half of the training images. None: not for digits, but for all other sets.
        rand_augment: Random operations on each training image, such as ``RandAugment(2, 9)``, or None.
        color_jitter: Random colors of each training image, such as ``ColorJitter(0.4)``, or None.
        cutout: A square of each training image that is set to zero, such as ``Cutout(16)``, or None.
        views: Views of each training image for runs on fixed features: the image itself, and ``views - 1`` random
            augmentations of it, of which each epoch takes one. 1 is the image alone, without augmentation.
        memory_gb: Sets of more gigabytes of pixels than this are decoded during training instead of once. None: half of
            the free memory.
        ood_near: Images that belong to none of the classes but are close to them, for out-of-distribution scores: a
            source in the same syntax, or ``scrambled``, the test images with their pixels in random order. Held-out
            classes are always used as a further set.
        ood_near_exclude: A CSV file whose first column names classes to leave out of ``ood_near``: those that are
            trained on under another name.
        ood_far: Images far from the classes, in the same syntax as ``ood_near``.
        outliers: Images that belong to none of the classes, to train against with losses that need outliers. Other
            losses never get them. A source in the same syntax, of which the training part is used; or ``blended``:
            averages of two images of different classes in the batch, which need no further images. No outlier may be an
            image of a set that is trained on or measured.
        outliers_exclude: A CSV file whose first column names classes to leave out of ``outliers``: those that are
            trained on or scored under another name.

    Raises:
        ValueError: If a value is out of its range or two of them contradict each other.

    Example:
        >>> DataConfig(imbalance=0.01)
        Traceback (most recent call last):
            ...
        ValueError: imbalance, the size of the largest class divided by that of the smallest, must be at least 1, \
got 0.01: did you mean 100?
    """

    source: str = "digits"
    labels: str | None = None
    clean: str | None = None
    corrections: str | None = None
    noise: Noise | None = None
    image_size: int | None = None
    size_limit: int = 224
    interpolation: FileInterpolation = "bilinear"
    imbalance: float = 1.0
    profile: Profile = "exponential"
    pareto_alpha: float = 6.0
    tail_order: TailOrder = "frequency"
    class_counts: tuple[int, ...] | None = None
    protocol: SubsetProtocol = "seeded"
    sampling: Sampling | None = None
    holdout: float = 0.2
    resplit: float | None = None
    held_out_classes: int = 0
    table: TableConfig = field(default_factory=TableConfig)
    transfer_data: str | None = None
    class_folder: ClassFolder | None = None
    skip_missing: bool = False
    skip_unreadable: bool = False
    drop_duplicates: bool = False
    crop_padding: int | None = None
    flip: bool | None = None
    rand_augment: RandAugment | None = None
    color_jitter: ColorJitter | None = None
    cutout: Cutout | None = None
    views: int = field(default=1, metadata={"omit_default": True})  # newer than records are
    memory_gb: float | None = None
    ood_near: str | None = None
    ood_near_exclude: str | None = None
    ood_far: str | None = None
    coarse: str | None = None
    outliers: str | None = None
    outliers_exclude: str | None = None

    def __post_init__(self) -> None:
        parse_source(self.source)
        if self.transfer_data is not None:
            parse_source(self.transfer_data)
        others = (self.transfer_data, self.ood_near, self.ood_far, self.outliers)
        check_reading_settings(self.table, self.class_folder, self.source, others)
        self._check_ood()
        self._check_outliers()
        self._check_subset()
        self._check_images()
        self._check_transfer()
        self._check_labels()

    def _check_ood(self) -> None:
        for text in (self.ood_near, self.ood_far):
            if text is not None:
                parse_ood_source(text)
        if self.ood_near_exclude is not None and self.ood_near in (None, SCRAMBLED):
            raise ValueError(
                f"ood_near_exclude leaves classes out of ood_near, which must then be a source of images, got "
                f"{self.ood_near}: set ood_near to 'imagefolder:PATH', or remove ood_near_exclude"
            )

    def _check_outliers(self) -> None:
        if self.outliers_exclude is not None and self.outliers in (None, BLENDED):
            raise ValueError(
                f"outliers_exclude leaves classes out of outliers, which must then be a source of images, got "
                f"{self.outliers}: set outliers to 'imagefolder:PATH', or remove outliers_exclude"
            )
        if self.outliers is None:
            return
        own = parse_outlier_source(self.outliers)
        for name in ("source", "transfer_data", "ood_near", "ood_far"):
            other = getattr(self, name)
            if other is not None and same_images(own, parse_ood_source(other)):
                raise ValueError(
                    f"outliers must be another set than {name}, because they are trained on, but both are {other}: "
                    f"set outliers to another source, or to {BLENDED!r}"
                )

    def _check_subset(self) -> None:
        if not self.imbalance >= 1 or self.imbalance == float("inf"):
            hint = f": did you mean {1 / self.imbalance:g}?" if 0 < self.imbalance < 1 else ""
            raise ValueError(
                f"imbalance, the size of the largest class divided by that of the smallest, must be at least 1, got "
                f"{self.imbalance:g}{hint}"
            )
        for name, value, choices in (
            ("profile", self.profile, get_args(Profile)),
            ("protocol", self.protocol, get_args(SubsetProtocol)),
            ("tail_order", self.tail_order, get_args(TailOrder)),
            ("interpolation", self.interpolation, get_args(FileInterpolation)),
            ("class_folder", self.class_folder, (None, *get_args(ClassFolder))),
        ):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, got {value!r}")
        if not 0 < self.pareto_alpha < float("inf"):
            raise ValueError(f"pareto_alpha must be positive and finite, got {self.pareto_alpha:g}: 6 is usual")
        if self.class_counts is not None:
            if self.imbalance != 1:
                raise ValueError(
                    f"class_counts and imbalance both set the size of the classes, got class_counts and imbalance "
                    f"{self.imbalance:g}: set imbalance=1, or remove class_counts"
                )
            check_own_counts(self.class_counts)
        if not 0 < self.holdout < 1:
            raise ValueError(
                f"holdout is a share of the training set and must lie between 0 and 1, got {self.holdout:g}"
            )
        if self.resplit is not None and (not 0 < self.resplit < 1 or self.labels is not None):
            raise ValueError(
                f"resplit is the share of all images to test on: it must lie between 0 and 1 and cannot be used with "
                f"labels that may be wrong, got {self.resplit:g} and labels={self.labels}"
            )

    def _check_images(self) -> None:
        for name, side in (("image_size", self.image_size), ("size_limit", self.size_limit)):
            if side is not None and side < 1:
                raise ValueError(f"{name} is a side in pixels and must be at least 1, got {side}")
        if self.crop_padding is not None and self.crop_padding < 0:
            raise ValueError(f"crop_padding is a number of pixels and must not be negative, got {self.crop_padding}")
        if self.views < 1:
            raise ValueError(f"views is a number of views of each image and must be at least 1, got {self.views}")
        if self.memory_gb is not None and not self.memory_gb >= 0:
            raise ValueError(
                f"memory_gb must not be negative, got {self.memory_gb:g}: 0 decodes every folder during training"
            )

    def _check_transfer(self) -> None:
        if self.held_out_classes < 0 or self.held_out_classes == 1:
            raise ValueError(
                f"held_out_classes must be 0 or at least 2, got {self.held_out_classes}: a transfer task needs two "
                "classes"
            )
        if self.held_out_classes and self.transfer_data is not None:
            raise ValueError(
                f"held_out_classes and transfer_data each define a transfer set, got {self.held_out_classes} and "
                f"{self.transfer_data}: set held_out_classes=0, or remove transfer_data"
            )
        if self.coarse is None:
            return
        check_grouping(self.coarse)
        if self.held_out_classes or self.transfer_data is not None:
            raise ValueError(
                f"with coarse labels the transfer set is made of the fine classes, so held_out_classes must be 0 and "
                f"transfer_data None, got {self.held_out_classes} and {self.transfer_data}: remove both, or "
                "remove coarse"
            )

    def without_labels(self) -> DataConfig:
        """Return the configuration of the same images with the labels of their source: no files, no noise."""
        return replace(self, labels=None, clean=None, corrections=None, noise=None)

    def _check_labels(self) -> None:
        files = {name: getattr(self, name) for name in ("labels", "clean", "corrections")}
        if not any(files.values()):
            return
        name, value = next((name, value) for name, value in files.items() if value is not None)
        if self.coarse is not None:
            raise ValueError(
                f"coarse groups the classes of the data, which {name} replaces, got coarse {self.coarse} and {name} "
                f"{value}: remove coarse, or remove {name}"
            )
        for text in (self.labels, self.clean):
            if text is not None and not (text == OWN_LABELS and text is self.clean):
                parse_labels(text)
        if self.noise is not None:
            raise ValueError(
                f"training labels come from a file or from synthetic noise, got {name} {value} and noise "
                f"{self.noise}: set noise=None, or remove {name}"
            )
        if (kind := parse_source(self.source).kind) in BUILTIN_KINDS:
            raise ValueError(
                f"labels from a file are matched to images by path, which source {kind} lacks: remove {name}, or "
                "set source to 'imagefolder:PATH'"
            )
        if self.held_out_classes:
            raise ValueError(
                f"labels from a file may name a class that is held out, got held_out_classes "
                f"{self.held_out_classes}: set held_out_classes=0, and use transfer_data instead"
            )
