"""SAM and SAM-A in the training loop: a step against a slow reference, and what the second pass leaves unchanged."""

import copy

import pytest
import torch
from support.small_training import Batches, DeviceReads, ReadsPerBatch, StopAt, small
from torch import nn

from nc_tools._support.signals import Killed, StopSignal
from nc_tools.heads import LEARNED, CosineHead, ETFHead, LinearHead, NearestETFHead
from nc_tools.losses import (
    BinaryCrossEntropyLoss,
    ClassBalancedLoss,
    CrossEntropyLoss,
    EarlyLearningLoss,
    WeightedSumLoss,
    term,
)
from nc_tools.losses.per_sample import PerSampleLoss
from nc_tools.specs import spec
from nc_tools.training import (
    AsymmetricSharpnessAware,
    OptimConfig,
    SharpnessAware,
    TrainConfig,
    fit,
    frozen_statistics,
)


@pytest.mark.parametrize("sam", [SharpnessAware(0.1), AsymmetricSharpnessAware(0.1, beta=0.9)])
@pytest.mark.parametrize("clip_norm", [None, 0.05])
def test_a_step_of_the_loop_is_two_passes_written_out(sam, clip_norm):
    model, batch, counts = small(), next(Batches(steps=1).epoch(0)), [50, 5, 2]
    twin, loss = copy.deepcopy(model).train(), CrossEntropyLoss()
    optim = OptimConfig(lr=0.1, warmup=0.0, weight_decay=0.0, sam=sam, clip_norm=clip_norm)
    epochs = []
    fit(model, CrossEntropyLoss(), Batches(steps=1), TrainConfig(epochs=1), optim, class_counts=counts,
        epoch_end=lambda _, values, __: epochs.append(values))  # fmt: skip
    weighted = isinstance(sam, AsymmetricSharpnessAware)
    ascent_loss = ClassBalancedLoss(counts, loss=CrossEntropyLoss(), beta=0.9) if weighted else loss
    outputs = twin.outputs(batch.inputs)
    plain = float(loss(outputs, batch).detach())
    ascent = torch.autograd.grad(ascent_loss(outputs, batch), list(twin.parameters()))
    statistics = [b.clone() for b in twin.buffers()]
    ascent_norm = sum(float(g.square().sum()) for g in ascent) ** 0.5
    before = [p.detach().clone() for p in twin.parameters()]
    with torch.no_grad():
        for p, g in zip(twin.parameters(), ascent, strict=True):
            p += 0.1 * g / ascent_norm
    gradients = torch.autograd.grad(loss(twin.outputs(batch.inputs), batch), list(twin.parameters()))
    norm = sum(float(g.square().sum()) for g in gradients) ** 0.5
    shrink = 1.0 if clip_norm is None else min(1.0, clip_norm / norm)
    for p, g, b in zip(model.parameters(), gradients, before, strict=True):
        torch.testing.assert_close(p.detach(), b - 0.1 * shrink * g, atol=1e-6, rtol=1e-4)
    for mine, once in zip(model.buffers(), statistics, strict=True):
        assert torch.equal(mine, once)  # batch-norm statistics: those of one pass, where the weights are
    assert epochs[0]["train/loss"] == pytest.approx(plain, rel=1e-5)


class Counted(LinearHead):
    """Counts the steps that it observes."""

    times = 0

    def observe(self, outputs, labels, progress):  # noqa: ARG002
        self.times += 1
        assert not torch.is_grad_enabled()


def test_state_of_losses_and_heads_moves_once_a_step():
    head, loss = Counted(6, 3), EarlyLearningLoss(8, 3, momentum=0.5)
    fit(small(head), loss, Batches(steps=1), TrainConfig(epochs=1), OptimConfig(sam=SharpnessAware()))
    assert head.times == 1
    assert loss.targets.sum(1).tolist() == pytest.approx([0.5] * 8)  # .75 had they moved twice
    assert loss.training


