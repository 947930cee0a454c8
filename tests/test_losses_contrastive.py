"""Contrastive losses against loops over scalars, their limits, and the memory of a large batch."""

import math
import weakref
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.scalar_math import dot, unit
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nc_tools.heads import LinearHead
from nc_tools.losses import (
    BalancedSupConLoss,
    ClassConditionalInfoNCELoss,
    DHELLoss,
    LossTerm,
    SpreadLoss,
    SupConLoss,
    _pairwise,
    balanced_supervised_contrastive,
    class_attraction,
    class_conditional_info_nce,
    decoupled_info_nce,
    supervised_contrastive,
)
from nc_tools.records import Batch, Outputs

K, D = 3, 4
Rows = list[list[float]]


def reference_supcon(rows: Rows, labels: list[int], tau: float) -> list[float]:
    z, result = [unit(r) for r in rows], []
    for i in range(len(z)):
        others = [a for a in range(len(z)) if a != i]
        positive = [p for p in others if labels[p] == labels[i]]
        total = sum(math.exp(dot(z[i], z[a]) / tau) for a in others)
        logs = [math.log(math.exp(dot(z[i], z[p]) / tau) / total) for p in positive]
        result.append(-sum(logs) / len(logs) if logs else 0.0)
    return result


def reference_balanced(rows: Rows, labels: list[int], centers: Rows, tau: float) -> list[float]:
    z, c, result = [unit(r) for r in rows], [unit(r) for r in centers], []
    for i in range(len(z)):
        keys = {k: [c[k]] + [z[a] for a in range(len(z)) if a != i and labels[a] == k] for k in range(len(c))}
        total = sum(sum(math.exp(dot(z[i], a) / tau) for a in of) / len(of) for of in keys.values())
        own = keys[labels[i]]
        result.append(-sum(math.log(math.exp(dot(z[i], p) / tau) / total) for p in own) / len(own))
    return result


def reference_conditional(first: Rows, second: Rows, labels: list[int], tau: float) -> list[float]:
    u, v, result = [unit(r) for r in first], [unit(r) for r in second], []
    for i in range(len(u)):
        total = sum(math.exp(dot(u[i], v[j]) / tau) for j in range(len(v)) if labels[j] == labels[i])
        result.append(-math.log(math.exp(dot(u[i], v[i]) / tau) / total))
    return result


def reference_attraction(first: Rows, second: Rows, labels: list[int], tau: float) -> list[float]:
    u, v, result = [unit(r) for r in first], [unit(r) for r in second], []
    for i in range(len(u)):
        scores = [math.exp(dot(u[i], v[j]) / tau) for j in range(len(v))]
        others = sum(s for s, y in zip(scores, labels, strict=True) if y != labels[i])
        logs = [-math.log(s / (s + others)) for s, y in zip(scores, labels, strict=True) if y == labels[i]]
        result.append(sum(logs) / len(logs))
    return result


def reference_dhel(first: Rows, second: Rows, tau: float) -> list[float]:
    u, v, result = [unit(r) for r in first], [unit(r) for r in second], []
    for i in range(len(u)):
        loss = -dot(u[i], v[i]) / tau
        for z in (u, v):
            loss += math.log(sum(math.exp(dot(z[i], z[j]) / tau) for j in range(len(z)) if j != i))
        result.append(loss)
    return result


number = st.floats(-2, 2).map(lambda x: round(x, 3))
row = st.lists(number, min_size=D, max_size=D).filter(lambda r: math.hypot(*r) > 0.1)
batches = st.integers(2, 7).flatmap(
    lambda n: st.tuples(
        st.lists(row, min_size=n, max_size=n),
        st.lists(row, min_size=n, max_size=n),
        st.lists(st.integers(0, K - 1), min_size=n, max_size=n),
    )
)
temperatures = st.floats(0.2, 2)


