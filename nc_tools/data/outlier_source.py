"""Images of no class that are trained against: read from a source, and kept apart from all else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nc_tools.data.data_config import DataConfig
from nc_tools.data.decode import Progress
from nc_tools.data.image_set import Images
from nc_tools.data.ood_sets import read_unlabeled
from nc_tools.data.source_names import BLENDED, parse_outlier_source


def load_outliers(
    config: DataConfig, like: Images, limit: float, cache: Path | None = None, progress: Progress | None = None
) -> tuple[Images | None, tuple[str, ...]]:
    """Load the outliers of a configuration, brought to the size and channels of the training set.

    Of a source with a training part of its own that part is taken, else all its images.

    Args:
        config: Its ``outliers`` and ``outliers_exclude``.
        like: The training set.
        limit: Largest set in bytes that is kept in memory.
        cache: Folder for decoded images, or None.
        progress: Called as ``progress(done, total)`` while files are decoded.

    Returns:
        The outliers, None where there are none or where they are made of the training batches themselves; and the
        unreadable files that were left out.

    Raises:
        FileNotFoundError: If a folder or file is missing.
        ValueError: If the set is empty, or a class to leave out is not in it.
    """
    if config.outliers in (None, BLENDED):
        return None, ()
    source = parse_outlier_source(config.outliers)
    images, skipped = read_unlabeled(source, "train", config.outliers_exclude, like, config, limit, cache, progress)
    if len(images) == 0:
        raise ValueError(f"outliers must hold images, and of {config.outliers} none is left: exclude fewer classes")
    return images, skipped


def check_apart(outliers: Images, sets: Mapping[str, Images]) -> None:
    """Refuse outliers that are trained or measured on elsewhere: a score would tell what was learned by heart.

    Images are compared pixel by pixel, at the size that is trained at: the same picture in another file or folder is
    found, one cut or compressed in another way is not.

    Args:
        outliers: The images to train against.
        sets: All others by what they are, such as "test".

    Raises:
        ValueError: Naming the first set that has some of them.
    """
    places = {row.tobytes(): place for place, row in enumerate(outliers.digests().numpy())}
    for name, images in sets.items():
        shared = sorted({places[key] for row in images.digests().numpy() if (key := row.tobytes()) in places})
        if shared:
            where = "" if outliers.paths is None else f", such as {outliers.paths[shared[0]]}"
            raise ValueError(
                f"outliers are trained on, as images of no class, and {len(shared)} of {len(outliers)} are among the "
                f"{name} images too{where}: take those out, leave their classes out with outliers_exclude, or name "
                f"another set"
            )
