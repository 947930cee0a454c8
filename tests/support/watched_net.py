"""A small network with a swapped head, and the gradients of a loss on its features."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nc_tools.heads import ETFHead
from nc_tools.losses import DotRegressionLoss
from nc_tools.records import Batch
from nc_tools.specs import spec
from nc_tools.surgery import WatchedHead, swap_head

N, K = 8, 5
X = torch.randn(N, 3, 6, 6, generator=torch.Generator().manual_seed(1))
Y = torch.arange(N) % K
ETF = spec(ETFHead, projection=True)


class Net(nn.Module):
    """A small network whose blocks and whole can be checkpointed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.mix = nn.Linear(8, 8)
        self.fc = nn.Linear(8, K)

    def features(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        return h + torch.tanh(self.mix(h))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x))  # type: ignore[no-any-return]


def swapped(head: Any = ETF) -> Net:
    torch.manual_seed(0)
    model = Net()
    swap_head(model, head, generator=torch.Generator().manual_seed(0))
    return model


def batch(x: Tensor = X, y: Tensor = Y) -> Batch:
    return Batch(x, y, torch.arange(len(y)))


def grads(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def by_hand(head: Any = ETF) -> dict[str, Tensor]:
    """Gradients of dot regression, with the features taken from the model's own method."""
    model = swapped(head)
    DotRegressionLoss()(model.fc.outputs(model.features(X)), batch()).backward()
    return grads(model)


def train(model: Net, call: Callable[[Tensor], Tensor], watched: WatchedHead) -> dict[str, Tensor]:
    """Return gradients after some steps of a loop that calls the model and reads the watched outputs."""
    for _ in range(3):
        model.zero_grad()
        call(X)
        DotRegressionLoss()(watched.outputs, batch()).backward()
    return grads(model)


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    assert all(float(g.abs().max()) > 0 for g in expected.values())
    for name, grad in expected.items():
        assert torch.allclose(actual[name], grad, atol=1e-6), name
