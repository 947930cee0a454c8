"""What a run's process uses: measured in that process, seldom, and shown in MLflow apart from the model's metrics."""

import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from mlflow import MlflowClient
from support.mlflow_store import begin, fresh_store

from nc_tools.run_records import read_run, system_usage
from nc_tools.run_records.system_usage import SystemUsage
from nc_tools.tracking.mirror import Mirror
from nc_tools.tracking.store import resolve_store

CPU = "system/process_cpu_utilization_percentage"
MEMORY, PEAK = "system/process_memory_usage_megabytes", "system/process_peak_memory_usage_megabytes"


@pytest.mark.slow
def test_processor_and_memory_are_those_of_this_process(monkeypatch):
    monkeypatch.setattr(system_usage, "SAMPLE_SECONDS", 0.3)
    usage, clock, processor = SystemUsage(), time.monotonic(), time.process_time()
    before = psutil.Process().memory_info().rss / 1e6
    block = np.ones(25_000_000)  # 200 MB
    while time.process_time() - processor < 0.4:
        sum(range(1000))
    time.sleep(max(0.0, 0.3 - (time.monotonic() - clock)))
    values = usage.sample()
    share = (time.process_time() - processor) / (time.monotonic() - clock)
    assert values[CPU] == pytest.approx(100 * share, rel=0.15)
    assert values[MEMORY] == pytest.approx(before + block.nbytes / 1e6, abs=40)
    assert usage.sample() == {}  # too early
    del block
    time.sleep(0.3)
    later = usage.sample()
    assert later[MEMORY] < values[MEMORY] - 150
    assert later[PEAK] > values[MEMORY] - 1  # the kernel notes the peak a little later
    assert later[CPU] < values[CPU] / 2


def test_nothing_heavy_is_imported_for_it():
    code = "import sys; from nc_tools.run_records.system_usage import SystemUsage; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_mlflow_shows_it_as_system_metrics_and_the_curves_stay_those_of_the_model(
    tmp_path, tmp_path_factory, monkeypatch
):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(system_usage, "SAMPLE_SECONDS", 0.0)
    fresh_store(tmp_path / "mlflow.db", tmp_path_factory)
    with begin(tmp_path) as run:
        run.log(1, {"train/loss": 0.5})
        monkeypatch.setattr(system_usage, "SAMPLE_SECONDS", 1e9)
        run.log(2, {"train/loss": 0.4})
        run.finish({"test/gen/accuracy": 0.5})
    assert read_run(run.path).curves() == {"train/loss": [(1, 0.5), (2, 0.4)]}
    assert Mirror(tmp_path, resolve_store(tmp_path, None)).push().error is None
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (shown,) = client.search_runs([client.get_experiment_by_name("digits-lt").experiment_id])
    assert {key for key in shown.data.metrics if key.startswith("system/")} == {CPU, MEMORY, PEAK}
    ((step, value),) = ((point.step, point.value) for point in client.get_metric_history(shown.info.run_id, MEMORY))
    assert (step, value > 10) == (1, True)


@pytest.mark.parametrize("usage", ["3", "[1]", '{"a": "b"}', "null"])
def test_usage_that_cannot_be_read_is_left_out_of_a_valid_line(tmp_path, usage):
    with begin(tmp_path) as run:
        (run.path / "metrics.jsonl").write_text(f'{{"step": 1, "values": {{"a": 1}}, "system": {usage}}}\n')
        run.finish({"a": 1.0})
    assert read_run(run.path).curves() == {"a": [(1, 1.0)]}
