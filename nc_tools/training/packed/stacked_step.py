"""One step of a pack: the features of all its members, and their logits once a loss reads them."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from nc_tools.records import Batch
from nc_tools.training.packed.stack import Block, Stack
from nc_tools.training.packed.stacked_head import Rows
from nc_tools.training.packed.stream_product import SharedRows


class StackStep:
    """A step of one stack. Losses read logits and embedded features by block.

    Each block reads a part of one ``torch.split``, whose backward pass joins the gradients of all parts once. With
    indexing instead, every block would make a gradient of the whole size, and all of them would be added.

    Args:
        stack: The stack.
        rows: The features of its members.
        labels: (M, B).

    Attributes:
        embedded: The embedded features of its members.
        logits: Their logits (M, B, K); None as long as no loss has read any.
        seconds: Time that embedded features and logits took so far, in seconds, without gradients.
    """

    def __init__(self, stack: Stack, rows: SharedRows, labels: Tensor) -> None:
        self.stack = stack
        self.rows = rows
        self.labels = labels
        started = time.perf_counter()
        self.embedded: Rows = stack.head.embed(rows)
        self.seconds = time.perf_counter() - started
        self.logits: Tensor | None = None
        self._sizes = [block.size for block in stack.blocks]
        self._logits_by_block: Sequence[Tensor] = ()
        self._embedded_by_block: Sequence[Tensor] = ()

    def logits_of(self, block: Block) -> Tensor:
        """Return the logits (m, B, K) of a block; those of the whole stack are computed once."""
        if self.logits is None:
            started = time.perf_counter()
            self.logits = self.stack.head.compute_logits(self.embedded)
            self.seconds += time.perf_counter() - started
            self._logits_by_block = torch.split(self.logits, self._sizes)
        return self._logits_by_block[block.number]

    def embedded_of(self, block: Block) -> Rows:
        """Return the embedded features (m, B, D') of a block."""
        if isinstance(self.embedded, SharedRows):
            return SharedRows([self.embedded.parts[block.stream]], [block.size])
        if not self._embedded_by_block:
            self._embedded_by_block = torch.split(self.embedded, self._sizes)
        return self._embedded_by_block[block.number]

    def label_scores(self, block: Block) -> Tensor:
        """Return the dot product of each sample and the class vector of its label (m, B), for a block."""
        embedded, labels = self.embedded_of(block), self.labels[block.of_stack]
        rows = embedded if isinstance(embedded, Tensor) else embedded.stacked()
        weight = self.stack.head.weight()[block.of_stack].to(rows.dtype)
        own = weight.gather(1, labels.unsqueeze(2).expand(-1, -1, weight.shape[2]))
        return (own * rows).sum(-1)


class StackedStep:
    """A step of a pack: the step of each stack, and which members' losses have read what.

    Args:
        parts: The steps of the stacks.
        labels: (M, B).
        batches: The batch of each member; members of one stream share theirs.

    Attributes:
        read_logits: The members whose losses have read their logits.
        read_embedded: The members whose losses have read their embedded features.
    """

    def __init__(self, parts: Sequence[StackStep], labels: Tensor, batches: Sequence[Batch]) -> None:
        self.parts = parts
        self.labels = labels
        self.batches = batches
        self.read_logits: set[int] = set()
        self.read_embedded: set[int] = set()

    def logits_of(self, block: Block) -> Tensor:
        """Return the logits (m, B, K) of a block for its loss."""
        self.read_logits.update(block.places)
        return self.parts[block.stack].logits_of(block)

    def embedded_of(self, block: Block) -> Rows:
        """Return the embedded features (m, B, D') of a block for its loss."""
        self.read_embedded.update(block.places)
        return self.parts[block.stack].embedded_of(block)