@given(batches, st.lists(row, min_size=K, max_size=K), temperatures)
@settings(max_examples=60, deadline=None)
def test_formulas(batch: tuple[Rows, Rows, list[int]], centers: Rows, tau: float) -> None:
    first, second, labels = batch
    u, v, c = (torch.tensor(rows, dtype=torch.float64) for rows in (first, second, centers))
    y = torch.tensor(labels)

    def same(result: Tensor, expected: list[float]) -> None:
        assert result.tolist() == pytest.approx(expected, rel=1e-8, abs=1e-8)

    same(supervised_contrastive(u, y, tau), reference_supcon(first, labels, tau))
    same(balanced_supervised_contrastive(u, y, c, tau), reference_balanced(first, labels, centers, tau))
    same(class_conditional_info_nce(u, v, y, tau), reference_conditional(first, second, labels, tau))
    same(class_attraction(u, v, y, tau), reference_attraction(first, second, labels, tau))
    same(decoupled_info_nce(u, v, tau), reference_dhel(first, second, tau))


def two_view_outputs(first: Tensor, second: Tensor | None) -> Outputs:
    head = LinearHead(first.shape[1], K, generator=torch.Generator().manual_seed(0)).double()
    outputs = head.outputs(first)
    outputs.second_view = None if second is None else head.outputs(second)
    return outputs


def test_classes_are_means_of_the_functions_with_these_defaults() -> None:
    u, v, y = torch.randn(6, D, dtype=torch.float64), torch.randn(6, D, dtype=torch.float64), torch.arange(6) % K
    outputs, batch = two_view_outputs(u, v), Batch(u, y, torch.arange(6))
    both, twice = [*u.tolist(), *v.tolist()], [*y.tolist()] * 2
    centers = outputs.weight.tolist()
    conditional = reference_conditional(u.tolist(), v.tolist(), y.tolist(), 0.5)
    pull = reference_attraction(u.tolist(), v.tolist(), y.tolist(), 0.5)
    expected: list[tuple[LossTerm, list[float]]] = [
        (SupConLoss(), reference_supcon(both, twice, 0.1)),
        (BalancedSupConLoss(), reference_balanced(both, twice, centers, 0.1)),
        (ClassConditionalInfoNCELoss(), conditional),
        (SpreadLoss(), [(a + b) / 2 for a, b in zip(pull, conditional, strict=True)]),
        (SpreadLoss(3.0, 1.0), [(3 * a + b) / 4 for a, b in zip(pull, conditional, strict=True)]),
        (SpreadLoss(2.0, 0.0), pull),
        (SpreadLoss(0.0, 2.0), conditional),
        (DHELLoss(), reference_dhel(u.tolist(), v.tolist(), 0.3)),
    ]
    for loss, reference in expected:
        assert loss(outputs, batch).item() == pytest.approx(sum(reference) / len(reference), rel=1e-9), loss


@pytest.mark.parametrize("cls", [SupConLoss, BalancedSupConLoss, ClassConditionalInfoNCELoss, SpreadLoss, DHELLoss])
def test_one_view_is_refused(cls: type[LossTerm]) -> None:
    batch = Batch(torch.randn(3, D), torch.arange(3), torch.arange(3))
    with pytest.raises(ValueError, match=rf"{cls.__name__} needs two views of each image, but .* is None"):
        cls()(two_view_outputs(batch.inputs.double(), None), batch)
    assert cls().views == 2
    with pytest.raises(ValueError, match="temperature must be positive and finite, got 0"):
        cls(temperature=0.0)  # type: ignore[call-arg]


def test_weights_of_spread_are_checked() -> None:
    for a, b in ((-1.0, 2.0), (0.0, 0.0), (1.0, math.nan)):
        with pytest.raises(ValueError, match="attract and separate must be finite, not negative and not both 0"):
            SpreadLoss(a, b)


def test_without_positives_or_negatives_there_is_nothing_and_no_nan() -> None:
    z = torch.randn(4, D, requires_grad=True)
    alone, one_class = torch.arange(4), torch.zeros(4, dtype=torch.int64)
    supcon, conditional = supervised_contrastive(z, alone), class_conditional_info_nce(z, z.flip(1), alone)
    attraction = class_attraction(z, z.flip(1), one_class)
    single = decoupled_info_nce(z[:1], z[:1], temperature=0.5)
    assert supcon.tolist() == [0.0] * 4
    assert conditional.tolist() == pytest.approx([0.0] * 4, abs=1e-6)
    assert attraction.tolist() == [0.0] * 4
    assert single.item() == pytest.approx(-2.0)
    torch.autograd.backward((supcon + conditional + attraction).sum() + single.sum())
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()
    assert supervised_contrastive(z[:1], alone[:1]).tolist() == [0.0]


