"""Solver for spherical codes: points on a sphere, as far apart as they can be."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from nc_tools.seeds import stream

CURVATURE_PAIRS = 12
HALVINGS = 12
HALFWAY = 2.0**8  # the exponent up to which all restarts are carried
FINALISTS = 6


class Effort(NamedTuple):
    """What a solve may take: restarts, steps at the first exponent and at each later one, and the last exponent."""

    restarts: int
    first_steps: int
    steps: int
    last_exponent: float


def effort(num_points: int) -> Effort:
    """Return the effort for K points: small problems are solved to six digits from many starts, large ones from one."""
    if num_points <= 300:
        return Effort(max(2, min(48, 150_000 // num_points**2)), 600, 40, 2.0**20)
    return Effort(1, 60, 20, 2.0**13)


def solve_tammes(num_points: int, dim: int) -> Tensor:
    """Return K unit vectors in D dimensions whose largest inner product is about as small as it can be.

    The energy of inverse powers is minimized from random starts for one exponent after another, each twice the last:
    a smooth problem first, the minimal angle in the end. A low first exponent, well settled, finds symmetric codes (the
    roots of E8), a higher one codes without symmetry (13 points on the sphere), so restarts use both.

    Alike: Kottwitz (1991), Wang (2009, "Finding and investigating exact spherical codes"). Ours works all restarts at
    once.

    Runs on one thread, so that the result does not depend on how many there are; another processor or version of
    PyTorch rounds differently and may end in another code of nearly the same angle.

    Args:
        num_points: K, at least 2. Memory and a step's time grow with K^2.
        dim: D, at least 2.

    Returns:
        (K, D), float64, on the CPU: the same at each call.

    Example:
        >>> w = solve_tammes(6, 3)  # the octahedron
        >>> bool(((w @ w.T)[0].sort().values[1:5].abs() < 1e-4).all())
        True
    """
    restarts, first_steps, steps, last = effort(num_points)
    # Gradients are written out below; with autograd off, solving inside a training step costs no graph.
    with _single_thread(), torch.device("cpu"), torch.no_grad():
        starts = torch.randn(restarts, num_points, dim, dtype=torch.float64, generator=stream(0, "frame", num_points))
        settled, hasty, hastier = starts.tensor_split(3)
        ladders = [_ladder(descend(settled, 2.0, first_steps), 2.0, HALFWAY, steps)]
        ladders += [_ladder(x, p, HALFWAY, steps) for x, p in ((hasty, 4.0), (hastier, 8.0)) if len(x)]
        codes = torch.cat(ladders)
        codes = codes[_largest_product(codes).argsort(stable=True)[:FINALISTS]]
        codes = _ladder(codes, HALFWAY, last, steps)
        return codes[_largest_product(codes).argmin()].clone()


def _ladder(points: Tensor, above: float, last: float, steps: int) -> Tensor:
    exponent = above
    while exponent < last:
        exponent *= 2
        points = descend(points, exponent, steps)
    return points


def _largest_product(codes: Tensor) -> Tensor:
    gram = codes @ codes.mT
    gram.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    return gram.flatten(1).amax(dim=1)


@contextmanager
def _single_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def energy(points: Tensor, exponent: float) -> tuple[Tensor, Tensor]:
    """Return f = (1/p) log sum_{i != j} (1 - w_i . w_j)^-p and its gradient, w the points scaled to unit length.

    As p grows, f tends to -log min (1 - w_i . w_j): the Tammes problem. The ratio form is free of scale, so that one
    ladder of exponents serves all numbers of points and dimensions.

    Args:
        points: (B, K, D): B problems at once.
        exponent: p.

    Returns:
        f (B,) and its gradient (B, K, D).
    """
    norm = torch.linalg.vector_norm(points, dim=-1, keepdim=True)
    w = points / norm
    gap = torch.baddbmm(torch.ones((), dtype=w.dtype), w, w.mT, alpha=-1)
    gap.diagonal(dim1=1, dim2=2).fill_(torch.inf)  # a point does not repel itself
    gap.clamp_(min=torch.finfo(w.dtype).tiny)
    share = gap.log().mul_(-exponent)
    level = share.flatten(1).logsumexp(dim=1)
    share.sub_(level[:, None, None]).exp_().div_(gap)
    pull = 2 * share @ w
    along = (pull * w).sum(dim=-1, keepdim=True)
    return level / exponent, (pull - along * w) / norm


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=(1, 2), keepdim=True)


def descend(points: Tensor, exponent: float, steps: int) -> Tensor:
    """Minimize :func:`energy` by limited-memory BFGS, for all problems of a batch at once.

    Liu & Nocedal (1989), with halving until Armijo's condition holds; each problem has a step length of its own.

    Args:
        points: (B, K, D).
        exponent: p.
        steps: At most so many.

    Returns:
        (B, K, D), unit rows.
    """
    x = torch.nn.functional.normalize(points, dim=-1)
    value, slope = energy(x, exponent)
    history: list[tuple[Tensor, Tensor, Tensor]] = []
    gamma = 0.1 / torch.linalg.vector_norm(slope, dim=-1).amax(dim=1)[:, None, None].clamp(min=1e-300)
    for _ in range(steps):
        direction = -_inverse_hessian(slope, history, gamma)
        descent = _dot(direction, slope)
        length = torch.ones_like(descent)
        for _ in range(HALVINGS):
            trial = x + length * direction
            trial_value, trial_slope = energy(trial, exponent)
            good = trial_value[:, None, None] <= value[:, None, None] + 1e-4 * length * descent
            if good.all():
                break
            length = torch.where(good, length, length / 2)
        moved = torch.where(good, trial - x, 0.0)
        changed = torch.where(good, trial_slope - slope, 0.0)
        gained = torch.where(good[:, 0, 0], value - trial_value, 0.0)
        x, slope, value = x + moved, slope + changed, value - gained
        curvature = _dot(moved, changed)
        inverse = torch.where(curvature > 0, 1 / curvature.clamp(min=1e-300), 0.0)
        gamma = torch.where(curvature > 0, curvature / _dot(changed, changed).clamp(min=1e-300), gamma)
        history = [*history[-CURVATURE_PAIRS + 1 :], (moved, changed, inverse)]
        if not (gained * exponent > 1e-10).any():
            break
    return torch.nn.functional.normalize(x, dim=-1)


def _inverse_hessian(slope: Tensor, history: list[tuple[Tensor, Tensor, Tensor]], gamma: Tensor) -> Tensor:
    q, along = slope, []
    for moved, changed, inverse in reversed(history):
        along.append(inverse * _dot(moved, q))
        q = q - along[-1] * changed
    q = gamma * q
    for (moved, changed, inverse), a in zip(history, reversed(along), strict=True):
        q = q + (a - inverse * _dot(changed, q)) * moved
    return q
