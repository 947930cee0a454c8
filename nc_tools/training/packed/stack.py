"""The stacks of a pack: one for each kind of head, and the blocks of members that a loss reads at once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nc_tools.heads.head import Head
from nc_tools.training.packed.head_kinds import stack_heads
from nc_tools.training.packed.stacked_head import StackedHead
from nc_tools.training.packed.stream_product import SharedRows


@dataclass(frozen=True)
class Block:
    """Consecutive members of one stack that read the same samples and have the same loss.

    Attributes:
        stack: Number of the stack in the pack.
        number: Number of the block in the stack.
        stream: The stream that its members read, as an index into the stack's streams.
        first: Place of its first member in the stack.
        place: Place of its first member in the pack.
        size: Number of members.
    """

    stack: int
    number: int
    stream: int
    first: int
    place: int
    size: int

    @property
    def places(self) -> range:
        """The places of its members in the pack."""
        return range(self.place, self.place + self.size)

    @property
    def of_stack(self) -> slice:
        """The places of its members in the stack."""
        return slice(self.first, self.first + self.size)


@dataclass(frozen=True, eq=False)
class Stack:
    """The heads of one kind in a pack.

    Attributes:
        head: The heads.
        place: Place of the first one in the pack.
        streams: Numbers of the streams that they read, in order.
        sizes: How many consecutive heads read each of these streams.
        blocks: All its blocks, in order.
    """

    head: StackedHead
    place: int
    streams: Sequence[int]
    sizes: Sequence[int]
    blocks: Sequence[Block]

    @property
    def places(self) -> range:
        """The places of its members in the pack."""
        return range(self.place, self.place + sum(self.sizes))

    def rows(self, features: Sequence[Tensor]) -> SharedRows:
        """Return the features of its members, given the features (B, D) of every stream of the pack."""
        dtype = torch.promote_types(self.head.dtype, torch.float32)
        own = [features[stream] for stream in self.streams]
        return SharedRows([f.to(torch.promote_types(f.dtype, dtype)) for f in own], self.sizes)


def make_stacks(heads: Sequence[Head], keys: Sequence[tuple[int, int, int]]) -> list[Stack]:
    """Stack the heads of each kind.

    Args:
        heads: The heads of all members, in the pack's inner order.
        keys: Numbers of the kind of head, of the stream and of the group of losses, for each head.
    """
    stacks: list[Stack] = []
    for _, of_kind in itertools.groupby(range(len(heads)), key=lambda i: keys[i][0]):
        places = list(of_kind)
        streams = [list(own) for _, own in itertools.groupby(places, key=lambda i: keys[i][1])]
        members = [list(own) for _, own in itertools.groupby(places, key=keys.__getitem__)]
        numbers = [keys[own[0]][1] for own in streams]
        blocks = [
            Block(len(stacks), number, numbers.index(keys[own[0]][1]), own[0] - places[0], own[0], len(own))
            for number, own in enumerate(members)
        ]
        head = stack_heads([heads[i] for i in places])
        stacks.append(Stack(head, places[0], numbers, [len(own) for own in streams], blocks))
    return stacks
