"""Images per second from JPEG files to augmented batches: nc_tools beside torchvision and torch's DataLoader.

The images are made on the spot: smooth noise, saved as JPEG at quality 90. Three ways get the same files in the same
run, in turns, with as many processes as cores: ours (StreamLoader), a DataLoader over torchvision's own decoder, and a
DataLoader over Pillow, the loader of torchvision's ImageFolder. All resize the shorter side where the files are larger,
crop to a square, crop with a margin and flip at random, normalize, and end in float batches on the device. Beside them,
all files are decoded once, as for the cache of decoded images, by processes and by threads. The medians over the turns
are printed with the ratio of ours to them, and the processor time of an image over all processes, which other programs
on the machine hardly change.

With --step resnet50, training steps of a torchvision model are then made from our batches and from one batch that is on
the device already: the share of the time that a step waits for images.

    python benchmarks/decoding.py [--count 2000] [--file-size 224 224] [--side 224]
    python benchmarks/decoding.py --format png --file-size 32 32 --side 32 --count 6000
    python benchmarks/decoding.py --device cuda --count 20000 --file-size 500 375 --step resnet50 --batch-size 256
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import psutil
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_image, read_file
from torchvision.transforms import v2

from nc_tools._support.available_cores import available_cores
from nc_tools.data import Augment, BatchOptions, DataConfig, ImageFiles, StreamLoader, load_data
from nc_tools.data.decode import decode_chunks
from nc_tools.decoding import pool
from nc_tools.records import Batch

ONCE = "nc_tools, all files once"
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def make_images(root: Path, count: int, width: int, height: int, suffix: str) -> None:
    """Write ``count`` training images of two classes, and one test image of each."""
    generator = np.random.default_rng(0)
    for i in range(count + 2):
        rough = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
        grainy = (smooth + generator.integers(-12, 13, (height, width, 1))).clip(0, 255).astype(np.uint8)
        file = root / ("train" if i < count else "test") / "ab"[i % 2] / f"{i:06d}.{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grainy).save(file, **({"quality": 90} if suffix == "jpg" else {}))


class Files(Dataset[tuple[Tensor, int]]):
    """A data set that returns one decoded and transformed image and its label, like torchvision's ImageFolder."""

    def __init__(
        self, images: ImageFiles, read: Callable[[Path], Tensor], transform: Callable[[Tensor], Tensor]
    ) -> None:
        self._files = [images.root / path for path in images.paths]
        self._labels = images.labels.tolist()
        self._read, self._transform = read, transform

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(self._read(self._files[index])), self._labels[index]


def by_torchvision(file: Path) -> Tensor:
    return decode_image(read_file(str(file)), mode=ImageReadMode.RGB)


def by_pillow(file: Path) -> Tensor:
    with Image.open(file) as image:
        return v2.functional.pil_to_tensor(image.convert("RGB"))


def decoded_once(images: ImageFiles, smallest: int) -> Iterator[int]:
    """Yield the sizes of decoded chunks: by processes for at least ``smallest`` files, otherwise by threads."""
    with mock.patch.object(pool, "MANY", smallest):
        for chunk in decode_chunks(images.root, images.paths, images.image_size, 3):
            yield len(chunk.images)


def processor_seconds() -> float:
    """Return the processor time of this process and of its children that still run, in seconds."""
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return float(sum(t.user + t.system for t in times))


def measure(batches: Iterator[int], device: torch.device) -> tuple[float, float]:
    """Return images per second and processor milliseconds per image of one epoch."""
    start, processor = time.perf_counter(), processor_seconds()
    count = sum(batches)
    _wait(device)
    return count / (time.perf_counter() - start), 1000 * (processor_seconds() - processor) / count


