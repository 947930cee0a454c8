"""After a swap, a model still trains, in every way that PyTorch has for it: every public head class."""

import copy
from typing import Any

import pytest
import torch
from support.swapped_heads import (
    D,
    K,
    N,
    backbone,
    close,
    every_head,
    gradients,
    head_of,
    images,
    labels,
    seeded,
    step,
    swapped,
)
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from nc_tools.heads import ETFHead, Head, LinearHead
from nc_tools.losses import DotRegressionLoss
from nc_tools.models import Classifier
from nc_tools.records import Batch
from nc_tools.training.optimizers import make_optimizer
from nc_tools.training.train_config import OptimConfig


@every_head
def test_the_backbone_learns(cls: type[Head]) -> None:
    model = swapped(cls)
    cross_entropy(model(images()), labels()).backward()  # type: ignore[no-untyped-call]
    grads = gradients(model)
    assert set(grads) == {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(torch.isfinite(g).all() for g in grads.values())
    assert all(g.any() for name, g in grads.items() if name.startswith("0."))


@every_head
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_step_inside_autocast_is_near_the_one_outside(cls: type[Head], dtype: torch.dtype) -> None:
    model = swapped(cls)
    cross_entropy(model(images()), labels()).backward()  # type: ignore[no-untyped-call]
    expected = gradients(model)
    model.zero_grad()
    with torch.autocast("cpu", dtype):
        logits = model(images())
        assert logits.dtype == torch.float32
        loss = cross_entropy(logits, labels())
    loss.backward()  # type: ignore[no-untyped-call]
    grads = gradients(model)
    assert grads.keys() == expected.keys()
    assert all(gradient.dtype == torch.float32 for gradient in grads.values())
    # The backbone computes in eight or eleven bits: the step must go the same way.
    a, b = (torch.cat([gradient.flatten() for gradient in part.values()]) for part in (grads, expected))
    assert torch.cosine_similarity(a, b, dim=0) > (0.97 if dtype == torch.bfloat16 else 0.999)
    assert float(a.norm() / b.norm()) == pytest.approx(1, abs=0.1)


@every_head
def test_gradients_of_each_sample_add_up_to_the_batchs(cls: type[Head]) -> None:
    model = swapped(cls).eval()
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())

    def loss(values: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        logits = torch.func.functional_call(model, (values, buffers), (image[None],))
        return cross_entropy(logits, label[None])

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, images(), labels())
    cross_entropy(model(images()), labels()).backward()  # type: ignore[no-untyped-call]
    assert close({name: g.mean(0) for name, g in each.items()}, gradients(model), atol=1e-5)


@every_head
def test_a_loss_of_features_has_gradients_of_each_sample_too(cls: type[Head]) -> None:
    head, loss = head_of(swapped(cls)), DotRegressionLoss()

    def of(features: Tensor, label: Tensor) -> Tensor:
        return loss(head.outputs(features), Batch(features, label, label))  # type: ignore[no-any-return]

    features = torch.randn(N, D, generator=seeded(2)).relu()
    each = torch.func.vmap(torch.func.grad(lambda f, y: of(f[None], y[None])))(features, labels())
    features.requires_grad_()
    of(features, labels()).backward()  # type: ignore[no-untyped-call]
    assert features.grad is not None
    assert torch.allclose(each / N, features.grad, atol=1e-6)


@every_head
def test_checkpointed_activations_give_the_same_gradients(cls: type[Head]) -> None:
    model = swapped(cls).eval()
    cross_entropy(model(images()), labels()).backward()  # type: ignore[no-untyped-call]
    expected = gradients(model)
    model.zero_grad()
    logits = checkpoint(model, images(), use_reentrant=False)
    cross_entropy(logits, labels()).backward()
    assert close(gradients(model), expected)


@every_head
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop])
def test_an_optimizer_with_a_group_for_the_head_accepts_a_head_without_parameters(
    cls: type[Head], optimizer: type[torch.optim.Optimizer]
) -> None:
    model = swapped(cls)
    head = head_of(model)
    before = copy.deepcopy(model.state_dict())
    groups: list[dict[str, Any]] = [
        {"params": model[0].parameters()},
        {"params": head.parameters(), "lr": 0.1, "weight_decay": 0.0},
    ]
    both = optimizer(groups, lr=0.01)  # type: ignore[call-arg]
    step(model, both)
    both.load_state_dict(copy.deepcopy(both.state_dict()))
    step(model, both)
    after = model.state_dict()
    assert all(not torch.equal(after[name], before[name]) for name in after if name.endswith("layers.0.weight"))
    fixed = {f"1.{name}" for name, _ in head.named_buffers() if name.split(".")[-1] == "frame"}
    assert all(torch.equal(after[name], before[name]) for name in fixed)
    names = {name for name, _ in head.named_parameters()}
    assert all(not torch.equal(after[f"1.{name}"], before[f"1.{name}"]) for name in names)


def test_torch_rejects_an_optimizer_of_an_empty_head_and_make_optimizer_leaves_its_group_out() -> None:
    with pytest.raises(ValueError, match="empty parameter list"):
        torch.optim.SGD(ETFHead(D, K).parameters(), lr=0.1)
    rates = OptimConfig(lr=0.1, head_lr_ratio=2.0)
    fixed = make_optimizer(Classifier(backbone(), ETFHead(D, K)), rates)
    learned = make_optimizer(Classifier(backbone(), LinearHead(D, K)), rates)
    assert [group["lr"] for group in fixed.param_groups] == [0.1, 0.1]
    assert [group["lr"] for group in learned.param_groups] == [0.1, 0.1, 0.2, 0.2]
