"""SAM and SAM-A: one step against a slow reference, and what a second pass must leave alone."""

import copy

import pytest
import torch
from support.small_training import Batches, Reads, Watched, small
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
from nc_tools.spec import spec
from nc_tools.training import (
    SAM,
    AsymmetricSharpnessAware,
    OptimConfig,
    SharpnessAware,
    TrainConfig,
    fit,
    frozen_batch_norm,
)


def by_hand(weights, gradient, steps, *, rho, lr, momentum, decay):
    """SGD with SAM on lists of floats; ``gradient`` maps weights to gradients."""
    buffer = None
    for _ in range(steps):
        slope = gradient(weights)
        norm = sum(g * g for g in slope) ** 0.5
        uphill = gradient([w + rho * g / norm for w, g in zip(weights, slope, strict=True)])
        pull = [g + decay * w for w, g in zip(weights, uphill, strict=True)]
        buffer = pull if buffer is None else [momentum * b + p for b, p in zip(buffer, pull, strict=True)]
        weights = [w - lr * b for w, b in zip(weights, buffer, strict=True)]
    return weights


def curved(parameters):
    """A loss over several tensors with a known gradient: sum_i (i + 1) w_i^4 / 4."""
    flat = torch.cat([p.flatten() for p in parameters])
    return (torch.arange(1, len(flat) + 1) * flat**4 / 4).sum()


def curved_gradient(weights):
    return [(i + 1) * w**3 for i, w in enumerate(weights)]


START = [0.5, -0.3, 0.8, 0.1, -0.6]


def parts():
    return [nn.Parameter(torch.tensor(START[:3], dtype=torch.float64)),
            nn.Parameter(torch.tensor(START[3:], dtype=torch.float64).view(1, 2))]  # fmt: skip


@pytest.mark.parametrize("how", ["steps", "closure"])
def test_it_is_the_algorithm_written_out(how):
    parameters = parts()
    unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
    base = torch.optim.SGD([{"params": parameters[:1]}, {"params": [parameters[1], unused]}], lr=0.1, momentum=0.9,
                           weight_decay=0.01)  # fmt: skip
    optimizer = SAM(base, rho=0.2)
    for _ in range(4):
        optimizer.zero_grad()
        curved(parameters).backward()
        if how == "steps":
            optimizer.first_step(zero_grad=True)
            assert all(p.grad is None for p in parameters)
            curved(parameters).backward()
            optimizer.second_step(zero_grad=True)
            assert all(p.grad is None for p in parameters)
        else:

            def closure():
                loss = curved(parameters)
                loss.backward()
                return loss.detach()

            higher, here = optimizer.step(closure), None
            here = curved(parameters).detach()
            assert higher > here
    told = [float(x) for p in parameters for x in p.detach().flatten()]
    expected = by_hand(START, curved_gradient, 4, rho=0.2, lr=0.1, momentum=0.9, decay=0.01)
    assert told == pytest.approx(expected, rel=1e-9)
    assert unused.tolist() == [1.0, 1.0]


def test_weights_come_back_bit_for_bit():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(1000) * torch.logspace(-9, 0, 1000))
    before = weight.detach().clone()
    optimizer = SAM(torch.optim.SGD([weight], lr=0.0), rho=0.5)
    weight.square().sum().backward()
    optimizer.first_step()
    assert (weight.detach() - before).norm() == pytest.approx(0.5, rel=1e-3)
    optimizer.second_step()
    assert torch.equal(weight.detach(), before)


def test_a_gradient_of_zero_moves_nothing_and_tiny_ones_are_scaled():
    weight = nn.Parameter(torch.ones(3))
    optimizer = SAM(torch.optim.SGD([weight], lr=0.1))
    (0 * weight).sum().backward()
    optimizer.first_step()
    assert weight.tolist() == [1.0, 1.0, 1.0]
    optimizer.second_step(zero_grad=True)
    (1e-6 * weight).sum().backward()
    optimizer.first_step()
    assert (weight.detach() - 1).norm() == pytest.approx(0.05, rel=1e-3)