def test_a_second_pass_leaves_no_trace_even_if_it_fails():
    model, loss = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3)), EarlyLearningLoss(4, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def failing():
        with frozen_statistics(model, loss):
            model(torch.randn(4, 1, 2, 2)).sum().backward()
            assert not torch.equal(model[1].running_mean, before["1.running_mean"])
            assert not loss.training
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert loss.training
    loss.eval()
    with frozen_statistics(model, loss):
        pass
    assert not loss.training


@pytest.mark.parametrize("head", [ETFHead, NearestETFHead])
def test_heads_without_parameters_can_be_trained(head):
    model = small(head(6, 3))
    before = model.head.weight.clone()
    curve = []
    fit(model, CrossEntropyLoss(), Batches(), TrainConfig(epochs=8),
        OptimConfig(lr=0.05, sam=SharpnessAware(), clip_norm=1.0),
        epoch_end=lambda _, values, __: curve.append(values["train/loss"]))  # fmt: skip
    assert curve[-1] < curve[0]
    assert torch.equal(model.head.weight, before) == (head is ETFHead)


def test_parameters_of_a_loss_are_perturbed_and_trained_too():
    loss = BinaryCrossEntropyLoss(3)
    fit(small(), loss, Batches(), TrainConfig(epochs=2), OptimConfig(lr=0.1, sam=SharpnessAware()))
    assert (loss.thresholds.detach() > 0.02).all()


class OnePerSample(PerSampleLoss):
    """A loss with one value per sample."""

    def compute_per_sample(self, outputs, batch):
        return nn.functional.cross_entropy(outputs.logits, batch.labels, reduction="none")


@pytest.mark.parametrize("sam", [SharpnessAware(), AsymmetricSharpnessAware()])
@pytest.mark.parametrize("at", [0, 5, 7])
def test_a_stopped_training_resumes_bit_equal(tmp_path, sam, at):
    def trained(batches, **options):
        torch.manual_seed(5)
        model = small(CosineHead(6, 3, scale=LEARNED), dropout=0.5)
        training = TrainConfig(epochs=4, ema_decay=0.9)
        fit(model, OnePerSample(), batches, training, optim, class_counts=[3, 3, 2], **options)
        return model.state_dict().values()

    optim = OptimConfig(lr=0.05, sam=sam, clip_norm=1.0)
    straight, stop, path = trained(Batches()), StopSignal(), tmp_path / "checkpoint.pt"
    with pytest.raises(Killed):
        trained(StopAt(stop, at), checkpoint=path, stop=stop)
    resumed = trained(Batches(), checkpoint=path, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed, strict=True))


@pytest.mark.parametrize("mixing", [None, "Mixup", "CutMix"])
def test_no_step_waits_for_the_device(mixing, monkeypatch):
    from nc_tools import data

    monkeypatch.setattr("nc_tools.losses._rows.traced", lambda: True)  # losses read labels on the CPU only
    mix = None if mixing is None else getattr(data, mixing)()
    with DeviceReads() as reads:
        batches = ReadsPerBatch(reads)
        optim = OptimConfig(clip_norm=1.0, sam=AsymmetricSharpnessAware())
        config = TrainConfig(epochs=2, ema_decay=0.9, mixing=mix)
        fit(small(), CrossEntropyLoss(), batches, config, optim, class_counts=[5, 3, 1])
    assert len(set(batches.counts[:5])) == 1
    assert len(set(batches.counts[5:])) == 1


def test_sam_a_names_what_it_needs():
    optim = OptimConfig(sam=AsymmetricSharpnessAware())
    with pytest.raises(ValueError, match="SAM-A needs class counts, got None"):
        fit(small(), CrossEntropyLoss(), Batches(), TrainConfig(epochs=1), optim)
    both = WeightedSumLoss([term(1.0, CrossEntropyLoss())])
    with pytest.raises(TypeError, match="class weights need a loss with a value for each sample, got WeightedSumLoss"):
        fit(small(), both, Batches(), TrainConfig(epochs=1), optim, class_counts=[1, 1, 1])


@pytest.mark.parametrize("optimizer", [spec(torch.optim.SGD, momentum=0.9), spec(torch.optim.AdamW, eps=0.1)])
def test_a_small_perturbation_is_the_wrapped_optimizer(optimizer):
    def trained(sam):
        model = small()
        optim = OptimConfig(optimizer=optimizer, lr=0.01, sam=sam)
        fit(model, CrossEntropyLoss(), Batches(), TrainConfig(epochs=3), optim)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    plain = trained(None)
    torch.testing.assert_close(trained(SharpnessAware(1e-6)), plain, atol=1e-4, rtol=1e-3)
    assert (trained(SharpnessAware(0.5)) - plain).abs().max() > 1e-3
