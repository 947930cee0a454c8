"""Connect to a Ray cluster, and see how many runs it makes at once."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PATIENCE_S = 10.0
_ATTEMPTS = 3


@dataclass(frozen=True)
class Cluster:
    """What a Ray cluster has room for.

    Attributes:
        nodes: Machines that can make runs.
        tasks: Runs, or packs of runs, that it makes at once.
        device: Where they train: "cpu", or "cuda" for the GPU that Ray gives to a task.
        cpus: Processors of each task.
        gpus: Share of a GPU that each task takes; 0 on a CPU.
    """

    nodes: int
    tasks: int
    device: str
    cpus: int
    gpus: float


@contextmanager
def connected(address: str, *, device: str = "auto", gpus: float | None = None) -> Iterator[Cluster]:
    """Connect this process to a Ray cluster for the duration of the ``with`` block.

    Args:
        address: "auto" for the cluster that runs on this machine, or "ray://HOST:PORT".
        device: "cpu", "cuda", or "auto": GPUs if the cluster has some.
        gpus: Share of a GPU that each task takes, above 0 and at most 1; None for a whole one.

    Raises:
        ValueError: If Ray is not installed, the address or the share makes no sense, or the cluster lacks what is
            asked for.
        ConnectionError: If no cluster answers.
    """
    if address != "auto" and not address.startswith("ray://"):
        raise ValueError(f"--cluster must be auto or ray://HOST:PORT, got {address!r}")
    if gpus is not None and not 0 < gpus <= 1:
        raise ValueError(f"--gpus-per-task is the share of a GPU, above 0 and at most 1, got {gpus:g}")
    if importlib.util.find_spec("ray") is None:
        raise ValueError("--cluster needs Ray, which is not installed: pip install 'ray[client]'")
    # Ray itself would wait ten minutes for an address that does not answer, without a message.
    named = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    try:
        _check_answers(named.removeprefix("ray://") or _last_started())
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        with _signal_handlers_kept():
            _connect(address)
    except (OSError, RuntimeError, ValueError) as error:
        raise ConnectionError(_why_not(address, named, error)) from error
    try:
        yield room([node["Resources"] for node in ray.nodes() if node["Alive"]], device=device, gpus=gpus)
    finally:
        ray.shutdown()


def room(nodes: Sequence[Mapping[str, float]], *, device: str, gpus: float | None) -> Cluster:
    """Return what a cluster has room for, from the resources of its nodes.

    Args:
        nodes: Ray's resources of each machine, such as ``{"CPU": 8.0, "GPU": 1.0}``.
        device: As for :func:`connected`.
        gpus: As there.

    Raises:
        ValueError: If the cluster has no such device, or ``device`` names a GPU by its number.

    Example:
        >>> room([{"CPU": 16.0, "GPU": 2.0}, {"CPU": 8.0}], device="auto", gpus=0.25)
        Cluster(nodes=1, tasks=8, device='cuda', cpus=2, gpus=0.25)
        >>> room([{"CPU": 16.0}, {"CPU": 8.0}, {}], device="auto", gpus=None)
        Cluster(nodes=2, tasks=24, device='cpu', cpus=1, gpus=0.0)
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"with --cluster, --device must be auto, cpu or cuda: Ray chooses the GPU, got {device!r}")
    with_gpus = [node for node in nodes if node.get("GPU", 0) >= 1 and node.get("CPU", 0) >= 1]
    if device == "cuda" and not with_gpus:
        raise ValueError("the cluster has no node with a GPU and a processor: use --device cpu")
    if device == "cpu" or not with_gpus:
        if gpus is not None:
            raise ValueError(f"--gpus-per-task {gpus:g} is for GPUs, and these runs train on CPUs: leave it out")
        counts = [int(node.get("CPU", 0)) for node in nodes if node.get("CPU", 0) >= 1]
        if not counts:
            raise ValueError("the cluster has no node with a processor for runs: add one, as with ray start")
        return Cluster(len(counts), sum(counts), "cpu", 1, 0.0)
    share = 1.0 if gpus is None else gpus
    tasks = [int(node["GPU"]) * int(1 / share + 1e-9) for node in with_gpus]
    cpus = min(int(node["CPU"] // count) for node, count in zip(with_gpus, tasks, strict=True))
    return Cluster(len(with_gpus), sum(tasks), "cuda", max(1, cpus), share)


def _connect(address: str) -> None:
    """Connect to the cluster. Ray's client server may fail to start its process for a connection, so it is tried again.

    Raises:
        OSError: If the cluster does not answer, or ended the connection three times.
    """
    import ray

    for attempt in range(1, _ATTEMPTS + 1):
        try:
            ray.init(address, logging_level="ERROR")
            return
        except ConnectionAbortedError:
            ray.shutdown()  # Ray would go on as the client of a cluster, also for later connections
            if attempt == _ATTEMPTS:
                raise


@contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Set the handler of SIGTERM back after the block: Ray's own would end the process without a checkpoint."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _last_started() -> str:
    """Return the address of the cluster that was last started on this machine, as Ray notes it; "" without one."""
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    try:
        return (Path(folder) / "ray" / "ray_current_cluster").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _check_answers(place: str) -> None:
    """Check that something listens at ``HOST:PORT``; without a port nothing is checked.

    Raises:
        OSError: If nothing does.
    """
    host, _, port = place.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE_S).close()


def _why_not(address: str, named: str, error: Exception) -> str:
    reason = " ".join(str(error).split()).rstrip(".")
    if not named:
        return (
            f"no Ray cluster runs on this machine: start one with ray start --head, or give --cluster ray://HOST:PORT "
            f"({reason})"
        )
    place = f"{named}, which RAY_ADDRESS names" if address == "auto" else named
    port = "" if address == "auto" else ", and that the port is that of Ray's client server, 10001 by default"
    return f"cannot connect to the Ray cluster at {place}: check that it runs{port} ({reason})"
