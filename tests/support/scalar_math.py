"""Plain Python on lists of floats, for references that use neither torch nor nc_tools."""

import math

Row = list[float]


def dot(a: Row, b: Row) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def norm(row: Row) -> float:
    return math.sqrt(dot(row, row))


def unit(row: Row) -> Row:
    return [x / norm(row) for x in row]


def log_sum_exp(values: Row) -> float:
    largest = max(values)
    return largest + math.log(sum(math.exp(v - largest) for v in values))


def log_softmax(logits: Row) -> Row:
    total = log_sum_exp(logits)
    return [z - total for z in logits]


def nll(logits: Row, label: int) -> float:
    """Return -log p_y."""
    return -log_softmax(logits)[label]


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))
