import json
import math

import pytest
from support.comparison_records import write_json, write_output

from nc_tools.comparison import read_compared_runs, read_experiment
from nc_tools.comparison.compared_run import read_compared_run


def make_run(folder, **status):
    write_json(folder / "run.json", {"arm": "etf", "seed": 3, "draw": 1, "kind": "final", "created_ms": 5})
    write_json(folder / "status.json", {"status": "FINISHED", "error": None} | status)
    write_json(folder / "final.json", {"test/gen/accuracy": 0.5, "test/cal/nll": None})
    return folder


def test_a_finished_run_is_read_whole(tmp_path):
    run = read_compared_run(make_run(tmp_path / "etf-s3-d1-final-00"))
    assert (run.arm, run.seed, run.draw, run.finished, run.why_not) == ("etf", 3, 1, True, "")
    assert run.final["test/gen/accuracy"] == 0.5
    assert math.isnan(run.final["test/cal/nll"])


def test_a_cut_last_line_costs_only_that_line(tmp_path):
    folder = make_run(tmp_path / "run")
    lines = [json.dumps({"step": step, "time_ms": 1, "values": {"train/loss": 1.0 / step}}) for step in (1, 2)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 3, "val')
    run = read_compared_run(folder)
    assert run.curves["train/loss"] == ((1, 1.0), (2, 0.5))
    assert run.notes == ()


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    folder = make_run(tmp_path / "run")
    (folder / "metrics.jsonl").write_text('nonsense\n{"step": 1, "values": {"a": 1, "b": null}}\n')
    run = read_compared_run(folder)
    assert run.curves["a"] == ((1, 1.0),)
    assert math.isnan(run.curves["b"][0][1])
    assert run.notes == ("metrics.jsonl line 1 cannot be read",)


def test_a_resumed_epoch_replaces_the_first_one(tmp_path):
    folder = make_run(tmp_path / "run")
    lines = [json.dumps({"step": step, "values": {"a": value}}) for step, value in ((1, 1.0), (2, 9.0), (2, 2.0))]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert read_compared_run(folder).curves["a"] == ((1, 1.0), (2, 2.0))


def test_a_folder_without_run_json_is_known_by_its_name(tmp_path):
    folder = tmp_path / "frozen-random_la-s4-d2-holdout-ab12cd34"
    folder.mkdir()
    run = read_compared_run(folder)
    assert (run.arm, run.seed, run.draw, run.kind) == ("frozen-random_la", 4, 2, "holdout")
    assert run.status == "UNKNOWN"
    assert "run.json is missing" in run.notes


def test_a_finished_run_without_its_values_is_no_result(tmp_path):
    folder = make_run(tmp_path / "run")
    (folder / "final.json").unlink()
    run = read_compared_run(folder)
    assert not run.finished
    assert "final values are missing" in run.why_not
    assert run.notes == ("final.json is missing",)


def test_a_failed_run_says_where_and_why(tmp_path):
    folder = make_run(tmp_path / "run", status="FAILED", error="loss is not\nfinite")
    (folder / "metrics.jsonl").write_text('{"step": 12, "values": {"a": 1}}\n')
    assert read_compared_run(folder).why_not == "FAILED after step 12: loss is not finite"


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", '{"classes": ["a"], "train_counts": [1, 2]}'])
def test_files_that_hold_something_else_are_named(tmp_path, text):
    folder = make_run(tmp_path / "run")
    (folder / "per_class.json").write_text(text)
    run = read_compared_run(folder)
    assert run.per_class is None
    assert run.notes
    assert all("per_class.json" in note for note in run.notes)


def test_all_runs_are_read_in_the_order_of_their_start(tmp_path):
    root = write_output(tmp_path, seeds=2, images=50, epochs=3)
    make_run(root / "runs" / ".etf-s3-d1-final-00.old.77")
    runs = read_compared_runs(root)
    assert not any(run.run_id.startswith(".") for run in runs)
    assert [run.created_ms for run in runs] == sorted(run.created_ms for run in runs)
    assert {run.status for run in runs} == {"FINISHED", "FAILED", "KILLED", "RUNNING"}


def test_a_folder_without_runs_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(FileNotFoundError, match="run a recipe first"):
        read_compared_runs(tmp_path)


def test_an_experiment_that_says_nothing_has_defaults(tmp_path):
    experiment = read_experiment(tmp_path)
    assert (experiment.name, experiment.arms, experiment.references) == (tmp_path.name, (), {})
    write_json(tmp_path / "experiment.json", {"references": {"a": "b"}, "protocol": "as agreed"})
    assert read_experiment(tmp_path).references == {"a": "b"}


@pytest.mark.parametrize("text", ["", "7", "[1]", "{}", '{"step": 1}', '{"step": null, "values": {}}', "\0\0"])
def test_a_line_that_is_no_line_of_metrics_costs_only_itself_and_is_named(tmp_path, text):
    folder = make_run(tmp_path / "run")
    (folder / "metrics.jsonl").write_text(
        f'{{"step": 1, "values": {{"a": 1}}}}\n{text}\n{{"step": 3, "values": {{"a": 3}}}}\n'
    )
    run = read_compared_run(folder)
    assert run.curves["a"] == ((1, 1.0), (3, 3.0))
    assert run.notes == ("metrics.jsonl line 2 cannot be read",)


def test_a_field_that_holds_something_else_is_named_and_the_run_kept(tmp_path):
    folder = make_run(tmp_path / "etf-s3-d1-holdout-00")
    write_json(folder / "run.json", {"arm": "etf", "seed": "three", "kind": "final", "config": None, "data": [1]})
    write_json(folder / "final.json", {"test/gen/accuracy": 0.5, "note": "good"})
    run = read_compared_run(folder)
    assert (run.arm, run.seed, run.draw, run.kind, run.finished) == ("etf", 3, 1, "final", True)
    assert (run.config, run.data, dict(run.final)) == ({}, {}, {"test/gen/accuracy": 0.5})
    assert run.notes == (
        "run.json holds no usable 'seed'",
        "run.json holds no usable 'data'",
        "final.json holds no number for 'note'",
    )


def test_every_folder_is_listed_however_little_is_in_it(tmp_path):
    make_run(tmp_path / "runs" / "etf-s3-d1-final-00")
    (tmp_path / "runs" / "empty").mkdir()
    (tmp_path / "runs" / "notes.txt").write_text("no run")
    listed = {run.run_id: run for run in read_compared_runs(tmp_path)}
    assert listed.keys() == {"empty", "etf-s3-d1-final-00"}
    assert listed["empty"].why_not == "UNKNOWN"
    assert listed["empty"].notes == ("run.json is missing", "status.json is missing")
