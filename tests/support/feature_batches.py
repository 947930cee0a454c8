"""Small batches of features for losses that read features."""

import math

import torch
from hypothesis import strategies as st
from torch import Tensor

from nc_tools.heads import LinearHead
from nc_tools.losses import LossTerm
from nc_tools.records import Batch

K, D = 4, 3
Rows = list[list[float]]

number = st.floats(-2, 2).map(lambda x: round(x, 3))
row = st.lists(number, min_size=D, max_size=D).filter(lambda r: math.hypot(*r) > 0.1)
rows_and_labels = st.integers(2, 8).flatmap(
    lambda n: st.tuples(st.lists(row, min_size=n, max_size=n), st.lists(st.integers(0, K - 1), min_size=n, max_size=n))
)


def linear_head() -> LinearHead:
    return LinearHead(D, K, generator=torch.Generator().manual_seed(0)).double()


def batch_of(labels: list[int] | Tensor) -> Batch:
    y = torch.as_tensor(labels)
    return Batch(torch.zeros(len(y), 1), y, torch.arange(len(y)))


def value_of(loss: LossTerm, rows: Rows | Tensor, labels: list[int] | Tensor, head: LinearHead | None = None) -> float:
    h = torch.as_tensor(rows, dtype=torch.float64)
    return float(loss((linear_head() if head is None else head).outputs(h), batch_of(labels)).detach())
