"""Load the outliers to train against, and check that no other set contains them."""

from __future__ import annotations

from collections.abc import Mapping

from nc_tools.data.data_config import DataConfig
from nc_tools.data.image_set import Images
from nc_tools.data.ood_sets import read_unlabeled
from nc_tools.data.read_images import ReadOptions
from nc_tools.data.source_names import BLENDED, parse_outlier_source


def load_outliers(config: DataConfig, like: Images, options: ReadOptions) -> tuple[Images | None, tuple[str, ...]]:
    """Load the outliers that a DataConfig names, at the size and channels of the training set.

    If the source has a training part of its own, that part is used, and else all its images.

    Args:
        config: Its ``outliers`` and ``outliers_exclude`` are used.
        like: The training set.
        options: How files are read.

    Returns:
        The outliers, or None if there are none or they are blended from the training batches; and the unreadable files
        that were left out.

    Raises:
        FileNotFoundError: If a folder or file is missing.
        ValueError: If the set is empty, or a class to leave out is not in it.
    """
    if config.outliers in (None, BLENDED):
        return None, ()
    source = parse_outlier_source(config.outliers)
    images, skipped = read_unlabeled(source, "train", config.outliers_exclude, like, options)
    if len(images) == 0:
        options.damage.check()
        raise ValueError(f"outliers={config.outliers} has no images left: list fewer classes in outliers_exclude")
    return images, skipped


def check_apart(outliers: Images, sets: Mapping[str, Images]) -> None:
    """Check that no other set contains some of the outliers: scores on that set would be too good.

    Images are compared pixel by pixel at the size of the training images. So the same picture in another file is
    detected, but not one that is cropped or compressed differently.

    Args:
        outliers: The images to train against.
        sets: All other sets by their name, such as "test".

    Raises:
        ValueError: With the first set that contains some of them.
    """
    positions = {row.tobytes(): position for position, row in enumerate(outliers.digests().numpy())}
    for name, images in sets.items():
        shared = sorted({positions[key] for row in images.digests().numpy() if (key := row.tobytes()) in positions})
        if shared:
            example = "" if outliers.paths is None else f", such as {outliers.paths[shared[0]]}"
            raise ValueError(
                f"{len(shared)} of {len(outliers)} outliers are {name} images too{example}. Outliers are trained on "
                f"and must be in no other set: remove these images, leave their classes out with outliers_exclude, or "
                f"set outliers to another source"
            )