def test_a_collapsed_simplex_is_the_optimum_of_supcon() -> None:
    """Balanced classes on the vertices of a simplex: no small move makes it better, and any other place is worse."""
    labels = torch.arange(12) % K
    vertices = torch.eye(K, dtype=torch.float64) - 1 / K
    best = float(supervised_contrastive(vertices[labels], labels, 0.5).mean())
    generator = torch.Generator().manual_seed(0)
    for size in (0.01, 0.1, 1.0):
        moved = vertices[labels] + size * torch.randn(12, K, generator=generator, dtype=torch.float64)
        assert float(supervised_contrastive(moved, labels, 0.5).mean()) > best


def test_balancing_makes_a_class_count_once_however_many_rows_it_has() -> None:
    """Copies of a head-class row change nothing for the others; in plain SupCon they take over the denominator."""
    z, centers = torch.randn(3, D, dtype=torch.float64), torch.randn(2, D, dtype=torch.float64)
    centers[0] = z[0]
    few, many = torch.tensor([0, 1, 1]), torch.tensor([0] * 50 + [1, 1])
    crowd = torch.cat([z[:1].expand(50, D), z[1:]])
    balanced = [balanced_supervised_contrastive(a, y, centers)[-2:] for a, y in ((z, few), (crowd, many))]
    plain = [supervised_contrastive(a, y)[-2:] for a, y in ((z, few), (crowd, many))]
    torch.testing.assert_close(balanced[0], balanced[1])
    assert (plain[1] > plain[0]).all()


CASES: list[Callable[[Tensor, Tensor], Tensor]] = [
    lambda z, y: supervised_contrastive(z, y),
    lambda z, y: balanced_supervised_contrastive(z, y, torch.eye(K, D, dtype=z.dtype)),
    lambda z, y: class_conditional_info_nce(z, z.flip(1), y),
    lambda z, y: class_attraction(z, z.flip(1), y),
    lambda z, _: decoupled_info_nce(z, z.flip(1)),
]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_blocks_give_the_same_values_and_gradients(case: int, monkeypatch: pytest.MonkeyPatch) -> None:
    y, result = torch.arange(11) % K, []
    weigh = torch.arange(1.0, 12.0, dtype=torch.float64)
    start = torch.randn(11, D, dtype=torch.float64)
    for block in (_pairwise._BLOCK, 25, 1):
        monkeypatch.setattr(_pairwise, "_BLOCK", block)
        z = start.clone().requires_grad_()
        value = CASES[case](z, y)
        torch.autograd.backward((value * weigh).sum())
        assert z.grad is not None
        result.append((value.detach(), z.grad))
    for value, gradient in result[1:]:
        torch.testing.assert_close(value, result[0][0])
        torch.testing.assert_close(gradient, result[0][1])


class Peak(TorchDispatchMode):
    """The bytes of all tensor storages alive at once that operations returned."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                key = storage._cdata
                if key not in self.alive:
                    self.alive[key] = storage.nbytes()
                    weakref.finalize(storage, self.alive.pop, key, None)
        self.peak = max(self.peak, sum(self.alive.values()))
        return result


def peak_floats(count: int, step: Callable[[Tensor], Tensor]) -> float:
    """Return the peak of a forward and backward pass over ``count`` features, in floats."""
    z = torch.randn(count, 128, requires_grad=True)
    with Peak() as mode:
        torch.autograd.backward(step(z))
    assert z.grad is not None
    return mode.peak / 4


def test_the_peak_is_measured() -> None:
    """A plain square matrix, its exponential and the gradients of both stay alive together."""
    assert 2 * 512**2 < peak_floats(512, lambda z: (z @ z.T).exp().sum()) < 6 * 512**2


@pytest.mark.slow
def test_supcon_never_holds_all_pairs() -> None:
    """4096 images in two views, 8192 rows: at most 2 N^2 floats with N the images, backward included."""
    count = 4096
    labels = (torch.arange(count) % 100).repeat(2)
    assert peak_floats(2 * count, lambda z: supervised_contrastive(z, labels).mean()) < 2 * count**2


def test_blocks_compile_without_a_graph_break(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pairwise, "_BLOCK", 40)
    z, y = torch.randn(11, D), torch.arange(11) % K
    torch._dynamo.reset()
    compiled = torch.compile(supervised_contrastive, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(z, y), supervised_contrastive(z, y))
