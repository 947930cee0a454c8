"""Class weights against scalar Python, from the start and deferred."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.loss_variants import batch_of, outputs_of
from support.scalar_math import nll
from torch import Tensor

from nc_tools.losses import (
    ClassBalancedLoss,
    CrossEntropyLoss,
    DeferredReweightingLoss,
    DotRegressionLoss,
    LDAMLoss,
    LossTerm,
    class_balanced_weights,
    effective_number,
    weighted_mean,
)
from nc_tools.records import Batch, Outputs
from nc_tools.specs import spec

COUNTS = [500, 40, 7, 1]
K = len(COUNTS)
Row = list[float]
row = st.lists(st.floats(-20, 20), min_size=K, max_size=K)
labels = st.integers(0, K - 1)
counts = st.lists(st.integers(1, 5000), min_size=K, max_size=K)
few = settings(max_examples=40, deadline=None)


def wide(values: Row) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@given(counts, st.floats(0, 0.99999))
@few
def test_class_balanced_weights(n: list[int], beta: float) -> None:
    raw = [1 / sum(beta**i for i in range(c)) for c in n]  # the effective number is a geometric series
    expected = [K * r / sum(raw) for r in raw]
    assert class_balanced_weights(n, beta).tolist() == pytest.approx(expected, rel=1e-5)
    assert effective_number(n, beta).tolist() == pytest.approx([1 / r for r in raw], rel=1e-9)


def test_limits_of_the_effective_number() -> None:
    assert class_balanced_weights(COUNTS, 0.0).tolist() == pytest.approx([1.0] * K)
    inverse = [1 / n for n in COUNTS]
    assert class_balanced_weights(COUNTS, 1.0).tolist() == pytest.approx([K * v / sum(inverse) for v in inverse])
    assert effective_number(COUNTS, 1.0).tolist() == COUNTS


@given(st.lists(st.tuples(row, labels), min_size=1, max_size=6), counts)
@few
def test_class_weighted_cross_entropy(samples: list[tuple[Row, int]], n: list[int]) -> None:
    z, y = wide([s[0] for s in samples]), torch.tensor([s[1] for s in samples])  # type: ignore[arg-type]
    weight = class_balanced_weights(n, 0.99).tolist()
    above = sum(weight[own] * nll(scores, own) for scores, own in samples)
    below = sum(weight[own] for _, own in samples)
    result = ClassBalancedLoss(n, beta=0.99)(outputs_of(z), batch_of(y))
    assert float(result) == pytest.approx(above / below, rel=1e-6, abs=1e-6)
    torchs = torch.nn.functional.cross_entropy(z, y, weight=class_balanced_weights(n, 0.99).double())
    assert float(result) == pytest.approx(float(torchs), rel=1e-6, abs=1e-6)


def test_equal_weights_change_nothing() -> None:
    values, y = torch.randn(6), torch.arange(6) % K
    assert torch.allclose(weighted_mean(values, y, torch.full((K,), 2.5)), values.mean())


def test_deferred_weights_come_at_their_time_and_go_when_training_starts_anew() -> None:
    z, y = torch.randn(8, K), torch.arange(8) % K
    loss = DeferredReweightingLoss(COUNTS, loss=spec(LDAMLoss, max_margin=0.3), start=0.6)
    plain = LDAMLoss(COUNTS, 0.3)(outputs_of(z), batch_of(y))
    weighted = ClassBalancedLoss(COUNTS, loss=LDAMLoss(COUNTS, 0.3))(outputs_of(z), batch_of(y))
    assert not torch.allclose(plain, weighted)
    where = loss.weight.data_ptr()
    for progress, expected in (
        (0.0, plain),
        (0.599, plain),
        (0.6, weighted),
        (1.0, weighted),
        (0, plain),
    ):
        loss.set_progress(progress)
        assert torch.allclose(loss(outputs_of(z), batch_of(y)), expected)
    assert loss.weight.data_ptr() == where  # in place: a compiled step keeps reading the same memory


def test_a_compiled_step_is_compiled_once_for_both_phases() -> None:
    compiled = 0

    def count(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> object:
        nonlocal compiled
        compiled += 1
        return graph.forward

    z, y = torch.randn(8, K), torch.arange(8) % K
    loss = DeferredReweightingLoss(COUNTS, loss=LDAMLoss(COUNTS), start=0.5)
    torch._dynamo.reset()
    step = torch.compile(lambda x: loss(outputs_of(x), batch_of(y)), backend=count, fullgraph=True)
    for progress in (0.0, 0.4, 0.5, 0.9):
        loss.set_progress(progress)
        assert torch.allclose(step(z), loss(outputs_of(z), batch_of(y)))
    assert compiled == 1


def test_progress_reaches_the_weighted_loss() -> None:
    class RecordsProgress(CrossEntropyLoss):
        progress = -1.0

        def set_progress(self, progress: float) -> None:
            self.progress = progress

    inner = RecordsProgress()
    DeferredReweightingLoss(COUNTS, loss=inner).set_progress(0.7)
    assert inner.progress == 0.7


def test_weights_need_a_loss_per_sample() -> None:
    class NotPerSample(LossTerm):
        def compute(self, outputs: Outputs, batch: Batch) -> Tensor:  # noqa: ARG002
            return outputs.logits.sum()

    with pytest.raises(TypeError, match=r"a value for each sample, got NotPerSample\. Derive it from PerSampleLoss"):
        ClassBalancedLoss(COUNTS, loss=NotPerSample())  # type: ignore[arg-type]
    assert isinstance(ClassBalancedLoss(COUNTS, loss=DotRegressionLoss()).loss, DotRegressionLoss)
