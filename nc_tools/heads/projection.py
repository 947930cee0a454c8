"""The learned linear map of a head before its class vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nc_tools._support.initial_tensors import InitialTensors, check_memory


class Projection(InitialTensors, nn.Linear):
    """A linear layer without bias, which computes in the dtype of its input.

    It is an ``nn.Linear``, and heads call it as a module, so that hooks, LoRA, pruning, weight norm and sharding work
    on it as on any linear layer. Its input is at least float32 and its weight may be bfloat16; the product is then
    float32.

    Args:
        in_features: D.
        out_features: D'.
        generator: Draws the initial weight; the global one if None.

    Example:
        >>> layer = Projection(4, 2, torch.Generator().manual_seed(0)).to(torch.bfloat16)
        >>> layer(torch.ones(1, 4)).dtype
        torch.float32
    """

    def __init__(self, in_features: int, out_features: int, generator: torch.Generator | None) -> None:
        # On the meta device, so that nn.Linear does not draw from the global generator.
        super().__init__(in_features, out_features, bias=False, device="meta")
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self._built_on_meta = self.weight.is_meta
        self.draw_parameters(generator)

    def draw_parameters(self, generator: torch.Generator | None) -> None:
        """Draw the weight as ``nn.Linear`` does."""
        draw_linear(self.weight, None, generator)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (N, D) to (N, D'), in their dtype."""
        check_memory(self.weight, features, self)
        return nn.functional.linear(features, self.weight.to(features.dtype))


def draw_linear(weight: Tensor, bias: Tensor | None, generator: torch.Generator | None) -> None:
    """Initialize weight and bias in place as ``nn.Linear`` does, from the given generator.

    The numbers are drawn on the generator's device: with a CPU generator the weights are the same on every device.
    The meta device stores no numbers, so none are drawn there from the global generator: torch would import sympy.
    """
    bound = weight.shape[1] ** -0.5
    with torch.no_grad():
        for part in (weight, bias):
            if part is not None and not (part.is_meta and generator is None):
                drawn = torch.empty_like(part, device=part.device if generator is None else generator.device)
                part.copy_(drawn.uniform_(-bound, bound, generator=generator))