def test_steps_in_the_wrong_order_are_refused():
    weight = nn.Parameter(torch.ones(3))
    optimizer = SAM(torch.optim.SGD([weight], lr=0.1))
    for early in (optimizer.second_step, optimizer.step):
        with pytest.raises(RuntimeError, match="SAM needs two passes and has seen one"):
            early()
    weight.sum().backward()
    optimizer.first_step()
    with pytest.raises(RuntimeError, match="uphill already"):
        optimizer.first_step()
    for rho in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="must be positive and finite"):
            SAM(torch.optim.SGD([weight], lr=0.1), rho=rho)
        for kind in (SharpnessAware, AsymmetricSharpnessAware):
            with pytest.raises(ValueError, match="must be positive and finite"):
                kind(rho)
    with pytest.raises(ValueError, match=r"beta must lie in \[0, 1\]"):
        AsymmetricSharpnessAware(beta=1.5)


def test_schedulers_and_state_see_the_wrapped_optimizer():
    def stepped(optimizer, parameters, count):
        for _ in range(count):
            optimizer.zero_grad()
            curved(parameters).backward()
            optimizer.first_step(zero_grad=True)
            curved(parameters).backward()
            optimizer.second_step()

    parameters = parts()
    base = torch.optim.Adam(parameters, lr=0.1)
    optimizer = SAM(base)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    stepped(optimizer, parameters, 2)
    schedule.step()  # warns, and so fails here, if it believes that no step was made
    assert base.param_groups[0]["lr"] == 0.05
    twins = [nn.Parameter(p.detach().clone()) for p in parameters]
    twin = SAM(torch.optim.Adam(twins, lr=7.0))
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert twin.param_groups[0]["lr"] == 0.05
    stepped(optimizer, parameters, 2)
    stepped(twin, twins, 2)
    assert all(torch.equal(a, b) for a, b in zip(parameters, twins, strict=True))


@pytest.mark.parametrize("sharpness", [SharpnessAware(0.1), AsymmetricSharpnessAware(0.1, beta=0.9)])
@pytest.mark.parametrize("clip_norm", [None, 0.05])
def test_a_step_of_the_loop_is_two_passes_written_out(sharpness, clip_norm):
    model, batch, counts = small(), next(Batches(steps=1).epoch(0)), [50, 5, 2]
    twin, loss = copy.deepcopy(model).train(), CrossEntropyLoss()
    optim = OptimConfig(lr=0.1, warmup=0.0, weight_decay=0.0, sam=sharpness, clip_norm=clip_norm)
    told = []
    fit(model, CrossEntropyLoss(), Batches(steps=1), TrainConfig(epochs=1), optim, class_counts=counts,
        epoch_end=lambda _, values, __: told.append(values))  # fmt: skip
    weighted = isinstance(sharpness, AsymmetricSharpnessAware)
    uphill = ClassBalancedLoss(counts, loss=CrossEntropyLoss(), beta=0.9) if weighted else loss
    outputs = twin.outputs(batch.inputs)
    plain = float(loss(outputs, batch).detach())
    slopes = torch.autograd.grad(uphill(outputs, batch), list(twin.parameters()))
    statistics = [b.clone() for b in twin.buffers()]
    length = sum(float(g.square().sum()) for g in slopes) ** 0.5
    before = [p.detach().clone() for p in twin.parameters()]
    with torch.no_grad():
        for p, g in zip(twin.parameters(), slopes, strict=True):
            p += 0.1 * g / length
    pulls = torch.autograd.grad(loss(twin.outputs(batch.inputs), batch), list(twin.parameters()))
    whole = sum(float(g.square().sum()) for g in pulls) ** 0.5
    shrink = 1.0 if clip_norm is None else min(1.0, clip_norm / whole)
    for p, g, b in zip(model.parameters(), pulls, before, strict=True):
        torch.testing.assert_close(p.detach(), b - 0.1 * shrink * g, atol=1e-6, rtol=1e-4)
    for mine, once in zip(model.buffers(), statistics, strict=True):
        assert torch.equal(mine, once)  # batch-norm statistics: those of one pass, where the weights are
    assert told[0]["train/loss"] == pytest.approx(plain, rel=1e-5)


class Counted(LinearHead):
    """How often it is observed."""

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
        with frozen_batch_norm(model, loss):
            model(torch.randn(4, 1, 2, 2)).sum().backward()
            assert not torch.equal(model[1].running_mean, before["1.running_mean"])
            assert not loss.training
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert loss.training
    loss.eval()
    with frozen_batch_norm(model, loss):
        pass
    assert not loss.training


