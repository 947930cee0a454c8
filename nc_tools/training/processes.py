"""The processes that train one model together, and what they exchange."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from nc_tools._support.signals import Killed, StopSignal
from nc_tools.training.training_state import TrainingState

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

LONGEST_WAIT = timedelta(hours=12)
"""How long a process waits for another that is alive, such as for an evaluation; one that died is noticed at once."""
_CHUNK = 2**28  # bytes that are sent at once


class LostProcess(Killed):
    """Raised when another process has ended or cannot be reached: a training cannot go on without it."""


class Processes:
    """The processes that train one model together: each computes a part of every batch's features.

    The first process (rank 0) alone evaluates, writes and decides; the others follow it. Every method is called by all
    processes, at the same point of the training.

    The groups are not registered with ``torch.distributed``. Each process has the features of the whole batch, so that
    losses and heads, which exchange their sums if there is a default group, must do as in one process.

    Args:
        store: Where the processes find each other.
        rank: Number of this process, from 0.
        size: How many there are.

    Attributes:
        rank: The same.
        size: The same.

    Example:
        >>> alone = Processes(dist.HashStore(), rank=0, size=1)
        >>> alone.part(5), alone.first_decides(lambda: True)
        (slice(0, 5, None), True)
    """

    def __init__(self, store: Store, rank: int, size: int) -> None:
        self.rank = rank
        self.size = size
        self._store = store
        own = dist.PrefixStore("cpu", store)  # type: ignore[attr-defined]
        self._of_cpu: Any = dist.ProcessGroupGloo(own, rank, size, LONGEST_WAIT)
        self._of_gpu: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that evaluates, writes and decides."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """Return which of ``count`` samples are those of this process; the parts differ by at most one sample.

        Raises:
            ValueError: If there are fewer samples than processes.
        """
        if count < self.size:
            raise ValueError(
                f"a batch of {count} samples cannot be divided among {self.size} processes: set a larger "
                f"training.batch_size, or start fewer processes"
            )
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def sum(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all processes, in place."""
        group = self._group_of_gpu() if tensor.is_cuda else self._of_cpu
        with _noticing_the_dead():
            group.allreduce([tensor]).wait()

    def any(self, flag: bool) -> bool:  # noqa: FBT001
        """Return whether a flag is set in at least one process."""
        flags = torch.tensor([int(flag)])
        self.sum(flags)
        return bool(flags)

    def first_decides(self, decide: Callable[[], bool]) -> bool:
        """Return what the first process decides; ``decide`` is called there only.

        Raises:
            Killed: In the other processes, if ``decide`` raised an error in the first.
        """
        if self.is_first:
            try:
                decision = decide()
            except BaseException:
                with contextlib.suppress(Killed):
                    self._send(torch.tensor([2]))
                raise
            self._send(torch.tensor([int(decision)]))
            return decision
        answer = int(self._send(torch.tensor([0])))
        if answer == 2:
            raise Killed("the first process has ended this training")
        return bool(answer)

    def copy_first(self, state: TrainingState) -> None:
        """Give every process the training state of the first: weights, optimizer, random numbers, steps done.

        Raises:
            ValueError: If there is a default process group.
        """
        if dist.is_initialized():
            raise ValueError(
                "Processes is a process group of its own, but torch.distributed.init_process_group() was called too: "
                "with a default group, losses would exchange samples that every process has already; leave that call "
                "out"
            )
        buffer = io.BytesIO()
        if self.is_first:
            torch.save(state.stored(), buffer)
        content = self.send(buffer.getvalue())
        if not self.is_first:
            state.restore(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))

    def send(self, content: bytes) -> bytes:
        """Return the bytes of the first process; those of the others are not used."""
        size = int(self._send(torch.tensor([len(content)])))
        whole = torch.zeros(size, dtype=torch.uint8)
        if self.is_first and content:
            whole.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        for chunk in torch.split(whole, _CHUNK) if size else ():
            self._send(chunk)
        return whole.numpy().tobytes()

    def _send(self, tensor: Tensor) -> Tensor:
        """Return a tensor of the CPU, which is that of the first process, in place."""
        options = dist.BroadcastOptions()  # from rank 0
        with _noticing_the_dead():
            self._of_cpu.broadcast([tensor], options).wait()
        return tensor

    def _group_of_gpu(self) -> Any:
        if self._of_gpu is None:
            own = dist.PrefixStore("gpu", self._store)  # type: ignore[attr-defined]
            self._of_gpu = dist.ProcessGroupNCCL(own, self.rank, self.size, dist.ProcessGroupNCCL.Options())
        return self._of_gpu


class SharedStop:
    """Whether a stop was requested in at least one process; reading it is an exchange, so all processes must read it.

    Args:
        processes: The processes.
        own: The signal of this process, or None.
    """

    def __init__(self, processes: Processes, own: StopSignal | None) -> None:
        self._processes = processes
        self._own = own

    @property
    def requested(self) -> bool:
        """Whether the signal is set in at least one process."""
        return self._processes.any(self._own is not None and self._own.requested)


@contextlib.contextmanager
def _noticing_the_dead() -> Iterator[None]:
    """Turn the error of an exchange into ``LostProcess``."""
    try:
        yield
    except RuntimeError as error:  # all errors of torch.distributed are
        reason = re.sub(r"^\[[^]]*\] *", "", str(error)).partition(". ")[0][:200]  # without a place in its source
        raise LostProcess(f"another process of this training has ended or cannot be reached ({reason})") from error
