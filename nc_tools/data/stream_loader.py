"""Training batches from image files: decoded ahead by processes, as many as the steps need; augmented on the device."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial

import torch
from torch import Tensor

from nc_tools._support.available_cores import available_cores
from nc_tools.data.batch_options import BatchOptions, Readers
from nc_tools.data.image_set import ImageFiles, Images
from nc_tools.data.training_batches import TrainingBatches
from nc_tools.decoding.pool import by_processes, decoding_pool

WAITING = 0.05
"""Share of the time that steps may wait for pixels before more batches are decoded at once."""
_WINDOW = 8  # number of batches over which the waiting time is measured


class PixelStream:
    """Pixels of an image set, batch by batch; files are decoded ahead by the threads and processes of this process.

    At first two batches are decoded at the same time. Whenever the reader has waited for more than 5 % of the time of
    eight batches, this number is doubled, up to two for each core. So steps that are slower than decoding keep two
    processes busy, and fast steps all cores.

    Args:
        images: The set.
        device: Where the batches go.
        workers: Number of batches that are decoded at the same time, which then stays fixed; 0 decodes a batch when it
            is asked for. None: as many as are needed.
    """

    def __init__(self, images: Images, device: torch.device, workers: int | None) -> None:
        self._device = device
        self._read: Callable[[Tensor], Tensor] = images.take
        if isinstance(images, ImageFiles) and workers != 0:
            pinned = device.type == "cuda"
            self._read = partial(images.take, in_process=by_processes(len(images)), pinned=pinned)
            self.at_once = min(2, available_cores()) if workers is None else workers
        else:
            self.at_once = 0
        self._most = 2 * available_cores() if workers is None else self.at_once

    def read(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the pixels at each index tensor (B,) as uint8 (B, C, H, W) on the device, in order."""
        for pixels in self._decoded(batches) if self.at_once else map(self._read, batches):
            yield pixels.to(self._device, non_blocking=True)

    def _decoded(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        pool, coming = decoding_pool(), iter(batches)
        pending: deque[Future[Tensor]] = deque()
        began, waited = time.perf_counter(), 0.0
        try:
            for done in range(1, len(batches) + 1):
                while len(pending) < self.at_once + 1 and (batch := next(coming, None)) is not None:
                    pending.append(pool.submit(self._read, batch))
                before = time.perf_counter()
                pixels = pending.popleft().result()
                waited += time.perf_counter() - before
                yield pixels
                now = time.perf_counter()
                if done == 1:  # every epoch waits for its first batch
                    began, waited = now, 0.0
                elif done % _WINDOW == 0:
                    if waited > WAITING * (now - began):
                        self.at_once = min(2 * self.at_once, self._most)
                    began, waited = now, 0.0
        finally:
            for future in pending:
                future.cancel()


class StreamLoader(TrainingBatches):
    """Training batches of a set that does not fit into memory, bit-equal to those of ``Loader`` on the same images.

    Args:
        images: The whole training set, usually ``ImageFiles``.
        indices: (M,) the samples to train on, int64.
        options: Size, pixels, order and device of the batches. With two views, an image is decoded once.

    Raises:
        TypeError: As for ``Loader``.
        ValueError: As for ``Loader``.
    """

    def __init__(self, images: Images, indices: Tensor, options: BatchOptions) -> None:
        super().__init__(images, indices, options, home=torch.device("cpu"))
        self._stream = PixelStream(images, self._device, options.workers)

    def _read(self, batches: list[Tensor]) -> Iterator[Tensor]:
        readers, samples = self._options.readers, [self._indices[batch] for batch in batches]
        return self._stream.read(samples) if readers is None else self._read_with(readers, samples)

    def _read_with(self, readers: Readers, samples: list[Tensor]) -> Iterator[Tensor]:
        """Read a part of each batch, and yield the pixels of all processes."""
        parts = [readers.part(len(batch)) for batch in samples]
        mine = self._stream.read([batch[part] for batch, part in zip(samples, parts, strict=True)])
        for batch, part, pixels in zip(samples, parts, mine, strict=True):
            whole = pixels.new_zeros(len(batch), *pixels.shape[1:])
            whole[part] = pixels
            readers.sum(whole)
            yield whole
