"""A solver for the Tammes problem: place K points on a sphere as far apart as possible."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from nc_tools.seeds import stream

CURVATURE_PAIRS = 12  # pairs of a step and the change of the gradient that L-BFGS keeps
HALVINGS = 12  # the largest number of step lengths that are tried
HALFWAY = 2.0**8  # all restarts run up to this exponent
FINALISTS = 6  # restarts that run to the last exponent


class Effort(NamedTuple):
    """How hard :func:`solve_tammes` searches: restarts, steps at the first and later exponents, last exponent."""

    restarts: int
    first_steps: int
    steps: int
    last_exponent: float


def effort(num_points: int) -> Effort:
    """Return how hard to search for K points: many restarts for few points, one restart for many points."""
    if num_points <= 300:
        return Effort(max(2, min(48, 150_000 // num_points**2)), 600, 40, 2.0**20)
    return Effort(1, 60, 20, 2.0**13)


def solve_tammes(num_points: int, dim: int) -> Tensor:
    """Return K unit vectors in D dimensions whose largest inner product is nearly as small as possible.

    It minimizes an energy of inverse powers (:func:`energy`) from random starts, for a sequence of exponents, each
    twice the one before. The problem is smooth at first, and at the end nearly that of the minimal angle. A low first
    exponent with many steps finds symmetric codes (the roots of E8), a higher one finds codes without symmetry (13
    points on the sphere), so restarts use both.

    Similar: Kottwitz (1991), Wang (2009, "Finding and investigating exact spherical codes"). Here all restarts run as
    one batch.

    Runs on one thread, so the result does not depend on the number of threads. Another processor or version of PyTorch
    rounds differently and can give another code with nearly the same angle.

    Args:
        num_points: K, at least 2. Memory and the time of a step grow with K^2.
        dim: D, at least 2.

    Returns:
        (K, D), float64, on the CPU: the same at each call.

    Example:
        >>> w = solve_tammes(6, 3)  # the octahedron
        >>> bool(((w @ w.T)[0].sort().values[1:5].abs() < 1e-4).all())
        True
    """
    restarts, first_steps, steps, last = effort(num_points)
    # Gradients are computed by hand, so autograd is off: a solve inside a training step builds no graph.
    with _single_thread(), torch.device("cpu"), torch.no_grad():
        starts = torch.randn(restarts, num_points, dim, dtype=torch.float64, generator=stream(0, "frame", num_points))
        from_2, from_8, from_16 = starts.tensor_split(3)  # named by the first exponent
        results = [_raise_exponent(descend(from_2, 2.0, first_steps), 2.0, HALFWAY, steps)]
        results += [_raise_exponent(x, p, HALFWAY, steps) for x, p in ((from_8, 4.0), (from_16, 8.0)) if len(x)]
        codes = torch.cat(results)
        codes = codes[_largest_product(codes).argsort(stable=True)[:FINALISTS]]
        codes = _raise_exponent(codes, HALFWAY, last, steps)
        return codes[_largest_product(codes).argmin()].clone()


def _raise_exponent(points: Tensor, start: float, last: float, steps: int) -> Tensor:
    """Minimize the energy for the exponents 2 start, 4 start, ... up to ``last``."""
    exponent = start
    while exponent < last:
        exponent *= 2
        points = descend(points, exponent, steps)
    return points


def _largest_product(codes: Tensor) -> Tensor:
    """Return the largest inner product of two rows in each code (B, K, D): (B,)."""
    gram = codes @ codes.mT
    gram.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    return gram.flatten(1).amax(dim=1)


@contextmanager
def _single_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def energy(points: Tensor, exponent: float) -> tuple[Tensor, Tensor]:
    """Return f = (1/p) log sum_{i != j} (1 - w_i . w_j)^-p and its gradient, w the points scaled to unit length.

    As p grows, f tends to -log min (1 - w_i . w_j): the Tammes problem. The gradient of the logarithm does not depend
    on the size of the energy, so one sequence of exponents works for all numbers of points and dimensions.

    Args:
        points: (B, K, D), B problems in one batch.
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
    """Return the inner product of each problem's points (B, K, D): (B, 1, 1)."""
    return (a * b).sum(dim=(1, 2), keepdim=True)


def descend(points: Tensor, exponent: float, steps: int) -> Tensor:
    """Minimize :func:`energy` by limited-memory BFGS, for all problems of a batch at once.

    Source: Liu & Nocedal (1989). Steps are halved until Armijo's condition holds; each problem has its own step length.

    Args:
        points: (B, K, D).
        exponent: p.
        steps: The largest number of steps.

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
    """Return the approximate inverse Hessian times the gradient (B, K, D): the two-loop recursion of L-BFGS."""
    q, along = slope, []
    for moved, changed, inverse in reversed(history):
        along.append(inverse * _dot(moved, q))
        q = q - along[-1] * changed
    q = gamma * q
    for (moved, changed, inverse), a in zip(history, reversed(along), strict=True):
        q = q + (a - inverse * _dot(changed, q)) * moved
    return q
