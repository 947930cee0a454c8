"""A small classifier whose head is neither last by name nor by definition."""

from typing import Any

import torch
from torch import Tensor, nn


class Small(nn.Module):
    """A classifier with statistics, dropout and a head that is neither last by name nor by definition."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.out = nn.Linear(width, 5)
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.drop = nn.Dropout(0.5)
        self.mix = nn.Linear(width, width)

    def features(self, x: Tensor) -> Tensor:
        x = self.drop(torch.relu(self.norm(self.conv(x))))
        return torch.relu(self.mix(x.mean((2, 3))))

    def forward(self, x: Tensor) -> Any:
        return self.out(self.features(x))
