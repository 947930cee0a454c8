"""Images per second of augmentation from uint8 to float: nc_tools, and torch's DataLoader with torchvision v2.

Crop + flip + normalize is always measured, and again with each of --with added to it. Both get the same images in the
same run, in turns, and the medians over the turns are printed with their ratio. The floor is what the memory allows:
every batch must read its uint8 pixels once and write its float32 inputs once, at the bandwidth of a plain copy that is
measured here. With --processor-time both run in this process on one thread and are measured in seconds of processor
time, which other programs on the machine hardly change.

    python benchmarks/data.py --data imagefolder:PATH [--device cuda] [--threads 2] [--with cutout color rand_augment]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from nc_tools.data import (
    Augment,
    BatchOptions,
    ColorJitter,
    Cutout,
    DataConfig,
    ImageSet,
    Loader,
    RandAugment,
    load_data,
)
from nc_tools.data.image_set import mean_std


class OneByOne(Dataset[tuple[Tensor, int]]):
    """A data set that returns one transformed image and its label, as torchvision's transforms need."""

    def __init__(self, images: ImageSet, transform: Callable[[Tensor], Tensor]) -> None:
        self._images, self._labels, self._transform = images.images, images.labels.tolist(), transform

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(self._images[index]), self._labels[index]


def read_images(source: str | None, cache: Path | None, side: int) -> ImageSet:
    if source is not None:
        images = load_data(DataConfig(source=source, memory_gb=64), cache=cache).train
        assert isinstance(images, ImageSet)
        return images
    count = 50_000 * 32**2 // side**2
    pixels = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(count) % 10, tuple("abcdefghij"), "random")


class Kind(NamedTuple):
    """The same augmentation for nc_tools, and for torchvision before (pixels) and after (inputs) normalization."""

    ours: Augment
    pixels: list[Callable[[Tensor], Tensor]]
    inputs: list[Callable[[Tensor], Tensor]]


def kinds(side: int) -> dict[str, Kind]:
    basis = Augment(padding=max(1, side // 8), flip=True)
    square, share = max(1, side // 2), (max(1, side // 2) / side) ** 2
    erase = v2.RandomErasing(p=1.0, scale=(share, share), ratio=(1.0, 1.0))
    return {
        "crop_flip": Kind(basis, [], []),
        "cutout": Kind(replace(basis, cutout=Cutout(square)), [], [erase]),
        "color": Kind(replace(basis, color_jitter=ColorJitter()), [v2.ColorJitter(0.4, 0.4, 0.4)], []),
        "hue": Kind(replace(basis, color_jitter=ColorJitter(hue=0.1)), [v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], []),
        "rand_augment": Kind(replace(basis, rand_augment=RandAugment()), [v2.RandAugment()], []),
    }


def rate(batches: Iterator[int], device: torch.device, clock: Callable[[], float], warm_up: int) -> float:
    """Return the images per second after the first ``warm_up`` batches."""
    count, start = 0, clock()
    for step, size in enumerate(batches):
        if step == warm_up:
            _wait(device)
            count, start = 0, clock()
        if step >= warm_up:
            count += size
    _wait(device)
    return count / (clock() - start)


def memory_floor(images: ImageSet, device: torch.device) -> tuple[float, float]:
    """Return the images per second if only memory counted, and the bandwidth in GB/s (reading plus writing)."""
    block = torch.empty(64 * 2**20, dtype=torch.uint8, device=device)
    target = torch.empty_like(block)
    times = []
    for _ in range(15):
        _wait(device)
        start = time.perf_counter()
        target.copy_(block)
        _wait(device)
        times.append(time.perf_counter() - start)
    bandwidth = 2 * block.numel() / statistics.median(times)
    channels, height, width = images.shape
    return bandwidth / (channels * height * width * (1 + 4)), bandwidth / 1e9


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="imagefolder:PATH or another source; random pixels without it")
    parser.add_argument("--cache", type=Path, help="folder for decoded images")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--side", type=int, default=32, help="side of the random images")
    parser.add_argument("--processor-time", action="store_true", help="one thread, no workers, processor time")
    parser.add_argument("--limit", type=int, default=10_000, help="images that the DataLoader handles in a turn")
    added = ("cutout", "color", "hue", "rand_augment")
    parser.add_argument("--with", dest="added", nargs="*", default=(), choices=added, help="each on top of crop + flip")
    arguments = parser.parse_args()
    if arguments.limit < 3 * arguments.batch_size:
        parser.error(f"--limit must be at least three batches, {3 * arguments.batch_size}, got {arguments.limit}")
    threads, workers, clock = arguments.threads, 2, time.perf_counter
    if arguments.processor_time:
        threads, workers, clock = 1, 0, time.process_time
    torch.set_num_threads(threads)
    device = torch.device(arguments.device)
    images = read_images(arguments.data, arguments.cache, arguments.side)
    mean, std = mean_std(images)
    side = images.shape[-1]
    print(f"{images.name}: {len(images):,} images {images.shape}")
    print(f"{device}, {threads} threads, {workers} workers, batch {arguments.batch_size}, {arguments.turns} turns")
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}")
    floor, bandwidth = memory_floor(images, device)
    print(f"{'floor, memory alone':38}{floor:12,.0f} images/s   {bandwidth:.1f} GB/s")
    few = images.subset(torch.randperm(len(images))[: arguments.limit])
    for name in ["crop_flip", *arguments.added]:
        kind = kinds(side)[name]
        options = BatchOptions(batch_size=arguments.batch_size, mean=mean, std=std, augment=kind.ours, device=device)
        ours = Loader(images, torch.arange(len(images)), options)
        transform = v2.Compose(
            [
                v2.RandomCrop(side, padding=kind.ours.padding),
                v2.RandomHorizontalFlip(),
                *kind.pixels,
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(mean.tolist(), std.tolist()),
                *kind.inputs,
            ]
        )
        theirs = DataLoader(
            OneByOne(few, transform), arguments.batch_size, shuffle=True, num_workers=workers, drop_last=True,
            persistent_workers=workers > 0, pin_memory=device.type == "cuda",
            multiprocessing_context="forkserver" if workers else None,  # a fork of a process that uses CUDA hangs
        )  # fmt: skip
        our_rates, their_rates = [], []
        for turn in range(arguments.turns):
            our_rates.append(rate((len(b.labels) for b in ours.epoch(turn)), device, clock, warm_up=2))
            moved = (len(inputs.to(device, non_blocking=True)) for inputs, _ in theirs)
            their_rates.append(rate(moved, device, clock, warm_up=2))
        report(name, our_rates, their_rates, floor)


def report(name: str, our_rates: list[float], their_rates: list[float], floor: float) -> None:
    fast, slow = statistics.median(our_rates), statistics.median(their_rates)
    print(name)
    for who, median, rates in (
        ("  nc_tools Loader", fast, our_rates),
        ("  DataLoader, torchvision v2", slow, their_rates),
    ):
        print(f"{who:40}{median:12,.0f} images/s   {min(rates):,.0f} to {max(rates):,.0f}")
    print(f"{'  ratio':40}{fast / slow:12.1f}")
    print(f"{'  share of the floor':40}{fast / floor:12.0%}")


if __name__ == "__main__":
    main()
