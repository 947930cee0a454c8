"""Cost of NearestETFHead compared with a training step of a ResNet-50.

    python benchmarks/nearest_etf.py                      K = 1000, 224 pixels, batches of 64
    python benchmarks/nearest_etf.py --batch 8 --size 64  smaller, to check that it runs

A refresh is a thin SVD of D x (K - 1) numbers; every step adds class sums to the running means. Both are timed in turns
with a training step of the network with a linear head. The last lines show how much a refresh every n steps adds to the
training step.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
import torchvision
from torch.nn.functional import cross_entropy

from nc_tools.heads import NearestETFHead

EVERY = (1, 10, 100, 1000)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device, classes, dim = torch.device(args.device), args.classes, 2048
    torch.manual_seed(0)
    model = torchvision.models.resnet50(num_classes=classes).to(device)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    images = torch.randn(args.batch, 3, args.size, args.size, device=device)
    labels = torch.randint(classes, (args.batch,), device=device)

    def train() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16):
            loss = cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()

    head = NearestETFHead(dim, classes, every=10**9).to(device)
    means = torch.randn(4 * classes, dim, device=device).relu()
    with torch.no_grad():
        head.observe(head.outputs(means), torch.arange(4 * classes, device=device) % classes, 0.0)
    outputs = head.outputs(torch.randn(args.batch, dim, device=device).relu())

    @torch.no_grad()
    def observe() -> None:
        head.observe(outputs, labels, 0.5)

    works = {"training step": train, "observe": observe, "refresh": torch.no_grad()(head.refresh)}
    for work in works.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(args.turns):
        for name, work in works.items():
            times[name].append(seconds(work, device))
    where = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()
    print(
        f"ResNet-50, {args.size} pixels, batch {args.batch}, bfloat16 autocast, K = {classes}, D = {dim}; {where}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}; medians of {args.turns} turns"
    )
    median = {name: statistics.median(values) for name, values in times.items()}
    for name, values in times.items():
        print(f"{name:<16}{median[name]:10.4f} s  ({min(values):.4f} to {max(values):.4f})")
    for every in EVERY:
        extra = median["observe"] + median["refresh"] / every
        print(f"every {every:>4} steps: {100 * extra / median['training step']:7.2f} % more than the step")


if __name__ == "__main__":
    main()
