"""Memory and processor use of the process that makes a run, measured in that process."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import psutil

SAMPLE_SECONDS = 2.0
_MEGABYTE = 1e6  # as in MLflow


class SystemUsage:
    """Measures this process when a run logs its metrics, at most every ``SAMPLE_SECONDS``.

    MLflow's own sampler would measure the process that sends the runs to MLflow. There is no thread here: a sample
    takes about a tenth of a millisecond, and none is taken while a step is computed. The keys begin as MLflow's do
    (``system/``), so that MLflow shows them apart from the metrics of the model. Those with ``process`` are sums over
    all runs that this process makes at the same time, without other processes.
    """

    def __init__(self) -> None:
        self._since, self._processor_seconds = time.monotonic(), _processor_seconds()
        self._has_utilization = True

    def sample(self) -> dict[str, float]:
        """Return what is used now; an empty dictionary if the last sample is less than ``SAMPLE_SECONDS`` old.

        Returns:
            - ``system/process_cpu_utilization_percentage``: mean since the last sample; 100 is one core.
            - ``system/process_memory_usage_megabytes``: physical memory.
            - ``system/process_peak_memory_usage_megabytes``: its largest value since the process started.
            - ``system/process_gpu_memory_usage_megabytes``: what PyTorch has reserved on all GPUs.
            - ``system/process_peak_gpu_memory_usage_megabytes``: the sum over GPUs of the largest value of each.
            - ``system/gpu_N_utilization_percentage``: of GPU N, by all programs; needs the package nvidia-ml-py.
        """
        now = time.monotonic()
        if now - self._since < SAMPLE_SECONDS:
            return {}
        seconds = _processor_seconds()
        share = (seconds - self._processor_seconds) / (now - self._since)
        values = {
            "system/process_cpu_utilization_percentage": 100 * share,
            **_memory(),
            **self._gpu(),
        }
        self._since, self._processor_seconds = now, seconds
        return values

    def _gpu(self) -> dict[str, float]:
        torch: Any = sys.modules.get("torch")
        if torch is None or not torch.cuda.is_initialized():
            return {}
        used = [number for number in range(torch.cuda.device_count()) if torch.cuda.max_memory_reserved(number)]
        held, peak = (sum(map(of, used)) for of in (torch.cuda.memory_reserved, torch.cuda.max_memory_reserved))
        values = {
            "system/process_gpu_memory_usage_megabytes": held / _MEGABYTE,
            "system/process_peak_gpu_memory_usage_megabytes": peak / _MEGABYTE,
        }
        if self._has_utilization:
            try:
                for number in used:
                    values[f"system/gpu_{number}_utilization_percentage"] = float(torch.cuda.utilization(number))
            except Exception:  # noqa: BLE001 - no package, no driver, no permission: training goes on without it
                self._has_utilization = False
        return values


def _processor_seconds() -> float:
    times = os.times()
    return times.user + times.system


def _memory() -> dict[str, float]:
    memory = psutil.Process().memory_info()
    values = {"system/process_memory_usage_megabytes": memory.rss / _MEGABYTE}
    if (peak := _peak_bytes(memory)) is not None:
        values["system/process_peak_memory_usage_megabytes"] = max(peak, memory.rss) / _MEGABYTE
    return values


def _peak_bytes(memory: Any) -> int | None:
    if hasattr(memory, "peak_wset"):  # Windows
        return int(memory.peak_wset)
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
