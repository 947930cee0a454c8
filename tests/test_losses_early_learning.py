"""Early-learning regularization against plain Python, its state and its gradient."""

import math
from pathlib import Path

import pytest
import torch
from support.loss_variants import batch_of, outputs_of
from support.scalar_math import log_softmax
from support.two_processes import in_two_processes
from torch import Tensor, nn

from nc_tools.heads import LinearHead
from nc_tools.losses import (
    CrossEntropyLoss,
    EarlyLearningLoss,
)
from nc_tools.models.classifier import Classifier
from nc_tools.records import Batch
from nc_tools.training import OptimConfig, TrainConfig, fit

K = 4


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
        value = loss(outputs_of(z), Batch(torch.zeros(size, 1), y, index))
        assert float(value) == pytest.approx(reference.step(z.tolist(), y.tolist(), index.tolist()), rel=1e-9)
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
    loss = EarlyLearningLoss(9, K)
    for mine in _shares(rank):
        z = torch.stack([torch.arange(K) * 0.1 * float(i + 1) for i in mine])
        loss(outputs_of(z), Batch(torch.zeros(len(mine), 1), torch.zeros(len(mine)).long(), torch.tensor(mine)))
    torch.save(loss.targets, f"{folder}/{rank}.pt")


def _shares(rank: int) -> list[list[int]]:
    """Two steps of unequal batches; a sample changes its process."""
    return [[[0, 1, 2], [3, 4]], [[4, 5], [0, 8, 7]]][rank]


@pytest.mark.slow
def test_all_processes_hold_the_same_targets(tmp_path: Path) -> None:
    in_two_processes(_one_of_two, str(tmp_path))
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert torch.equal(one, other)
    alone = EarlyLearningLoss(9, K)
    for first, second in zip(_shares(0), _shares(1), strict=True):
        both = first + second
        z = torch.stack([torch.arange(K) * 0.1 * float(i + 1) for i in both])
        alone(outputs_of(z), Batch(torch.zeros(len(both), 1), torch.zeros(len(both)).long(), torch.tensor(both)))
    assert torch.allclose(one, alone.targets, atol=1e-7)
