"""Compare the time of a step with a fixed frame and dot regression to one with a linear head and cross-entropy.

    python benchmarks/dot_regression.py [--device cuda] [--threads 2]

Runs the training loop (`nc_tools.training.fit`: head, loss, backward, update, meter) on features in place of a
backbone's output, the two arms in turn, and prints the median milliseconds of a step and their ratio. Two more lines
are lower bounds: the matrix products that dot regression does not need, and the pass over the features that it needs.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from nc_tools.heads import ETFHead, LinearHead
from nc_tools.heads.head import Head
from nc_tools.losses import CrossEntropyLoss, DotRegressionLoss, LossTerm
from nc_tools.models import Classifier
from nc_tools.records import Batch
from nc_tools.training import OptimConfig, TrainConfig, fit


class ConstantBackbone(nn.Module):
    """A backbone that returns constant features with a gradient. Its parameter is there because the loop needs one."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.register_buffer("features", features)
        self.device_tag = nn.Parameter(torch.zeros(1, device=features.device))
        self.leaf = features.clone().requires_grad_()

    def forward(self, _inputs: Tensor) -> Tensor:
        """Return the features."""
        self.leaf.grad = None
        return self.leaf


class Repeated:
    """A loader that yields the same batch at every step."""

    def __init__(self, batch: Batch, steps: int) -> None:
        self.batch, self.steps = batch, steps

    def __len__(self) -> int:
        return self.steps

    def epoch(self, _epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batch again and again."""
        for _ in range(start, self.steps):
            yield self.batch


def step_ms(head: Head, loss: LossTerm, features: Tensor, labels: Tensor, steps: int) -> float:
    model = Classifier(ConstantBackbone(features), head.to(features.device))
    batch = Batch(features, labels, torch.arange(len(labels), device=features.device))
    training = TrainConfig(epochs=1, batch_size=len(labels), precision="float32")
    fitted = fit(model, loss, Repeated(batch, steps), training, OptimConfig(lr=1e-3))
    return 1000 * fitted.seconds / steps


def timed(work: Callable[[], object], device: torch.device, turns: int) -> float:
    times = []
    for _ in range(turns):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--size", type=int, nargs=3, default=(256, 2048, 1000), metavar=("N", "D", "K"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device, (n, d, k) = torch.device(args.device), args.size
    features, labels = torch.randn(n, d, device=device), torch.randint(k, (n,), device=device)
    arms: dict[str, Callable[[], float]] = {
        "linear + cross-entropy": lambda: step_ms(LinearHead(d, k), CrossEntropyLoss(), features, labels, args.steps),
        "ETF + dot regression": lambda: step_ms(frame, DotRegressionLoss(), features, labels, args.steps),
    }
    frame = ETFHead(d, k)
    times: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(args.turns + 1):
        for name, run in arms.items():
            took = run()
            if turn:
                times[name].append(took)
    weight, grad = torch.randn(k, d, device=device), torch.randn(n, k, device=device)
    floor = {
        "the three matrix products of a linear head": timed(
            lambda: (features @ weight.T, grad @ weight, grad.T @ features), device, args.turns
        ),
        "one read and one write of the features": timed(lambda: features * 2, device, args.turns),
    }
    print(f"N, D, K = {n}, {d}, {k}; {device}, {args.threads} threads, torch {torch.__version__}")
    for name, values in times.items():
        print(f"{name:<45}{statistics.median(values):9.3f} ms a step  ({min(values):.3f} to {max(values):.3f})")
    for name, value in floor.items():
        print(f"{name:<45}{value:9.3f} ms")
    linear, dot = (statistics.median(values) for values in times.values())
    print(f"dot regression is {linear / dot:.1f} times cheaper (medians of {args.turns} interleaved turns)")


if __name__ == "__main__":
    main()
