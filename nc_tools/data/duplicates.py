"""Find images with the same pixels: in the training and the test set, or twice in the training set."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nc_tools.data.image_set import Images
from nc_tools.data.short_list import short_list


def in_both(train: Images, test: Images) -> Tensor:
    """Return which training images (N,), bool, are test images too: the same pixels at the size that is trained on.

    Example:
        >>> from nc_tools.data import ImageSet
        >>> pixels = torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1)
        >>> train, test = (ImageSet(p, torch.zeros(len(p)).long(), ("a",), "x") for p in (pixels, pixels[1:2]))
        >>> in_both(train, test).tolist()
        [False, True, False]
    """
    return torch.from_numpy(np.isin(_keys(train), _keys(test)))


def with_copies(images: Images) -> Tensor | None:
    """Return groups for a split that keeps copies together: those of the set, joined if they share a picture.

    Returns:
        The number of each image's group (N,), int64; None if there are no groups and no copies.

    Example:
        >>> from nc_tools.data import ImageSet
        >>> pixels = torch.tensor([7, 8, 7], dtype=torch.uint8).view(3, 1, 1, 1)
        >>> groups = with_copies(ImageSet(pixels, torch.zeros(3).long(), ("a",), "x"))
        >>> bool(groups[0] == groups[2]), bool(groups[0] == groups[1])
        (True, False)
    """
    _, inverse = np.unique(_keys(images), return_inverse=True)
    pictures = int(inverse.max(initial=-1)) + 1
    if pictures == len(images):
        return images.groups
    if images.groups is None:
        return torch.from_numpy(inverse.astype(np.int64))
    from scipy.sparse import coo_array  # here, because the import takes a tenth of a second
    from scipy.sparse.csgraph import connected_components

    # Groups and pictures are the nodes of a graph, and each image is an edge between its group and its picture.
    first = int(images.groups.max()) + 1
    edges = coo_array((np.ones(len(images)), (images.groups.numpy(), first + inverse)), [first + pictures] * 2)
    _, joined = connected_components(edges, directed=False)
    return torch.from_numpy(joined.astype(np.int64))[images.groups]


def duplicate_sentences(train: Images, test: Images, *, dropped: bool, resplit: bool = False) -> list[str]:
    """Return sentences about pictures that occur twice; none if there are none.

    Args:
        train: The training images, before any is left out.
        test: The test images.
        dropped: Whether the training images that are test images too are left out.
        resplit: Whether both sets are joined and split anew for each seed.
    """
    both = in_both(train, test)
    sentences = []
    count = int(both.sum())
    if count and resplit and not dropped:
        sentences.append(
            f"{count:,} training images are test images too{_example(train, both)}: in every split, copies of a "
            "picture stay on one side"
        )
    elif count:
        shown = _example(train, both)
        if dropped:
            sentences.append(f"{count:,} training images that are test images too are left out{shown}")
        else:
            tested = int(torch.from_numpy(np.isin(_keys(test), _keys(train))).sum())
            sentences.append(
                f"CAUTION: {tested:,} of {len(test):,} test images are training images too{shown}, so test results are "
                "too good: leave their training copies out with --drop-duplicates"
            )
    copies, others = _copies(train)
    if int(copies.sum()):
        sentences.append(
            f"{int(copies.sum()):,} training images are copies of others{_example(train, copies)}; {others:,} of them "
            "have another label than their copy"
        )
    return sentences


def _copies(images: Images) -> tuple[Tensor, int]:
    """Return which images are copies of an earlier one (N,), bool, and how many have another label than that one."""
    _, first, inverse = np.unique(_keys(images), return_index=True, return_inverse=True)
    origin = torch.from_numpy(first[inverse])
    copies = origin != torch.arange(len(images))
    return copies, int((images.labels[origin] != images.labels)[copies].sum())


def _keys(images: Images) -> np.ndarray:
    """Return the digest of each image as one value."""
    return np.ascontiguousarray(images.digests().numpy()).view("V32").ravel()


def _example(images: Images, mask: Tensor) -> str:
    if images.paths is None:
        return ""
    return f", such as {short_list([images.paths[i] for i in mask.nonzero().flatten()[:1].tolist()])}"
