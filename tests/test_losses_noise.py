"""Losses for noisy labels against scalar references that import neither torch.nn.functional nor nc_tools."""

import math
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from support.loss_variants import LogitsHead, batch_of, outputs_of
from torch import Tensor, nn

from nc_tools.heads import LinearHead
from nc_tools.losses import (
    ActivePassiveLoss,
    BinaryCrossEntropyLoss,
    CrossEntropyLoss,
    EarlyLearningLoss,
    ForwardCorrectionLoss,
    GeneralizedCrossEntropyLoss,
    LossTerm,
    NCEAndMAELoss,
    NCEAndRCELoss,
    SymmetricCrossEntropyLoss,
    mean_absolute_error,
)
from nc_tools.models.classifier import Classifier
from nc_tools.records import Batch
from nc_tools.training import OptimConfig, TrainConfig, fit

K = 4
rows = st.lists(st.lists(st.floats(-20, 20), min_size=K, max_size=K), min_size=1, max_size=5)
T = [[0.7, 0.2, 0.1, 0.0], [0.0, 0.6, 0.1, 0.3], [0.1, 0.1, 0.8, 0.0], [0.25, 0.25, 0.25, 0.25]]


def log_softmax(z: list[float]) -> list[float]:
    top = max(z)
    norm = top + math.log(sum(math.exp(x - top) for x in z))
    return [x - norm for x in z]


def reference_gce(z: list[float], y: int, q: float) -> float:
    p = math.exp(log_softmax(z)[y])
    return (1 - p**q) / q


def reference_rce(z: list[float], y: int, log_zero: float) -> float:
    """-sum_k p_k log t_k with t one-hot."""
    return -sum(math.exp(lp) * (0.0 if k == y else log_zero) for k, lp in enumerate(log_softmax(z)))


def reference_nce(z: list[float], y: int) -> float:
    """Cross-entropy with the label over the sum of cross-entropies with every label."""
    entropies = [-lp for lp in log_softmax(z)]
    return entropies[y] / sum(entropies)


def reference_forward(z: list[float], y: int) -> float:
    return -math.log(sum(T[i][y] * math.exp(lp) for i, lp in enumerate(log_softmax(z))))


def reference_mae(z: list[float], y: int) -> float:
    """Half of the L1 distance between softmax and one-hot."""
    return sum(abs(math.exp(lp) - (k == y)) for k, lp in enumerate(log_softmax(z))) / 2


def mean_of(function, z: list[list[float]], labels: list[int]) -> float:
    return sum(function(row, y) for row, y in zip(z, labels, strict=True)) / len(labels)


def value(loss: LossTerm, z: list[list[float]], labels: list[int]) -> float:
    return float(loss.double()(outputs_of(torch.tensor(z, dtype=torch.float64)), batch_of(torch.tensor(labels))))


def labels_for(z: list[list[float]], data: st.DataObject) -> list[int]:
    return data.draw(st.lists(st.integers(0, K - 1), min_size=len(z), max_size=len(z)))


@given(rows, st.floats(0.05, 1), st.data())
@settings(max_examples=50, deadline=None)
def test_generalized_cross_entropy(z, q, data) -> None:
    y = labels_for(z, data)
    expected = mean_of(lambda row, k: reference_gce(row, k, q), z, y)
    assert value(GeneralizedCrossEntropyLoss(q), z, y) == pytest.approx(expected, rel=1e-7, abs=1e-9)


@given(rows, st.floats(0, 2), st.floats(0, 2), st.floats(-10, -0.1), st.data())
@settings(max_examples=50, deadline=None)
def test_symmetric_cross_entropy(z, alpha, beta, log_zero, data) -> None:
    y = labels_for(z, data)
    expected = mean_of(lambda row, k: -alpha * log_softmax(row)[k] + beta * reference_rce(row, k, log_zero), z, y)
    assert value(SymmetricCrossEntropyLoss(alpha, beta, log_zero), z, y) == pytest.approx(expected, rel=1e-7, abs=1e-9)