def step_waits(batches: StreamLoader, name: str, steps: int, side: int, device: torch.device) -> None:
    """Print the share of training steps that is spent waiting for images."""
    model = getattr(torchvision.models, name)(num_classes=1000).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def train(inputs: Tensor, labels: Tensor) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = nn.functional.cross_entropy(model(inputs), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def endless() -> Iterator[Batch]:
        epoch = 0
        while True:
            yield from batches.epoch(epoch)
            epoch += 1

    stream = endless()
    size = 0
    for _ in range(steps):  # meanwhile the stream finds out how many processes it needs
        batch = next(stream)
        train(batch.inputs, batch.labels)
        size = len(batch.labels)
    rates = {}
    for what in ("on the device", "from files"):
        _wait(device)
        start = time.perf_counter()
        for _ in range(steps):
            batch = next(stream) if what == "from files" else batch
            train(batch.inputs, batch.labels)
        _wait(device)
        rates[what] = steps * size / (time.perf_counter() - start)
    print(f"{name}, batch {size} of {side} pixels, {steps} steps")
    for what, rate in rates.items():
        print(f"{f'  images {what}':40}{rate:12,.0f} images/s")
    print(f"{'  waiting':40}{1 - rates['from files'] / rates['on the device']:12.1%} of a step")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="training images")
    parser.add_argument("--file-size", type=int, nargs=2, default=(224, 224), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--format", choices=("jpg", "png"), default="jpg")
    parser.add_argument("--side", type=int, default=224, help="side of the images that the network gets")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, help="of the DataLoader; one for each core without it")
    parser.add_argument("--step", metavar="MODEL", help="a torchvision model, such as resnet50")
    parser.add_argument("--steps", type=int, default=50)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(arguments.device)
    workers = arguments.workers or available_cores()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "images"
        make_images(root, arguments.count, *arguments.file_size, arguments.format)
        run(root, arguments, device, workers)


def run(root: Path, arguments: argparse.Namespace, device: torch.device, workers: int) -> None:
    side, size = arguments.side, arguments.batch_size
    images = load_data(DataConfig(f"imagefolder:{root}", image_size=side, memory_gb=0)).train
    assert isinstance(images, ImageFiles)
    mean_size = statistics.mean(file.stat().st_size for file in root.rglob("*.*")) / 1000
    width, height = arguments.file_size
    print(
        f"{len(images):,} {arguments.format} files of {width} x {height}, {mean_size:.0f} kB each, to {side} x {side}"
    )
    print(f"{device}, {available_cores()} cores, {workers} workers, batch {size}, {arguments.turns} turns")
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}")
    augment = Augment(padding=side // 8, flip=True)
    options = BatchOptions(batch_size=size, mean=MEAN, std=STD, augment=augment, device=device, channels_last=True)
    ours = StreamLoader(images, torch.arange(len(images)), options)
    transform = v2.Compose(
        [
            v2.Resize(side, antialias=True),
            v2.CenterCrop(side),
            v2.RandomCrop(side, padding=side // 8),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    loaders = {
        name: DataLoader(
            Files(images, read, transform), size, shuffle=True, num_workers=workers, persistent_workers=True,
            pin_memory=device.type == "cuda", multiprocessing_context="forkserver",
        )
        for name, read in (("DataLoader, torchvision's decoder", by_torchvision), ("DataLoader, Pillow", by_pillow))
    }  # fmt: skip
    figures: dict[str, list[tuple[float, float]]] = {}
    for turn in range(1 + arguments.turns):
        batches = {"nc_tools StreamLoader": (len(batch.labels) for batch in ours.epoch(turn))}
        for name, loader in loaders.items():
            batches[name] = (len(inputs.to(device, non_blocking=True)) for inputs, _ in loader)
        for name, smallest in ((ONCE, 1), ("  by threads", sys.maxsize)):
            batches[name] = decoded_once(images, smallest)
        for name, sizes in batches.items():
            figures.setdefault(name, []).append(measure(sizes, device))
    figures = {name: of[1:] for name, of in figures.items()}  # the first turn starts the processes
    medians = {name: [statistics.median(column) for column in zip(*of, strict=True)] for name, of in figures.items()}
    for name, (rate, processor) in medians.items():
        rates = [one for one, _ in figures[name]]
        spread = f"{min(rates):,.0f} to {max(rates):,.0f}"
        print(f"{name:36}{rate:8,.0f} images/s  ({spread}){processor:8.2f} ms of processor time an image")
        first = medians[ONCE if "thread" in name else "nc_tools StreamLoader"]
        if "nc_tools" not in name:
            print(f"{'  ratio, ours to this':36}{first[0] / rate:8.2f}{'':24}{first[1] / processor:8.2f}")
    if arguments.step:
        step_waits(ours, arguments.step, arguments.steps, side, device)


if __name__ == "__main__":
    main()
