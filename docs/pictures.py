"""Draw docs/geometries.png and docs/cosines.png, from the heads themselves: ``python docs/pictures.py``."""

from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from mpl_toolkits.mplot3d import Axes3D
from torch import Tensor

from nc_tools.heads import (
    BalancedCalibrationHead,
    CubeHead,
    ETFHead,
    FrozenRandomHead,
    HadamardHead,
    Head,
    NearestETFHead,
    OrthoplexHead,
    PreallocatedHead,
    PrototypeHead,
    RBFHead,
    SphericalCodeHead,
    TwoSpaceHead,
)

HERE = Path(__file__).parent
INK, PALE = "#1b2430", "#9aa5b1"
COLOURS = ["#0b6e99", "#d1495b", "#66a182", "#edae49", "#6a4c93", "#8d6a4f", "#3c8dad", "#b5838d"]


def vectors(axes: Axes3D, weight: Tensor, *, edges: float, unused: int = 0) -> None:
    """Arrows for class vectors (K, 3), a line between those that are at most ``edges`` apart."""
    points = weight.detach().numpy()
    for i, point in enumerate(points):
        shade = PALE if i >= len(points) - unused else COLOURS[i % len(COLOURS)]
        axes.plot(*zip([0, 0, 0], point, strict=True), color=shade, lw=1.6, ls=":" if shade == PALE else "-")
        axes.scatter(*point, color="white" if shade == PALE else shade, edgecolor=shade, s=26, depthshade=False)
    for a, b in combinations(points, 2):
        if ((a - b) ** 2).sum() ** 0.5 < edges:
            axes.plot(*zip(a, b, strict=True), color=PALE, lw=0.7)
    axes.set(xlim=(-0.72, 0.72), ylim=(-0.72, 0.72), zlim=(-0.72, 0.72), box_aspect=(1, 1, 1))
    axes.view_init(elev=18, azim=33)
    axes.set_axis_off()


def flat(axes: Axes, limit: float) -> None:
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set_visible(False)


def arrows(axes: Axes, weight: Tensor, **style: object) -> None:
    for row, color in zip(weight.detach().tolist(), COLOURS, strict=False):
        axes.annotate("", row, (0, 0), arrowprops={"arrowstyle": "-|>", "color": color, "lw": 1.8, **style})


def nearest(axes: Axes) -> None:
    head = NearestETFHead(2, 3, every=1, momentum=0.0, frame_seed=1)
    means = torch.tensor([[1.0, 0.5], [-0.2, 1.0], [-0.7, -0.9]])
    arrows(axes, head.weight, ls=":", lw=1)
    features = means.repeat_interleave(30, 0) + 0.13 * torch.randn(90, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(3).repeat_interleave(30)
    head.observe(head.outputs(features), labels, 0.1)
    arrows(axes, head.weight)
    axes.scatter(*features.T, c=[COLOURS[y] for y in labels], s=4, alpha=0.6, lw=0)
    flat(axes, 1.4)


def prototype(axes: Axes) -> None:
    head = PrototypeHead(2, 3, momentum=0.0, frame_seed=2)
    features = torch.tensor([[1.0, 0.35], [0.6, 1.0], [-0.3, 1.0]])
    path = []
    for step in range(21):
        head.observe(head.outputs(features), torch.arange(3), step / 20)
        path.append(head.weight.clone())
    way = torch.stack(path)
    arrows(axes, way[0], ls=":", lw=1)
    arrows(axes, way[-1])
    for k in range(3):
        axes.plot(*way[:, k].T, color=COLOURS[k], lw=1)
    flat(axes, 1.2)


def plane(side: int, limit: float) -> Tensor:
    line = torch.linspace(-limit, limit, side)
    return torch.cartesian_prod(line, line)


def confidence(axes: Axes, head: Head, limit: float, *, background: bool = False) -> None:
    """Largest class probability over a plane of features."""
    points = plane(161, limit)
    logits = head(points).detach()
    scores = RBFHead.with_background(logits) if background else logits
    sure = scores.softmax(1)[:, : head.num_classes].amax(1).reshape(161, 161).T
    axes.imshow(sure, extent=(-limit, limit, -limit, limit), origin="lower", cmap="YlGnBu", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])


def rbf(axes: Axes) -> None:
    head = RBFHead(2, 3, radius=2.0, frame_seed=3)
    confidence(axes, head, 4.5, background=True)
    axes.scatter(*(2 * head.weight).T, color=COLOURS[1], s=14)


def balanced(axes: Axes) -> None:
    head = BalancedCalibrationHead(2, 3, mix=0.5, scale=4.0, frame_seed=3)
    with torch.no_grad():
        head.linear.weight.copy_(1.2 * head.etf.weight)
        head.linear.get_parameter("bias").zero_()
    confidence(axes, head, 4.5)