@given(rows, st.floats(-10, -0.1), st.data())
@settings(max_examples=20, deadline=None)
def test_both_parts_of_a_pair_are_what_it_trains_on(z, log_zero, data) -> None:
    y = torch.tensor(labels_for(z, data))
    logits = torch.tensor(z, dtype=torch.float64)
    for pair in (NCEAndRCELoss(0.5, 2.0, log_zero), NCEAndMAELoss(0.5, 2.0)):
        parts = 0.5 * pair.active(logits, y) + 2.0 * pair.passive(logits, y)
        assert value(pair, z, y.tolist()) == pytest.approx(float(parts.mean()), rel=1e-7, abs=1e-9)


@given(rows, st.floats(0, 10), st.floats(0, 10), st.data())
@settings(max_examples=50, deadline=None)
def test_active_passive(z, alpha, beta, data) -> None:
    y = labels_for(z, data)
    with_rce = mean_of(lambda row, k: alpha * reference_nce(row, k) + beta * reference_rce(row, k, -4.0), z, y)
    with_mae = mean_of(lambda row, k: alpha * reference_nce(row, k) + beta * reference_mae(row, k), z, y)
    assert value(NCEAndRCELoss(alpha, beta), z, y) == pytest.approx(with_rce, rel=1e-7, abs=1e-9)
    assert value(NCEAndMAELoss(alpha, beta), z, y) == pytest.approx(with_mae, rel=1e-7, abs=1e-9)
    assert value(ActivePassiveLoss(alpha, beta), z, y) == pytest.approx(with_rce, rel=1e-7, abs=1e-9)
    own = ActivePassiveLoss(0.0, beta, passive=mean_absolute_error)
    assert value(own, z, y) == pytest.approx(beta * mean_of(reference_mae, z, y), rel=1e-7, abs=1e-9)


@given(rows, st.data())
@settings(max_examples=50, deadline=None)
def test_forward_correction(z, data) -> None:
    y = labels_for(z, data)
    assert value(ForwardCorrectionLoss(K, T), z, y) == pytest.approx(
        mean_of(reference_forward, z, y), rel=1e-6, abs=1e-6
    )


def test_limits_of_generalized_cross_entropy() -> None:
    z, y = torch.randn(9, K, dtype=torch.float64), torch.arange(9) % K
    outputs, batch = outputs_of(z), batch_of(y)
    cross_entropy = float(CrossEntropyLoss()(outputs, batch))
    own = z.softmax(1).gather(1, y[:, None])
    assert float(GeneralizedCrossEntropyLoss(0.0)(outputs, batch)) == pytest.approx(cross_entropy, rel=1e-12)
    # float32 too: 1 - p^q would lose all its digits here
    assert float(GeneralizedCrossEntropyLoss(1e-6)(outputs_of(z.float()), batch)) == pytest.approx(
        cross_entropy, rel=1e-5
    )
    assert float(GeneralizedCrossEntropyLoss(1.0)(outputs, batch)) == pytest.approx(float((1 - own).mean()), rel=1e-12)


def test_noise_does_not_move_the_minimum_of_symmetric_losses() -> None:
    """Summed over all labels they are constants: the condition of Ghosh et al. 2017 for symmetric noise."""
    z = torch.randn(5, K, dtype=torch.float64)
    for loss in (
        GeneralizedCrossEntropyLoss(1.0),
        SymmetricCrossEntropyLoss(0.0, 1.0),
        NCEAndMAELoss(),
        NCEAndRCELoss(),
    ):
        sums = {round(sum(value(loss, [row], [k]) for k in range(K)), 9) for row in z.tolist()}
        assert len(sums) == 1, loss


