"""Small models with a swapped head, one for each head class of the package."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nc_tools.heads import Head
from nc_tools.models import ConvNet
from nc_tools.specs import Spec
from nc_tools.surgery import swap_head
from support.package_heads import head_classes

D, K, N = 16, 5, 12
CLASSES = head_classes()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = N) -> Tensor:
    return torch.randn(n, 3, 8, 8, generator=seeded(1))


def labels(n: int = N) -> Tensor:
    return torch.arange(n) % K


def head_spec(cls: type[Head], seed: int = 0) -> Spec[Head]:
    """Return the head with the arguments that a run sets, except sizes and generator, which swap_head sets."""
    values: dict[str, Any] = {"class_counts": (40, 20, 10, 5, 2), "num_samples": 77, "frame_seed": seed}
    return Spec(cls, {name: value for name, value in values.items() if Spec(cls).leaves_open(name)})


def backbone(seed: int = 0) -> ConvNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ConvNet(3, 8, width=4)


def linear(seed: int = 0) -> nn.Sequential:
    """Return a small convolutional network with a linear layer, as a user would write it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(ConvNet(3, 8, width=4), nn.Linear(D, K))


def swapped(cls: type[Head], seed: int = 0) -> nn.Sequential:
    """Return that network with its head replaced."""
    model = linear(seed)
    swap_head(model, head_spec(cls, seed), generator=seeded(seed))
    return model


class AllHeads(nn.Module):
    """One backbone with every head, so that one trace or one pair of processes covers all of them."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.backbone = backbone(seed)
        sizes = {"feature_dim": D, "num_classes": K}
        self.heads = nn.ModuleDict(
            {cls.__name__: head_spec(cls, seed).build(sizes | {"generator": seeded(seed)}) for cls in CLASSES}
        )

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        features = self.backbone(inputs)
        return {name: head(features) for name, head in self.heads.items()}


every_head = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


def head_of(model: nn.Sequential) -> Head:
    head = model[1]
    assert isinstance(head, Head)
    return head


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def close(a: dict[str, Tensor], b: dict[str, Tensor], atol: float = 1e-6) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(v, b[k], atol=atol) for k, v in a.items())


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    cross_entropy(model(images()), labels()).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