def two_space(axes: Axes) -> None:
    """The way of a feature: the encoder's h below, the projected u and its frame above."""
    head = TwoSpaceHead(32, 8)
    hidden, dim = head.up.shape
    steps = [
        (f"encoder's h, {dim}", "transfer, kNN, probes", COLOURS[2]),
        (f"frozen tight frame, {hidden}, ReLU", "", PALE),
        (f"frozen rows, {head.down.shape[0]}, unit length: u", "out-of-distribution scores", COLOURS[0]),
        (f"simplex ETF of {head.num_classes} classes", "logits", COLOURS[1]),
    ]
    for i, (name, use, color) in enumerate(steps):
        box = {"boxstyle": "round,pad=.45", "facecolor": "white", "edgecolor": color, "lw": 1.5}
        axes.text(0.5, i, name, ha="center", va="center", fontsize=8, color=INK, bbox=box)
        axes.text(0.5, i + 0.36, use, ha="center", va="center", fontsize=7.5, color="#52606d", style="italic")
    for i in range(3):
        axes.annotate("", (0.02, i + 0.8), (0.02, i + 0.2), arrowprops={"arrowstyle": "-|>", "color": PALE})
    axes.set(xlim=(0, 1), ylim=(-0.4, 3.6))
    axes.set_axis_off()


def signs(axes: Axes) -> None:
    axes.imshow(HadamardHead(16, 16).weight.sign(), cmap="RdBu", vmin=-1.6, vmax=1.6)
    axes.set(xticks=[], yticks=[])


def caption(axes: Axes, name: str, said: str) -> None:
    axes.set_title(name, fontsize=10.5, color=INK, weight="bold", pad=22)
    write = axes.text2D if isinstance(axes, Axes3D) else axes.text
    write(0.5, 1.03, said, transform=axes.transAxes, ha="center", fontsize=8, color="#52606d")


def draw_geometries(path: Path) -> None:
    solid = [
        ("ETFHead, SimplexHead", "K = 4: all cosines -1/3", ETFHead(3, 4, frame_seed=4).weight, 2.0, 0),
        ("OrthoplexHead", "K = 6 in 3 dimensions: ±axes", OrthoplexHead(8, 6).weight, 1.5, 0),
        ("CubeHead", "K = 8 in 3 dimensions", CubeHead(8, 8).weight, 1.2, 0),
        ("SphericalCodeHead", "K = 12 in 3 dimensions: 63.4°", SphericalCodeHead(3, 12).weight, 1.1, 0),
        ("FrozenRandomHead", "K = 12 in 3 dimensions: the control", FrozenRandomHead(3, 12, frame_seed=1).weight, 0, 0),
        ("PreallocatedHead", "3 of 4 vertices in use", PreallocatedHead(3, 4, capacity=4, frame_seed=4).weight, 2.0, 1),
    ]
    planar = [
        ("HadamardHead", "16 classes x 16 signs", signs),
        ("NearestETFHead", "dotted: drawn; solid: turned to the means", nearest),
        ("PrototypeHead", "dotted: prototypes; solid: vertices", prototype),
        ("RBFHead", "confidence: falls to 0 far from the centers", rbf),
        ("BalancedCalibrationHead", "confidence: half linear, half ETF", balanced),
        ("TwoSpaceHead", "two geometries: bottom to top", two_space),
    ]
    figure = plt.figure(figsize=(11.5, 8.6))
    for i, (name, said, weight, edges, unused) in enumerate(solid):
        axes = figure.add_subplot(3, 4, i + 1, projection="3d")
        vectors(axes, weight, edges=edges, unused=unused)
        caption(axes, name, said)
    for i, (name, said, draw) in enumerate(planar):
        axes = figure.add_subplot(3, 4, i + 7)
        draw(axes)
        caption(axes, name, said)
    figure.subplots_adjust(left=0.02, right=0.98, top=0.92, bottom=0.05, hspace=0.42, wspace=0.16)
    figure.savefig(path, dpi=120)


def draw_cosines(path: Path) -> None:
    classes = 16
    shown = {
        "ETF": ETFHead(64, classes),
        "Hadamard": HadamardHead(64, classes),
        "orthoplex, 8 dim.": OrthoplexHead(64, classes),
        "code, 5 dim.": SphericalCodeHead(64, classes, projection=5),
        "cube, 4 dim.": CubeHead(64, classes),
        "random, 64 dim.": FrozenRandomHead(64, classes),
    }
    figure, row = plt.subplots(1, len(shown), figsize=(11.5, 2.5), layout="constrained")
    for axes, (name, head) in zip(row, shown.items(), strict=True):
        gram = (head.weight @ head.weight.T).detach()
        off = gram[~torch.eye(classes, dtype=torch.bool)]
        image = axes.imshow(gram, cmap="RdBu_r", vmin=-1, vmax=1)
        axes.set(xticks=[], yticks=[])
        axes.set_title(name, fontsize=9.5, color=INK, weight="bold")
        axes.set_xlabel(f"others {float(off.min()):+.2f} to {float(off.max()):+.2f}", fontsize=8, color="#52606d")
    figure.colorbar(image, ax=row, shrink=0.75, pad=0.01).ax.tick_params(labelsize=7)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    mpl.use("agg")
    torch.manual_seed(0)
    draw_geometries(HERE / "geometries.png")
    draw_cosines(HERE / "cosines.png")