def test_identity_is_cross_entropy_and_the_right_matrix_finds_the_clean_posterior() -> None:
    z, y = torch.randn(9, K, dtype=torch.float64), torch.arange(9) % K
    assert value(ForwardCorrectionLoss(K), z.tolist(), y.tolist()) == pytest.approx(
        value(CrossEntropyLoss(), z.tolist(), y.tolist()), rel=1e-6
    )
    clean = torch.tensor([0.6, 0.3, 0.06, 0.04], dtype=torch.float64)
    noisy = clean @ torch.tensor(T, dtype=torch.float64)
    logits = torch.zeros(K, dtype=torch.float64, requires_grad=True)
    loss, optimizer = (
        ForwardCorrectionLoss(K, T).double(),
        torch.optim.LBFGS([logits], max_iter=300, tolerance_grad=1e-12),
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        head = outputs_of(logits.expand(K, K))
        per_label = torch.stack([loss(head, batch_of(torch.full((K,), k))) for k in range(K)])
        expected = (noisy * per_label).sum()
        expected.backward()
        return expected

    optimizer.step(closure)
    assert torch.allclose(logits.softmax(0).detach(), clean, atol=1e-4)


def test_gradients_at_probability_zero_are_those_of_the_formula() -> None:
    """Saturated samples: cross-entropy's gradient times p^q is 0, and no NaN stands in its place."""
    z = torch.tensor([[-300.0, 0.0, 0.0, 0.0]], requires_grad=True)
    for loss in (
        GeneralizedCrossEntropyLoss(),
        SymmetricCrossEntropyLoss(),
        NCEAndRCELoss(),
        NCEAndMAELoss(),
        ForwardCorrectionLoss(K, T),
    ):
        (grad,) = torch.autograd.grad(loss(outputs_of(z), batch_of(torch.tensor([0]))), z)
        assert torch.isfinite(grad).all(), loss
    (grad,) = torch.autograd.grad(GeneralizedCrossEntropyLoss()(outputs_of(z), batch_of(torch.tensor([0]))), z)
    assert float(grad.abs().max()) < 1e-12


class ReferenceELR:
    """Early-learning regularization in plain Python: one list of K numbers for each sample."""

    def __init__(self, samples: int, strength: float, momentum: float) -> None:
        self.t = [[0.0] * K for _ in range(samples)]
        self.strength, self.momentum = strength, momentum

    def step(self, z: list[list[float]], y: list[int], index: list[int]) -> float:
        total = 0.0
        for row, label, i in zip(z, y, index, strict=True):
            logs = log_softmax(row)
            p = [min(max(math.exp(lp), 1e-4), 1 - 1e-4) for lp in logs]
            self.t[i] = [
                self.momentum * t + (1 - self.momentum) * x / sum(p) for t, x in zip(self.t[i], p, strict=True)
            ]
            dot = sum(t * x for t, x in zip(self.t[i], p, strict=True))
            total += -logs[label] + self.strength * math.log(1 - dot)
        return total / len(z)


@pytest.mark.parametrize(("strength", "momentum"), [(3.0, 0.7), (7.0, 0.9)])
def test_early_learning_by_sample_id_under_shuffling_and_subsets(strength, momentum) -> None:
    generator = torch.Generator().manual_seed(0)
    loss = EarlyLearningLoss(20, K, strength, momentum).double()
    reference = ReferenceELR(20, strength, momentum)
    for size in (7, 3, 12, 7, 1):
        index = torch.randperm(20, generator=generator)[:size]
        z = 3 * torch.randn(size, K, generator=generator, dtype=torch.float64)
        y = torch.randint(K, (size,), generator=generator)
        ours = loss(outputs_of(z), Batch(torch.zeros(size, 1), y, index))
        assert float(ours) == pytest.approx(reference.step(z.tolist(), y.tolist(), index.tolist()), rel=1e-9)
    assert torch.allclose(loss.targets, torch.tensor(reference.t, dtype=torch.float64), atol=1e-12)


def test_early_learning_keeps_one_table_and_moves_it_in_training_mode_only() -> None:
    loss = EarlyLearningLoss(30, K)
    assert [tuple(b.shape) for b in loss.buffers()] == [(30, K)]
    assert not list(loss.parameters())
    outputs, batch = outputs_of(torch.randn(3, K)), batch_of(torch.arange(3))
    loss.eval()(outputs, batch)
    assert float(loss.targets.abs().sum()) == 0
    loss.train()(outputs, batch)
    assert (loss.targets[:3].sum(1) - 0.3).abs().max() < 1e-6
    assert float(loss.targets[3:].abs().sum()) == 0


def test_gradient_of_early_learning_with_targets_that_are_not_zero() -> None:
    loss = EarlyLearningLoss(5, K).double()
    h, batch = torch.randn(5, K, dtype=torch.float64), batch_of(torch.arange(5) % K)
    loss(outputs_of(h), batch)
    loss.eval()
    assert torch.autograd.gradcheck(lambda x: loss(outputs_of(x), batch), (h.clone().requires_grad_(),))
    # Targets are constants: in training mode the gradient is that of evaluation with the moved targets.
    z = h.clone().requires_grad_()
    loss.train()
    (moving,) = torch.autograd.grad(loss(outputs_of(z), batch), z)
    loss.eval()
    (still,) = torch.autograd.grad(loss(outputs_of(z), batch), z)
    assert torch.allclose(moving, still)


def test_where_the_clamp_of_early_learning_holds_no_gradient_passes() -> None:
    loss = EarlyLearningLoss(5, K).double().eval()
    loss.targets.uniform_(0.1, 1 / K)
    h, batch = torch.randn(5, K, dtype=torch.float64), batch_of(torch.arange(5) % K)
    h[0, 1] = 20.0  # p above 1 - 1e-4, and the others below 1e-4
    z = h.clone().requires_grad_()
    (result,) = torch.autograd.grad(loss(outputs_of(z), batch), z)
    p = h[0].softmax(0)
    p[0] -= 1  # what is left of this sample is cross-entropy: p - e_y, over five samples
    assert torch.allclose(result[0], p / 5, atol=1e-12)
    assert torch.allclose(result, torch.func.grad(lambda x: loss(outputs_of(x), batch))(h), atol=1e-12)


def test_early_learning_takes_logits_that_are_finer_than_its_targets() -> None:
    loss, batch = EarlyLearningLoss(5, K).eval(), batch_of(torch.arange(5) % K)
    loss.targets.uniform_(0, 1 / K)
    z = torch.randn(5, K, dtype=torch.float64, requires_grad=True)
    result = loss(outputs_of(z), batch)
    fine = loss.double()(outputs_of(z), batch)
    assert result.dtype == torch.float64
    assert torch.equal(result, fine)
    assert torch.equal(*(torch.autograd.grad(value, z)[0] for value in (result, fine)))


def test_early_learning_pulls_back_from_a_label_that_contradicts_the_past() -> None:
    """The regularizer's gradient raises the class that the sample was given before, by the strength."""
    loss = EarlyLearningLoss(1, K, strength=3.0)
    past = torch.tensor([[5.0, 0.0, 0.0, 0.0]])
    wrong = batch_of(torch.tensor([1]))
    for _ in range(20):
        loss(outputs_of(past), wrong)
    z = past.clone().requires_grad_()
    (plain,) = torch.autograd.grad(CrossEntropyLoss()(outputs_of(z), wrong), z)
    (held,) = torch.autograd.grad(loss(outputs_of(z), wrong), z)
    assert float(held[0, 0]) < float(plain[0, 0]) - 0.5


class Noisy:
    """Six samples of a toy set, visited in an order that depends on the epoch."""

    def __len__(self) -> int:
        return 3

    def epoch(self, epoch, start=0):
        order = torch.randperm(6, generator=torch.Generator().manual_seed(epoch))
        inputs = torch.randn(6, 1, 3, 3, generator=torch.Generator().manual_seed(0))
        for step in range(start, 3):
            chosen = order[2 * step : 2 * step + 2]
            yield Batch(inputs[chosen], (chosen % 3), chosen + 4)


def test_early_learning_resumes_with_its_targets(tmp_path: Path) -> None:
    def trained(epochs_before: int | None) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        model = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(9, 6)), LinearHead(6, 3))
        loss, place = EarlyLearningLoss(10, 3), tmp_path / f"{epochs_before}.pt"
        config = TrainConfig(epochs=4, batch_size=2, checkpoint_seconds=1e-9)
        if epochs_before is not None:

            def stop_after(epoch, _values, _model):
                if epoch > epochs_before:
                    raise InterruptedError

            with pytest.raises(InterruptedError):
                fit(model, loss, Noisy(), config, OptimConfig(), epoch_end=stop_after, checkpoint=place)
            loss = EarlyLearningLoss(10, 3)
        fit(model, loss, Noisy(), config, OptimConfig(), checkpoint=place, resume=True)
        return loss.targets, model.head.weight.detach()

    straight, resumed = trained(None), trained(2)
    assert torch.equal(straight[0], resumed[0])
    assert torch.equal(straight[1], resumed[1])
    assert float(straight[0][:4].abs().sum()) == 0
    assert (straight[0][4:].sum(1) > 0.7).all()


