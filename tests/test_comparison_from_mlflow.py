"""Comparing runs that are found in MLflow: their records here, or downloaded from a real SQLite store."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient
from support.mlflow_store import begin, fresh_store

from nc_tools.comparison import compare, write_comparison
from nc_tools.comparison.record_sources import read_sources
from nc_tools.run_records import RunRecord
from nc_tools.tracking.mirror import Mirror
from nc_tools.tracking.store import resolve_store

pytestmark = pytest.mark.slow

KEY = "test/gen/balanced_accuracy"
VALUES = {"linear": (0.70, 0.71, 0.69), "etf": (0.73, 0.75, 0.72)}

# The columns of MLflow's store that hold paths.
PLACES = {"experiments": "artifact_location", "runs": "artifact_uri", "tags": "value"}


def finish(run: RunRecord, value: float) -> None:
    for step in range(3):
        run.log(step, {"train/loss": 1 / (1 + step)})
    run.finish({KEY: value, "test/cal/nll": 2.0})


@pytest.fixture(scope="module")
def sent(tmp_path_factory) -> Path:
    """An output folder whose runs, of which one failed and one goes on, and whose comparison are in its store."""
    out = tmp_path_factory.mktemp("sent") / "out"
    out.mkdir()
    fresh_store(out / "mlflow.db", tmp_path_factory)
    for arm, values in VALUES.items():
        for seed, value in enumerate(values):
            with begin(out, seed, arm=arm) as run:
                finish(run, value)
    with pytest.raises(ArithmeticError), begin(out, 3, arm="etf"):
        raise ArithmeticError("loss is not finite")
    begin(out, 4, arm="etf")
    (out / "experiment.json").write_text(
        f'{{"name": "digits-lt", "baseline": "linear", "arms": ["linear", "etf"], "primary": "{KEY}"}}'
    )
    write_comparison(compare(out), out / "report")
    assert Mirror(out, resolve_store(out, f"sqlite:///{out}/mlflow.db")).push().error is None
    return out


@pytest.fixture
def root(sent, tmp_path, monkeypatch) -> Path:
    """A copy of that folder, with its own place in its store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    out = shutil.copytree(sent, tmp_path / "out")
    with closing(sqlite3.connect(out / "mlflow.db")) as store:
        for table, column in PLACES.items():
            store.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(sent), str(out)))
        store.commit()
    return out


def uri(root: Path) -> str:
    return f"sqlite:///{root}/mlflow.db"


def facts(comparison):
    runs = {(r.arm, r.seed, r.draw, r.kind, r.status, r.error, str(r.final), str(r.curves), str(r.data), r.frame_seed)
            for r in comparison.runs}  # fmt: skip
    return comparison.baseline, comparison.family, runs


def test_an_experiment_in_mlflow_is_compared_as_its_folder(root):
    comparison = compare("mlflow:digits-lt", tracking_uri=uri(root))
    assert facts(comparison) == facts(compare(root))
    assert {run.folder.parent for run in comparison.runs} == {root / "runs"}


def test_records_on_another_machine_are_downloaded_once_and_give_the_same_comparison(root, tmp_path, monkeypatch):
    expected = compare(root)
    shutil.rmtree(root / "runs")
    (root / "experiment.json").unlink()
    comparison = compare("mlflow:digits-lt", tracking_uri=uri(root), out=tmp_path / "report")
    baseline, family, runs = facts(comparison)
    assert (baseline, family) == facts(expected)[:2]
    assert {run for run in runs if run[4] != "RUNNING"} == {run for run in facts(expected)[2] if run[4] != "RUNNING"}
    assert [(run.arm, run.seed) for run in comparison.runs if run.status == "RUNNING"] == [("etf", 4)]
    assert "etf seed 3" not in expected.cautions
    fetched = []
    monkeypatch.setattr(MlflowClient, "download_artifacts", lambda *given: fetched.append(given[2]))
    again = compare("mlflow:digits-lt", tracking_uri=uri(root), out=tmp_path / "report")
    assert facts(again) == facts(comparison)
    assert not [name for name in fetched if name not in ("experiment.json", "tuning.json")]


def test_a_filter_and_ids_choose_runs(root):
    chosen = compare("mlflow:digits-lt", tracking_uri=uri(root), filter_string="tags.`nc.seed` != '2'")
    assert chosen.test("etf").seeds == (0, 1)
    client = MlflowClient(uri(root))
    experiment = client.get_experiment_by_name("digits-lt").experiment_id
    ids = [
        client.search_runs([experiment], f"tags.`nc.arm` = '{arm}' AND tags.`nc.seed` = '{seed}'")[0].info.run_id
        for arm in VALUES
        for seed in (1, 2)
    ]
    assert compare([f"mlflow:{run}" for run in ids], tracking_uri=uri(root)).test("etf").seeds == (1, 2)


def test_another_attempt_on_this_machine_is_not_taken_for_the_run(root, tmp_path):
    folder = next((root / "runs").glob("linear-s0-*"))
    (folder / "run.json").write_text((folder / "run.json").read_text().replace('"created_ms": 1', '"created_ms": 2'))
    (found,) = read_sources(["mlflow:digits-lt"], downloads=tmp_path / "there", tracking_uri=uri(root))[1:]
    assert [run.arm for run in found.runs if run.finished] == ["linear"]
    assert found.root.parent == tmp_path / "there"


@pytest.mark.parametrize("name", ["..", ".", "../../out", "a/b", ""])
def test_a_record_that_names_another_folder_is_left_out(root, tmp_path, name):
    shutil.rmtree(root / "runs")
    client = MlflowClient(uri(root))
    shown = client.search_runs([client.get_experiment_by_name("digits-lt").experiment_id])
    run = next(run for run in shown if run.data.tags.get("nc.arm") == "linear")
    folder = run.data.tags["nc.record"].partition("/")[0]
    client.set_tag(run.info.run_id, "nc.record", f"{folder}/{name}")
    (tmp_path / "there" / folder).mkdir(parents=True)
    (tmp_path / "there" / folder / "kept").write_text("kept")
    (records,) = read_sources(["mlflow:digits-lt"], downloads=tmp_path / "there", tracking_uri=uri(root))
    assert len([one for one in records.runs if one.finished]) == 5
    assert (tmp_path / "there" / folder / "kept").read_text() == "kept"


@pytest.mark.parametrize(
    ("source", "filter_string", "sentence"),
    [
        ("mlflow:digits", None, "has no experiment 'digits': did you mean 'digits-lt'"),
        ("mlflow:digits-lt", "tags.`nc.arm` = 'none'", "has no run that fits the filter \"tags.`nc.arm` = 'none'\""),
        ("mlflow:digits-lt", "arm is etf", "MLflow does not understand the filter 'arm is etf'"),
        (f"mlflow:{'0' * 32}", None, f"has no run {'0' * 32}: give the ID"),
        ("mlflow:foreign", None, "the experiment 'foreign' of .* holds no record of a training run"),
    ],
    ids=["experiment", "none", "syntax", "run", "foreign"],
)
def test_what_is_not_there_is_one_sentence(root, source, filter_string, sentence):
    client = MlflowClient(uri(root))
    client.create_run(client.create_experiment("foreign"))
    with pytest.raises(ValueError, match=sentence) as error:
        compare(source, tracking_uri=uri(root), filter_string=filter_string)
    assert "\n" not in str(error.value)
