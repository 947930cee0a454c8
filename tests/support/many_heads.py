"""All heads of the contract tests side by side on the same features, so that one test of a wrapper covers them."""

from typing import Any

import torch
from torch import Tensor, nn

from nc_tools.heads import FixedHead, Head
from nc_tools.specs import Spec
from support.head_variants import VARIANTS, build


class ManyHeads(nn.Module):
    """A linear layer and, on its output, one head of each variant.

    Another seed gives other weights, frames and orders of the classes, and other fixed scales.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.body = nn.Linear(24, 24)
            self.heads = nn.ModuleList(build(variant, **_of_seed(variant, seed)) for variant in VARIANTS)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits (H, N, K) of all heads."""
        hidden = self.body(inputs).relu()
        return torch.stack([head(hidden) for head in self.heads])


def _of_seed(variant: Spec[Head], seed: int) -> dict[str, Any]:
    values: dict[str, Any] = {"generator": torch.Generator().manual_seed(seed), "frame_seed": seed}
    if issubclass(variant.cls, FixedHead) and "radius" not in dict(variant.arguments):
        values["scale"] = 4.0 + seed
    return {name: value for name, value in values.items() if variant.leaves_open(name)}
