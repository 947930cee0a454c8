"""Record what a function computes on a GPU as a CUDA graph, and replay it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

import torch

T = TypeVar("T")


class Recorded(Protocol[T]):
    """A recorded computation, which can be repeated on the same memory.

    Attributes:
        result: What the recorded function returned; its tensors hold the values of the last replay.
    """

    result: T

    def replay(self) -> None:
        """Repeat the computation with the present contents of its tensors."""


class Recorder(Protocol):
    """Records functions. A replay uses the Python numbers of the recording, but the present contents of the tensors."""

    def warm_up(self, call: Callable[[], T]) -> T:
        """Compute the function under the conditions of a recording, and return its result.

        Raises:
            RuntimeError: If it reads a value back from the device, which a recorded function cannot.
        """

    def record(self, call: Callable[[], T]) -> Recorded[T]:
        """Record what the function computes, and return the recording.

        Raises:
            RuntimeError: If it cannot be recorded.
        """


class CudaRecorder:
    """Records CUDA graphs. Random numbers are drawn from the device's global generator, as without a graph.

    Args:
        device: A CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def warm_up(self, call: Callable[[], T]) -> T:
        """Compute the function on the stream on which it will be recorded, as CUDA graphs require."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        try:
            with torch.cuda.stream(self._stream), _no_waiting():
                return call()
        finally:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)

    def record(self, call: Callable[[], T]) -> Recorded[T]:
        """Record the kernels that the function launches. Nothing is computed until the recording is replayed."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                result = call()
        except BaseException:
            # Otherwise the generator would still expect the end of the recording, and refuse to draw.
            generator = torch.cuda.default_generators[self._index]
            generator.graphsafe_set_state(generator.clone_state())
            raise
        return _CudaGraph(graph, result)

    @property
    def _index(self) -> int:
        return torch.cuda.current_device() if self._device.index is None else self._device.index


class _CudaGraph(Generic[T]):
    def __init__(self, graph: torch.cuda.CUDAGraph, result: T) -> None:
        self._graph = graph
        self.result = result

    def replay(self) -> None:
        self._graph.replay()


@contextmanager
def _no_waiting() -> Iterator[None]:
    """Raise an error for operations that make the host wait for the GPU."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that the mode is a prototype, and that nothing is captured yet
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)


def recorder_for(device: torch.device) -> Recorder | None:
    """Return the recorder of functions on a device; None if there is none, as for a CPU.

    Example:
        >>> recorder_for(torch.device("cpu")) is None
        True
    """
    return CudaRecorder(device) if device.type == "cuda" else None
