"""The data of a run of one's own loop: its digest follows the content, and comparisons and MLflow use it."""

import hashlib
import importlib

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from support.mlflow_store import fresh_store

from nc_tools import TrackedData, compare, track
from nc_tools.run_records.reader import read_runs
from nc_tools.tracking.mirror import Mirror
from nc_tools.tracking.store import resolve_store

IMAGES, LABELS = torch.arange(24.0).reshape(6, 4), torch.arange(6) % 3
KEY = "test/gen/balanced_accuracy"


def digest(*parts):
    return TrackedData.of("d", *parts).digest


def test_the_digest_is_that_of_the_bytes():
    inner = hashlib.sha256(b"torch.float32 (6, 4) " + IMAGES.numpy().tobytes()).digest()
    assert digest(IMAGES) == hashlib.sha256(inner).hexdigest()


@pytest.mark.parametrize(
    "changed",
    [IMAGES + 1, IMAGES.flip(0), IMAGES.reshape(4, 6), IMAGES.double(), IMAGES.bfloat16(), IMAGES[:5], IMAGES[:0]],
    ids=["values", "order", "shape", "type", "half", "fewer", "none"],
)
def test_other_content_has_another_digest(changed):
    assert digest(changed) != digest(IMAGES)
    assert digest(changed) == digest(changed.clone())


def test_memory_layout_device_and_place_of_files_change_nothing(tmp_path):
    assert digest(IMAGES.t().contiguous().t()) == digest(IMAGES)
    assert digest(np.asfortranarray(IMAGES.numpy())) == digest(IMAGES.numpy())
    for place in ("a", "b"):
        (tmp_path / place / "train").mkdir(parents=True)
        (tmp_path / place / "train" / "1.png").write_bytes(b"one")
        (tmp_path / place / "2.png").write_bytes(b"two")
    assert digest(tmp_path / "a") == digest(str(tmp_path / "b"))
    assert digest(tmp_path / "a" / "2.png", LABELS) == digest(tmp_path / "b" / "2.png", LABELS)
    (tmp_path / "b" / "2.png").rename(tmp_path / "b" / "3.png")
    assert digest(tmp_path / "a") != digest(tmp_path / "b")


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda _: TrackedData("", "x"), ValueError, "the name of tracked data must not be empty"),
        (lambda _: TrackedData("x", " "), ValueError, "the digest of tracked data must not be empty"),
        (lambda _: TrackedData("x", 3), TypeError, "the digest of tracked data must be a text, got int"),
        (lambda _: TrackedData.of("x"), ValueError, "the digest of 'x' needs data, got none"),
        (lambda _: TrackedData.of("x", [1, 2]), TypeError, "must be tensors, arrays, or paths .* got list"),
        (lambda _: TrackedData.of("x", np.array([{}])), TypeError, "an array of Python objects"),
        (lambda folder: TrackedData.of("x", folder), ValueError, "holds no file"),
        (lambda folder: TrackedData.of("x", folder / "none.npz"), FileNotFoundError, "none.npz"),
        (lambda folder: track(folder, "a", 0, data="x").__enter__(), TypeError, "must be a TrackedData, got str"),
    ],
)  # fmt: skip
def test_bad_data_is_one_sentence(make, error, sentence, tmp_path):
    with pytest.raises(error, match=sentence):
        make(tmp_path)


def test_runs_on_other_data_are_not_paired_and_mlflow_shows_the_data(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///" + str(fresh_store(tmp_path / "mlflow.db", tmp_path_factory)))
    module = importlib.import_module("nc_tools.tracking.track")
    monkeypatch.setattr(module, "_ensure_sender", lambda _: None)  # sent below, in this process
    same, other = TrackedData.of("photos", IMAGES, LABELS), TrackedData("photos", "v2")
    for arm, gain in (("linear", 0.0), ("etf", 0.05)):
        for seed in range(4):
            data = other if (arm, seed) == ("etf", 3) else same
            with track(tmp_path, arm=arm, seed=seed, class_counts=[2, 2, 2], data=data) as run:
                run.finish({KEY: 0.5 + gain + 0.01 * seed**2})
    comparison = compare(tmp_path, baseline="linear")
    assert comparison.test("etf").seeds == (0, 1, 2)
    assert "etf has other images than the baseline at seed 3" in " ".join(map(str, comparison.cautions))
    assert Mirror(tmp_path, resolve_store(tmp_path, None)).push().error is None
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    shown = client.search_runs([client.get_experiment_by_name("nc_tools").experiment_id])
    sets = {(one.dataset.name, one.dataset.digest) for run in shown for one in run.inputs.dataset_inputs}
    assert sets == {("photos", same.digest[:36]), ("photos", "v2")}
    assert {run.identity.data["num_classes"] for run in read_runs(tmp_path, ("loop",))} == {3}
