"""Reading records back, also damaged ones."""

import pytest
from support.run_records import identity

from nc_tools._support.damaged_file import DamagedFileError
from nc_tools.run_records import RunRecord, read_run, read_runs, recover_run, scan
from nc_tools.run_records.json_files import MAX_DEPTH, read_json


def test_a_broken_folder_is_named_in_a_warning_and_the_others_are_read(tmp_path):
    good = RunRecord.create(tmp_path, identity())
    bad = RunRecord.create(tmp_path, identity(seed=1))
    (bad.path / "run.json").write_text("{")
    with pytest.warns(UserWarning, match=bad.path.name):
        assert [run.path for run in read_runs(tmp_path)] == [good.path]
    assert list(scan(tmp_path).broken) == [bad.path.name]
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        read_runs(tmp_path / "nowhere")


def test_kinds_are_kept_apart(tmp_path):
    RunRecord.create(tmp_path, identity())
    RunRecord.create(tmp_path, identity(kind="tuning"))
    assert [run.identity.kind for run in read_runs(tmp_path)] == ["final"]
    assert {run.identity.kind for run in read_runs(tmp_path, ("tuning", "final"))} == {"final", "tuning"}


def test_a_run_read_twice_while_it_is_written_never_shows_half_a_line(tmp_path):
    run = RunRecord.create(tmp_path, identity())
    run.log(1, {"a": 1})
    with (run.path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step":2,"time_ms":0,"values":{"a":2}}')
        file.flush()
        assert read_run(run.path).curves() == {"a": [(1, 1.0)]}
        file.write(b"\n")
    assert read_run(run.path).curves() == {"a": [(1, 1.0), (2, 2.0)]}


def test_both_readers_agree_on_a_valid_record(tmp_path):
    with RunRecord.create(tmp_path, identity(draw=2, data={"name": "digits"})) as run:
        run.log(1, {"train/loss": 0.5})
        run.finish({"test/gen/accuracy": 0.9})
    stored, recovered = read_run(run.path), recover_run(run.path)
    assert recovered.identity == {key: getattr(run.identity, key) or "" for key in recovered.identity} | {
        "draw": 2,
        "seed": 0,
        "frame_seed": None,
        "about": {},
    }
    assert (recovered.status, recovered.error, recovered.final) == (stored.status, "", stored.final)
    assert recovered.curves == stored.curves() == {"train/loss": [(1, 0.5)]}
    assert recovered.problems == ()


def test_the_name_of_the_folder_identifies_a_run_without_run_json(tmp_path):
    run = RunRecord.create(tmp_path, identity(arm="etf-la", seed=4, draw=2, kind="holdout"))
    (run.path / "run.json").write_text("{")
    recovered = recover_run(run.path)
    assert [recovered.identity[key] for key in ("arm", "seed", "draw", "kind")] == ["etf-la", 4, 2, "holdout"]
    assert recovered.problems == ("run.json does not hold a JSON object",)


@pytest.mark.parametrize("text", ["", "no json", "[]", '{"step":2}', '{"step":2,"values":{"a":"high"}}'])
def test_a_damaged_line_is_an_error_for_one_reader_and_a_problem_for_the_other(tmp_path, text):
    run = RunRecord.create(tmp_path, identity())
    run.log(1, {"a": 1})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write(f"{text}\n")
    run.log(3, {"a": 3})
    with pytest.raises(ValueError, match=r"metrics\.jsonl is damaged in line 2 after byte 0: .* Make that run again"):
        read_run(run.path).curves()
    assert recover_run(run.path).curves == {"a": [(1, 1.0), (3, 3.0)]}
    assert recover_run(run.path).problems == ("metrics.jsonl line 2 cannot be read",)


def test_the_later_value_of_a_step_counts_and_steps_are_in_order(tmp_path):
    run = RunRecord.create(tmp_path, identity())
    for step, value in ((1, 1.0), (3, 9.0), (2, 2.0), (3, 3.0)):
        run.log(step, {"a": value})
    assert run.read().curves() == recover_run(run.path).curves == {"a": [(1, 1.0), (2, 2.0), (3, 3.0)]}


def test_a_final_value_that_is_not_a_number_makes_the_record_broken(tmp_path):
    run = RunRecord.create(tmp_path, identity())
    run.finish({"a": 1})
    (run.path / "final.json").write_text('{"a": 1, "b": "high"}')
    with pytest.raises(ValueError, match="must be a number or null, got 'high'"):
        read_run(run.path)
    assert recover_run(run.path).final == {"a": 1.0}
    assert recover_run(run.path).problems == ("final.json holds no number for 'b'",)


@pytest.mark.parametrize("inner", ["1", ""])
@pytest.mark.parametrize("more", [-2, -1, 0, 1])
def test_a_file_is_refused_from_the_first_level_that_is_too_deep(tmp_path, inner, more):
    lists = MAX_DEPTH + more  # one of them is the object, and a number inside is a level too
    file = tmp_path / "file.json"
    file.write_text('{"a": ' + "[" * (lists - 1) + inner + "]" * (lists - 1) + "}")
    if lists + (inner != "") > MAX_DEPTH:
        with pytest.raises(DamagedFileError, match=f"nests deeper than {MAX_DEPTH} levels"):
            read_json(file)
    else:
        assert list(read_json(file)) == ["a"]


@pytest.mark.parametrize("text", ['"\\ud800"', '["\\ude00 x"]', '{"b\\ud83d": 1}'])
def test_half_of_a_surrogate_pair_is_refused_at_any_place(tmp_path, text):
    (tmp_path / "file.json").write_text(f'{{"a": {text}}}')
    with pytest.raises(DamagedFileError, match="surrogates not allowed"):
        read_json(tmp_path / "file.json")
