"""Which test images a model takes for a wrong class with most confidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_MISTAKES = 12
"""How many mistakes a run keeps pictures of, and how many of an arm a report shows."""


@dataclass(frozen=True)
class SurestMistakes:
    """Wrong predictions of one run, that with the highest confidence first.

    Attributes:
        index: Indices of the images in the test set (M,), int64.
        margin: log(p / (1 - p)) of the predicted class's probability p (M,); infinite where p is 1.
    """

    index: NDArray[np.int64]
    margin: NDArray[np.float64]

    def joined(self, other: SurestMistakes) -> SurestMistakes:
        """Return the surest mistakes of both, at most ``MOST_MISTAKES``."""
        index = np.concatenate([self.index, other.index])
        margin = np.concatenate([self.margin, other.margin])
        order = np.argsort(-margin, kind="stable")[:MOST_MISTAKES]
        return SurestMistakes(index[order], margin[order])


NO_MISTAKES = SurestMistakes(np.zeros(0, np.int64), np.zeros(0))


def surest_mistakes(
    logits: NDArray[np.floating],
    labels: NDArray[np.integer],
    start: int = 0,
    guess: NDArray[np.integer] | None = None,
) -> SurestMistakes:
    """Return the wrong predictions with the highest confidence, at most ``MOST_MISTAKES``.

    They are ordered by the log odds of the predicted class, which still differ where its probability rounds to 1.

    Args:
        logits: (N, K); the largest of each row is finite.
        labels: (N,).
        start: Index of the first row in the test set.
        guess: The class with the largest logit of each row (N,); None to compute it.

    Example:
        >>> found = surest_mistakes(np.array([[5.0, 0.0], [0.0, 9.0], [9.0, 0.0]]), np.array([1, 0, 0]))
        >>> found.index.tolist(), found.margin.tolist()
        ([1, 0], [9.0, 5.0])
    """
    guess = logits.argmax(axis=1) if guess is None else guess
    (wrong,) = np.nonzero(guess != labels)
    others = logits[wrong].astype(np.float64)
    rows = np.arange(len(wrong))
    others -= others[rows, guess[wrong]][:, None]
    others[rows, guess[wrong]] = -np.inf
    with np.errstate(divide="ignore"):  # log 0 where the other probabilities underflow
        margin = -np.log(np.exp(others).sum(axis=1))
    return NO_MISTAKES.joined(SurestMistakes(wrong + start, margin))