@pytest.mark.parametrize("head", [ETFHead, NearestETFHead])
def test_heads_without_parameters_are_tolerated(head):
    model = small(head(6, 3))
    before = model.head.weight.clone()
    curve = []
    fit(model, CrossEntropyLoss(), Batches(), TrainConfig(epochs=8),
        OptimConfig(lr=0.05, sam=SharpnessAware(), clip_norm=1.0),
        epoch_end=lambda _, values, __: curve.append(values["train/loss"]))  # fmt: skip
    assert curve[-1] < curve[0]
    assert torch.equal(model.head.weight, before) == (head is ETFHead)


def test_what_a_loss_learns_is_perturbed_and_trained_too():
    loss = BinaryCrossEntropyLoss(3)
    fit(small(), loss, Batches(), TrainConfig(epochs=2), OptimConfig(lr=0.1, sam=SharpnessAware()))
    assert (loss.thresholds.detach() > 0.02).all()


class Weighed(PerSampleLoss):
    """A loss with a value per sample that notes how it is asked."""

    def compute_per_sample(self, outputs, batch):
        return nn.functional.cross_entropy(outputs.logits, batch.labels, reduction="none")


@pytest.mark.parametrize("sharpness", [SharpnessAware(), AsymmetricSharpnessAware()])
@pytest.mark.parametrize("at", [0, 5, 7])
def test_a_stopped_training_goes_on_bit_equal(tmp_path, sharpness, at):
    def trained(batches, **how):
        torch.manual_seed(5)
        model = small(CosineHead(6, 3, scale=LEARNED), dropout=0.5)
        fit(model, Weighed(), batches, TrainConfig(epochs=4, ema_decay=0.9), optim, class_counts=[3, 3, 2], **how)
        return model.state_dict().values()

    class StopAt(Batches):
        def epoch(self, epoch, start=0):
            for step, batch in enumerate(super().epoch(epoch, start), start=start):
                stop.requested = stop.requested or epoch * 3 + step == at
                yield batch

    optim = OptimConfig(lr=0.05, sam=sharpness, clip_norm=1.0)
    straight, stop, path = trained(Batches()), StopSignal(), tmp_path / "checkpoint.pt"
    with pytest.raises(Killed):
        trained(StopAt(), checkpoint=path, stop=stop)
    resumed = trained(Batches(), checkpoint=path, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed, strict=True))


@pytest.mark.parametrize("mixing", [None, "Mixup", "CutMix"])
def test_no_step_waits_for_the_device(mixing):
    from nc_tools import data

    how = None if mixing is None else getattr(data, mixing)()
    with Reads() as reads:
        watched = Watched(reads)
        optim = OptimConfig(clip_norm=1.0, sam=AsymmetricSharpnessAware())
        config = TrainConfig(epochs=2, ema_decay=0.9, mixing=how)
        fit(small(), CrossEntropyLoss(), watched, config, optim, class_counts=[5, 3, 1])
    assert len(set(watched.at[:5])) == 1
    assert len(set(watched.at[5:])) == 1


def test_the_asymmetric_form_says_what_it_needs():
    optim = OptimConfig(sam=AsymmetricSharpnessAware())
    with pytest.raises(ValueError, match="SAM-A weighs classes by their counts, and none were given"):
        fit(small(), CrossEntropyLoss(), Batches(), TrainConfig(epochs=1), optim)
    both = WeightedSumLoss([term(1.0, CrossEntropyLoss())])
    with pytest.raises(TypeError, match="class weights need a loss with a value for each sample, got WeightedSum"):
        fit(small(), both, Batches(), TrainConfig(epochs=1), optim, class_counts=[1, 1, 1])


@pytest.mark.parametrize("optimizer", [spec(torch.optim.SGD, momentum=0.9), spec(torch.optim.AdamW, eps=0.1)])
def test_a_short_way_uphill_is_the_wrapped_optimizer(optimizer):
    def trained(sharpness):
        model = small()
        optim = OptimConfig(optimizer=optimizer, lr=0.01, sam=sharpness)
        fit(model, CrossEntropyLoss(), Batches(), TrainConfig(epochs=3), optim)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    plain = trained(None)
    torch.testing.assert_close(trained(SharpnessAware(1e-6)), plain, atol=1e-4, rtol=1e-3)
    assert (trained(SharpnessAware(0.5)) - plain).abs().max() > 1e-3
