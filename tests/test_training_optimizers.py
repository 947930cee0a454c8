"""The optimizer's parameter groups, and the settings of optimizer and training."""

import pytest
import torch
from support.small_training import Batches, small

from nc_tools.heads import LEARNED, CosineHead, ETFHead
from nc_tools.losses import BinaryCrossEntropyLoss, CrossEntropyLoss
from nc_tools.specs import spec
from nc_tools.training import OptimConfig, TrainConfig, fit
from nc_tools.training.learning_rate import rate_factor
from nc_tools.training.optimizers import make_optimizer


def ids(parameters):
    return {id(p) for p in parameters}


def test_sgd_couples_weight_decay_with_the_gradient():
    model = small()
    config = OptimConfig(lr=0.1, weight_decay=0.05)
    optimizer = make_optimizer(model, config)
    weight, bias = model.head.weight, model.head.bias
    w, b = weight.detach().clone(), bias.detach().clone()
    buffer_w, buffer_b = torch.zeros_like(w), torch.zeros_like(b)
    for step in range(4):
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] / (step + 1)
        gradient_w, gradient_b = torch.full_like(w, 0.3 * (step + 1)), torch.full_like(b, -0.2)
        weight.grad, bias.grad = gradient_w.clone(), gradient_b.clone()
        optimizer.step()
        # g <- g + decay w, v <- .9 v + g, w <- w - lr v; the bias does not decay
        decayed = gradient_w + 0.05 * w
        buffer_w = decayed if step == 0 else 0.9 * buffer_w + decayed
        buffer_b = gradient_b if step == 0 else 0.9 * buffer_b + gradient_b
        w, b = w - 0.1 / (step + 1) * buffer_w, b - 0.1 / (step + 1) * buffer_b
        torch.testing.assert_close(weight.detach(), w)
        torch.testing.assert_close(bias.detach(), b)


@pytest.mark.parametrize("decay_norm_and_bias", [False, True])
def test_only_weights_decay_unless_the_configuration_says_otherwise(decay_norm_and_bias):
    model = small(CosineHead(6, 3, scale=LEARNED))
    config = OptimConfig(weight_decay=0.01, decay_norm_and_bias=decay_norm_and_bias)
    optimizer = make_optimizer(model, config)
    decayed = set().union(*(ids(g["params"]) for g in optimizer.param_groups if g["weight_decay"] == 0.01))
    expected = {id(p) for p in model.parameters() if p.ndim >= 2 or (p.numel() > 1 and decay_norm_and_bias)}
    assert decayed == expected
    assert any(p.numel() == 1 for p in model.head.parameters())  # the scale exists and is never among them
    everything = [id(p) for g in optimizer.param_groups for p in g["params"]]
    assert sorted(everything) == sorted(ids(model.parameters()))


RATES = []


class RecordingSGD(torch.optim.SGD):
    """SGD that notes the learning rate of each parameter at each step."""

    def step(self, closure=None):
        RATES.append({i: group["lr"] for group in self.param_groups for i in ids(group["params"])})
        return super().step(closure)


def test_every_group_follows_the_schedule_and_the_head_has_its_own_rate():
    model = small()
    optim = OptimConfig(optimizer=spec(RecordingSGD), lr=0.1, head_lr_ratio=4.0, warmup=0.3)
    RATES.clear()
    fit(model, CrossEntropyLoss(), Batches(), TrainConfig(epochs=4), optim)
    assert len(RATES) == 12
    assert min(rate_factor(step, 12, optim) for step in range(12)) < 0.5
    for step, rates in enumerate(RATES):
        factor = rate_factor(step, 12, optim)
        assert {rates[i] for i in ids(model.head.parameters())} == {0.4 * factor}
        assert {rates[i] for i in ids(model.backbone.parameters())} == {0.1 * factor}


def test_a_head_without_parameters_has_no_group():
    model = small(ETFHead(6, 3))
    optimizer = make_optimizer(model, OptimConfig())
    assert {i for g in optimizer.param_groups for i in ids(g["params"])} == ids(model.backbone.parameters())
    assert all(g["params"] for g in optimizer.param_groups)


def test_parameters_of_a_loss_have_the_backbones_rate_and_no_decay():
    model, loss = small(), BinaryCrossEntropyLoss(3)
    config = OptimConfig(lr=0.1, head_lr_ratio=4.0, weight_decay=0.01, decay_norm_and_bias=True)
    *groups, last = make_optimizer(model, config, loss).param_groups
    assert ids(last["params"]) == ids(loss.parameters())
    assert (last["lr"], last["peak_lr"], last["weight_decay"]) == (0.1, 0.1, 0.0)
    assert {i for g in groups for i in ids(g["params"])} == ids(model.parameters())
    assert len(make_optimizer(model, config, CrossEntropyLoss()).param_groups) == len(groups)


def test_parameters_that_loss_and_model_share_are_trained_once():
    model = small()

    class Shares(CrossEntropyLoss):
        def __init__(self):
            super().__init__()
            self.head = model.head

    groups = make_optimizer(model, OptimConfig(), Shares()).param_groups
    assert sorted(id(p) for g in groups for p in g["params"]) == sorted(ids(model.parameters()))


def test_thresholds_of_a_loss_are_learned_and_clipped_with_the_rest():
    def thresholds_after(clip_norm):
        loss = BinaryCrossEntropyLoss(3)
        fit(small(), loss, Batches(), TrainConfig(epochs=2), OptimConfig(lr=0.1, clip_norm=clip_norm))
        return loss.thresholds.detach()

    free, clipped = thresholds_after(None), thresholds_after(1e-6)
    assert (free > 0.05).all()  # two of three classes are not the sample's
    assert clipped.norm() < 1e-5


def test_a_model_without_trainable_parameters_is_an_error():
    with pytest.raises(ValueError, match="no parameter of the model can be trained"):
        make_optimizer(small().requires_grad_(requires_grad=False), OptimConfig())


def test_another_optimizer_takes_rate_and_decay_from_the_configuration():
    adam = OptimConfig(optimizer=spec(torch.optim.AdamW, betas=(0.8, 0.9)), lr=0.02, weight_decay=0.3)
    optimizer = make_optimizer(small(), adam)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {g["lr"] for g in optimizer.param_groups} == {0.02}
    assert {g["weight_decay"] for g in optimizer.param_groups} == {0.0, 0.3}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.0}, "optim.lr must be positive, got 0.0"),
        ({"head_lr_ratio": 0.0}, "optim.head_lr_ratio must be positive"),
        ({"clip_norm": -1.0}, "optim.clip_norm must be positive"),
        ({"weight_decay": -1e-4}, "weight_decay must not be negative"),
        ({"schedule": "linear"}, "'cosine' or 'step', got 'linear'"),
        ({"warmup": 1.0}, r"warmup must be a share of training in \[0, 1\), got 1.0"),
        ({"milestones": (0.9, 0.8)}, "increasing fractions"),
    ],
)
def test_optimizer_settings_are_checked_when_created(change, message):
    with pytest.raises(ValueError, match=message):
        OptimConfig(**change)


@pytest.mark.parametrize("change", [{"epochs": -1}, {"batch_size": 1}, {"precision": "half"}, {"ema_decay": 1.0}])
def test_training_settings_are_checked_when_created(change):
    with pytest.raises(ValueError, match=f"training.{next(iter(change))}"):
        TrainConfig(**change)
