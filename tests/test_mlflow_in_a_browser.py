"""MLflow's own pages on our store, as the links that `nc-tools ui` prints open them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from support.browser import NEEDS_CHROMIUM, browser, opened
from support.faulty_servers import free_port
from support.mlflow_store import fresh_store

import nc_tools
from nc_tools.comparison import compare
from nc_tools.run_records import RunIdentity, RunRecord
from nc_tools.tracking import mlflow_sync
from nc_tools.tracking.mirror import Mirror
from nc_tools.tracking.served_model import ServedNetwork, log_served_model
from nc_tools.tracking.store import resolve_store

pytestmark = [pytest.mark.slow, pytest.mark.browser, NEEDS_CHROMIUM]
PATIENCE_MS = 90_000


def logged_model(client):
    """Log a model with one of the runs; return the place of its page."""
    experiment = client.get_experiment_by_name("digits-lt").experiment_id
    run = next(run for run in client.search_runs([experiment]) if run.info.run_name.startswith("etf s2"))
    network = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Softmax(1)).eval()
    served = ServedNetwork(network, torch.randn(2, 4), card="# Model card: etf\n\nImage classifier with 3 classes.")
    name = log_served_model(client, run, served)
    return f"/experiments/{experiment}/models/{name}?workflowType=machine_learning"


@pytest.fixture(scope="module")
def links(tmp_path_factory):
    """The addresses of report and curves of a running MLflow, with two arms of three seeds and their comparison."""
    out = tmp_path_factory.mktemp("ui") / "out"
    for arm, gain in {"linear": 0.0, "etf": 0.03}.items():
        for seed in range(3):
            with RunRecord.create(out, RunIdentity("final", arm, seed, experiment="digits-lt")) as run:
                for epoch in (1, 2, 3):
                    run.log(epoch, {"train/loss": 1 / epoch})
                run.finish({"test/gen/balanced_accuracy": 0.7 + gain + 0.01 * seed + 0.1 * gain * seed})
    compare(out, out=out / "report")
    fresh_store(out / "mlflow.db", tmp_path_factory)
    store = resolve_store(out, None)
    assert Mirror(out, store).push().error is None
    model = logged_model(MlflowClient(store.uri))
    source = str(Path(nc_tools.__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-m", "nc_tools.cli", "ui", str(out), "--port", str(free_port()), "--no-browser"],
        env={**os.environ, **mlflow_sync.SETTINGS, "PYTHONPATH": source},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        report, curves, _ = (process.stdout.readline().strip().partition(": ")[2] for _ in range(3))
        yield {"report": report, "curves": curves, "model": f"{report.partition('#')[0]}#{model}"}
        process.terminate()


@pytest.fixture(scope="module")
def chromium():
    with browser() as started:
        yield started


def test_the_report_opens_in_the_training_view(chromium, links):
    with opened(chromium, links["report"]) as seen:
        frame = seen.page.frame_locator("iframe").first
        frame.locator(".headline").wait_for(timeout=PATIENCE_MS)
        assert "etf is significantly better than the baseline linear" in frame.locator(".headline").inner_text()
        assert frame.locator(".saves button").count() > 0  # its script runs there
        assert seen.page.get_by_text("Model metrics").is_visible()
        assert not seen.page.get_by_text("Judges").count()


def test_the_curves_open_grouped_by_arm_in_the_training_view(chromium, links):
    with opened(chromium, links["curves"]) as seen:
        seen.page.get_by_text("Group: etf").first.wait_for(timeout=PATIENCE_MS)
        assert seen.page.get_by_text("Group: linear").first.is_visible()
        seen.page.get_by_text("train/loss").first.wait_for(timeout=PATIENCE_MS)
        assert not seen.page.get_by_text("Judges").count()
        assert all("127.0.0.1" in address or address.startswith(("data:", "blob:")) for address in seen.requests)


def test_the_page_of_a_logged_model_shows_its_card_and_its_values(chromium, links):
    with opened(chromium, links["model"]) as seen:
        seen.page.get_by_text("Model card: etf").first.wait_for(timeout=PATIENCE_MS)
        assert seen.page.get_by_text("Image classifier with 3 classes.").is_visible()
        assert seen.page.get_by_text("etf s2").first.is_visible()
        assert seen.page.get_by_text("test/gen/balanced_accuracy").count()
        assert seen.page.get_by_text("Ready").first.is_visible()
