"""The content of an image set for feature extraction: a hash of each image, and its pixels as a backbone takes them."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from nc_tools.data.decode import available_cores, decode_whole
from nc_tools.data.image_set import ImageFiles, Images
from nc_tools.models.image_preprocessing import ImagePreprocessing


class ImageContent:
    """The images of a set, in memory or in files, for one preprocessing.

    Args:
        images: The set.
        preprocessing: Of the backbone.

    Attributes:
        digests: (N, 32), uint8: the SHA-256 of each image, of the bytes of its file or of its pixels in memory.
    """

    def __init__(self, images: Images, preprocessing: ImagePreprocessing) -> None:
        self._images = images
        self._preprocessing = preprocessing
        self.digests = _file_digests(images) if isinstance(images, ImageFiles) else _pixel_digests(images.images)

    def read_chunks(self, index: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (index, pixels) for chunks of the images at ``index`` (M,); pixels are uint8 (B, 3, side, side).

        The next chunks are decoded and resized in threads while one is used.
        """
        pending: deque[tuple[Tensor, list[Future[Tensor]]]] = deque()
        workers = available_cores()
        with ThreadPoolExecutor(workers) as pool:
            try:
                for part in torch.split(index, size) if len(index) else ():
                    pending.append((part, [pool.submit(self._prepared, i) for i in part.tolist()]))
                    if len(pending) > 2:
                        yield _ready(*pending.popleft())
                while pending:
                    yield _ready(*pending.popleft())
            finally:
                for _, futures in pending:
                    for future in futures:
                        future.cancel()

    def _prepared(self, i: int) -> Tensor:
        images, preprocessing = self._images, self._preprocessing
        if not isinstance(images, ImageFiles):
            return preprocessing.geometry(images.images[i : i + 1])
        pixels = decode_whole(images.root / images.paths[i], images.channels, 2 * preprocessing.resize_size)
        return preprocessing.geometry(torch.from_numpy(np.ascontiguousarray(pixels))[None])


def _ready(index: Tensor, futures: list[Future[Tensor]]) -> tuple[Tensor, Tensor]:
    return index, torch.cat([future.result() for future in futures])


def _file_digests(images: ImageFiles) -> Tensor:
    def digest(path: str) -> bytes:
        with (images.root / path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()

    with ThreadPoolExecutor(available_cores()) as pool:
        return _stacked(list(pool.map(digest, images.paths, chunksize=64)))


def _pixel_digests(images: Tensor) -> Tensor:
    # The shape is part of it: 2 x 8 pixels are another image than 4 x 4.
    shape = str(tuple(images.shape[1:])).encode()
    return _stacked([hashlib.sha256(shape + image.tobytes()).digest() for image in images.contiguous().numpy()])


def _stacked(digests: list[bytes]) -> Tensor:
    packed = bytearray(b"".join(digests))
    return torch.frombuffer(packed, dtype=torch.uint8).view(-1, 32) if packed else torch.empty(0, 32, dtype=torch.uint8)
