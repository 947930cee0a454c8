"""The content of an image set for feature extraction: a hash of each image, and its pixels as a backbone takes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial

import torch
from torch import Tensor

from nc_tools.data.image_set import ImageFiles, Images
from nc_tools.decoding.pool import by_processes, decoding_pool
from nc_tools.models.image_preprocessing import ImagePreprocessing

_AT_ONCE = 32  # images that one thread decodes and resizes


class ImageContent:
    """The images of a set, in memory or in files, for one preprocessing.

    Args:
        images: The set.
        preprocessing: The preprocessing of the backbone.

    Attributes:
        digests: (N, 32), uint8: the SHA-256 of the pixels of each image, as the data set gives them.
    """

    def __init__(self, images: Images, preprocessing: ImagePreprocessing) -> None:
        self._preprocessing = preprocessing
        self._take: Callable[[Tensor], Tensor] = images.take
        if isinstance(images, ImageFiles):
            self._take = partial(images.take, in_process=by_processes(len(images)))
        self.digests = images.digests()

    def read_chunks(self, index: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (index, pixels) for chunks of the images at ``index`` (M,); pixels are uint8 (B, C, side, side).

        While one chunk is used, the decoding pool decodes and resizes the next ones.
        """
        pending: deque[tuple[Tensor, list[Future[Tensor]]]] = deque()
        pool = decoding_pool()
        try:
            for chunk in torch.split(index, size) if len(index) else ():
                parts = torch.split(chunk, _AT_ONCE)
                pending.append((chunk, [pool.submit(self._prepared, part) for part in parts]))
                if len(pending) > 2:
                    yield _ready(*pending.popleft())
            while pending:
                yield _ready(*pending.popleft())
        finally:
            for _, futures in pending:
                for future in futures:
                    future.cancel()

    def _prepared(self, index: Tensor) -> Tensor:
        return self._preprocessing.geometry(self._take(index))


def _ready(index: Tensor, futures: list[Future[Tensor]]) -> tuple[Tensor, Tensor]:
    return index, torch.cat([future.result() for future in futures])
