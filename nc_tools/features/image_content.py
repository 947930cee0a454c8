"""The content of an image set for feature extraction: a hash of each view, and its pixels as a backbone takes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial

import torch
from torch import Tensor

from nc_tools.data.image_set import ImageFiles, Images
from nc_tools.decoding.pool import by_processes, decoding_pool
from nc_tools.features.image_views import ImageViews
from nc_tools.models.image_preprocessing import ImagePreprocessing

_AT_ONCE = 32  # views that one thread decodes and resizes


class ImageContent:
    """The views of the images of a set, in memory or in files, for one preprocessing.

    The V views of image i have the numbers i V to i V + V - 1.

    Args:
        images: The set.
        preprocessing: The preprocessing of the backbone.
        views: The views of each image.

    Attributes:
        digests: (N V, 32), uint8: for view 0 the SHA-256 of the pixels of the image, as the data set gives them.
    """

    def __init__(self, images: Images, preprocessing: ImagePreprocessing, views: ImageViews) -> None:
        self._preprocessing = preprocessing
        self._views = views
        self._take: Callable[[Tensor], Tensor] = images.take
        if isinstance(images, ImageFiles):
            self._take = partial(images.take, in_process=by_processes(len(images)))
        self._images = images.digests()
        self.digests = views.digests(self._images)

    def read_chunks(self, index: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (index, pixels) for chunks of the views at ``index`` (M,); pixels are uint8 (B, C, side, side).

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

    def normalized(self, index: Tensor, pixels: Tensor) -> Tensor:
        """Return the network's input (B, C, side, side), float32, of the views at ``index`` (B,).

        Args:
            index: Numbers of the views.
            pixels: Their pixels, as :meth:`read_chunks` yields them, on any device.
        """
        inputs, image = self._preprocessing.normalize(pixels), index // self._views.count
        return self._views.inputs(inputs, self._images[image], index % self._views.count)

    def _prepared(self, index: Tensor) -> Tensor:
        image, place = torch.unique_consecutive(index // self._views.count, return_inverse=True)  # decoded once
        pixels = self._take(image)
        if self._views.count > 1:
            pixels = self._views.pixels(pixels[place], self._images[image[place]], index % self._views.count)
        return self._preprocessing.geometry(pixels)


def _ready(index: Tensor, futures: list[Future[Tensor]]) -> tuple[Tensor, Tensor]:
    return index, torch.cat([future.result() for future in futures])
