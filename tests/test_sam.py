"""The SAM optimizer against the algorithm written out."""

import copy

import pytest
import torch
from torch import nn

from nc_tools.training import (
    SAM,
    AsymmetricSharpnessAware,
    SharpnessAware,
)


def by_hand(weights, gradient, steps, *, rho, lr, momentum, decay):
    """SGD with SAM on lists of floats; ``gradient`` maps weights to gradients."""
    buffer = None
    for _ in range(steps):
        ascent = gradient(weights)
        norm = sum(g * g for g in ascent) ** 0.5
        perturbed = gradient([w + rho * g / norm for w, g in zip(weights, ascent, strict=True)])
        decayed = [g + decay * w for w, g in zip(weights, perturbed, strict=True)]
        buffer = decayed if buffer is None else [momentum * b + d for b, d in zip(buffer, decayed, strict=True)]
        weights = [w - lr * b for w, b in zip(weights, buffer, strict=True)]
    return weights


def curved(parameters):
    """A loss over several tensors with a known gradient: sum_i (i + 1) w_i^4 / 4."""
    flat = torch.cat([p.flatten() for p in parameters])
    return (torch.arange(1, len(flat) + 1) * flat**4 / 4).sum()


def curved_gradient(weights):
    return [(i + 1) * w**3 for i, w in enumerate(weights)]


START = [0.5, -0.3, 0.8, 0.1, -0.6]


def start_parameters():
    return [nn.Parameter(torch.tensor(START[:3], dtype=torch.float64)),
            nn.Parameter(torch.tensor(START[3:], dtype=torch.float64).view(1, 2))]  # fmt: skip


@pytest.mark.parametrize("call", ["steps", "closure"])
def test_it_is_the_algorithm_written_out(call):
    parameters = start_parameters()
    unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
    base = torch.optim.SGD([{"params": parameters[:1]}, {"params": [parameters[1], unused]}], lr=0.1, momentum=0.9,
                           weight_decay=0.01)  # fmt: skip
    optimizer = SAM(base, rho=0.2)
    for _ in range(4):
        optimizer.zero_grad()
        curved(parameters).backward()
        if call == "steps":
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

            at_perturbed_weights = optimizer.step(closure)
            assert at_perturbed_weights > curved(parameters).detach()
    weights = [float(x) for p in parameters for x in p.detach().flatten()]
    expected = by_hand(START, curved_gradient, 4, rho=0.2, lr=0.1, momentum=0.9, decay=0.01)
    assert weights == pytest.approx(expected, rel=1e-9)
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


def test_steps_in_the_wrong_order_and_bad_settings_are_errors():
    weight = nn.Parameter(torch.ones(3))
    optimizer = SAM(torch.optim.SGD([weight], lr=0.1))
    for early in (optimizer.second_step, optimizer.step):
        with pytest.raises(RuntimeError, match="SAM needs two backward passes per step, got one"):
            early()
    weight.sum().backward()
    optimizer.first_step()
    with pytest.raises(RuntimeError, match=r"first_step\(\) was called twice"):
        optimizer.first_step()
    for rho in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="must be positive and finite"):
            SAM(torch.optim.SGD([weight], lr=0.1), rho=rho)
        for kind in (SharpnessAware, AsymmetricSharpnessAware):
            with pytest.raises(ValueError, match="must be positive and finite"):
                kind(rho)
    with pytest.raises(ValueError, match=r"beta must be in \[0, 1\]"):
        AsymmetricSharpnessAware(beta=1.5)


def test_schedulers_and_state_see_the_wrapped_optimizer():
    def stepped(optimizer, parameters, count):
        for _ in range(count):
            optimizer.zero_grad()
            curved(parameters).backward()
            optimizer.first_step(zero_grad=True)
            curved(parameters).backward()
            optimizer.second_step()

    parameters = start_parameters()
    base = torch.optim.Adam(parameters, lr=0.1)
    optimizer = SAM(base)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    stepped(optimizer, parameters, 2)
    schedule.step()  # warns, and so fails here, if it does not notice the steps
    assert base.param_groups[0]["lr"] == 0.05
    twins = [nn.Parameter(p.detach().clone()) for p in parameters]
    twin = SAM(torch.optim.Adam(twins, lr=7.0))
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert twin.param_groups[0]["lr"] == 0.05
    stepped(optimizer, parameters, 2)
    stepped(twin, twins, 2)
    assert all(torch.equal(a, b) for a, b in zip(parameters, twins, strict=True))
