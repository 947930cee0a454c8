"""All head classes, each with arguments for the contract tests."""

from typing import Any

import torch
from torch import Tensor, nn

from nc_tools.heads import (
    LEARNED,
    LEARNED_PER_CLASS,
    RANDOM,
    BalancedCalibrationHead,
    CosineHead,
    ETFHead,
    FrozenRandomHead,
    HadamardHead,
    Head,
    LinearHead,
    NearestETFHead,
    PreallocatedHead,
    PrototypeHead,
    ProxyHead,
    RBFHead,
    SimplexHead,
    SphericalCodeHead,
    StructuredETFHead,
    TwoSpaceHead,
)
from nc_tools.specs import Spec, spec
from support.package_heads import head_classes

D, K, N = 24, 7, 11


def build(head: Spec[Head], **overrides: Any) -> Head:
    values = {"feature_dim": D, "num_classes": K, "generator": torch.Generator().manual_seed(0), **overrides}
    return head.build(values)


def features(n: int = N, dim: int = D) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(1)).relu()


class NegatedHead(Head):
    """A head as a user would write it, with the least that a subclass must define."""

    scale = 2.0

    def __init__(self, feature_dim: int, num_classes: int) -> None:
        super().__init__(feature_dim, num_classes)
        self.rows = nn.Parameter(torch.randn(num_classes, feature_dim))
        self.bias = nn.Parameter(torch.randn(num_classes))

    @property
    def weight(self) -> Tensor:
        return -self.rows


VARIANTS: list[Spec[Head]] = [
    *(Spec(cls) for cls in [*head_classes(), NegatedHead]),
    spec(LinearHead, bias=False),
    spec(CosineHead, scale=5.0),
    spec(ETFHead, projection=True, scale=LEARNED),
    spec(ETFHead, projection=12, normalize=False),
    spec(FrozenRandomHead, projection=True, scale=LEARNED),
    spec(ProxyHead, num_proxies=1, scale=6.0),
    spec(ETFHead, scale=LEARNED_PER_CLASS, assignment=RANDOM),
    spec(SimplexHead, radius=0.1),
    spec(HadamardHead, projection=64, normalize=False),
    spec(StructuredETFHead, rotated=False),
    spec(StructuredETFHead, projection=8, scale=LEARNED_PER_CLASS, assignment=RANDOM),
    spec(StructuredETFHead, projection=True, normalize=False),
    spec(SphericalCodeHead, projection=3),
    spec(NearestETFHead, projection=True, scale=LEARNED),
    spec(PrototypeHead, projection=12, normalize=False),
    spec(PreallocatedHead, capacity=10, projection=True),
    spec(RBFHead, gamma=0.3, radius=2.0, background=-1.0, projection=9),
    spec(TwoSpaceHead, hidden=D + 1, width=9, learned=True, scale=LEARNED),
    spec(BalancedCalibrationHead, mix=LEARNED, scale=LEARNED, projection=True),
]