def _one_of_two(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    loss = EarlyLearningLoss(9, K)
    for mine in _shares(rank):
        z = torch.stack([torch.arange(K) * 0.1 * float(i + 1) for i in mine])
        loss(outputs_of(z), Batch(torch.zeros(len(mine), 1), torch.zeros(len(mine)).long(), torch.tensor(mine)))
    torch.save(loss.targets, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def _shares(rank: int) -> list[list[int]]:
    """Two steps of unequal batches; a sample changes its process."""
    return [[[0, 1, 2], [3, 4]], [[4, 5], [0, 8, 7]]][rank]


def test_all_processes_hold_the_same_targets(tmp_path: Path) -> None:
    mp.spawn(_one_of_two, (str(tmp_path),), nprocs=2)
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert torch.equal(one, other)
    alone = EarlyLearningLoss(9, K)
    for first, second in zip(_shares(0), _shares(1), strict=True):
        both = first + second
        z = torch.stack([torch.arange(K) * 0.1 * float(i + 1) for i in both])
        alone(outputs_of(z), Batch(torch.zeros(len(both), 1), torch.zeros(len(both)).long(), torch.tensor(both)))
    assert torch.allclose(one, alone.targets, atol=1e-7)


def test_a_given_matrix_is_held_in_the_state() -> None:
    loss, loaded = ForwardCorrectionLoss(K, T), ForwardCorrectionLoss(K)
    loaded.load_state_dict(loss.state_dict())
    assert torch.allclose(loaded.transition, torch.tensor(T), atol=1e-6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GeneralizedCrossEntropyLoss(1.5), r"q must lie in \[0, 1\]"),
        (lambda: SymmetricCrossEntropyLoss(-1.0), "must be finite and not negative"),
        (lambda: SymmetricCrossEntropyLoss(log_zero=0.0), "log_zero must be negative and finite, got 0.0"),
        (lambda: NCEAndRCELoss(log_zero=4.0), "log_zero must be negative and finite, got 4.0"),
        (lambda: NCEAndMAELoss(beta=-1.0), "must be finite and not negative"),
        (lambda: EarlyLearningLoss(0, 3), "num_samples >= 1"),
        (lambda: EarlyLearningLoss(3, 3, momentum=1.0), "momentum"),
        (lambda: EarlyLearningLoss(3, 3, strength=-1.0), "strength"),
        (lambda: EarlyLearningLoss(3, 3, strength=math.nan), "strength must be finite"),
        (lambda: SymmetricCrossEntropyLoss(math.nan), "must be finite"),
        (lambda: NCEAndMAELoss(beta=math.inf), "must be finite"),
        (lambda: BinaryCrossEntropyLoss(3, math.nan), "initial_threshold must be finite, got nan"),
        (lambda: ForwardCorrectionLoss(2, [[0.9, 0.2], [0.0, 1.0]]), "row 0 sums to 1.1"),
        (
            lambda: ForwardCorrectionLoss(2, [[1.0, 0.0], [1.0, 0.0]]),
            r"columns \[1\] of the transition",
        ),
        (lambda: ForwardCorrectionLoss(3, [[0.9, 0.1], [0.0, 1.0]]), r"must have the shape \(3, 3\)"),
        (lambda: ForwardCorrectionLoss(2, [[1.0, 0.0], [1.0]]), "must be square"),
        (lambda: ForwardCorrectionLoss(2, [[1.5, -0.5], [0.0, 1.0]]), r"probabilities in \[0, 1\]"),
    ],
)
def test_bad_arguments(build, message) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_the_logits_head_returns_its_input() -> None:
    z = torch.randn(3, K)
    assert torch.equal(LogitsHead(K, K)(z), z)
