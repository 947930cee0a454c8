"""Arms of several output folders in one comparison: what is the same, what is refused, what is cautioned about."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from rich.console import Console
from support.comparison_records import write_output

from nc_tools.cli import main
from nc_tools.comparison import compare
from nc_tools.comparison.compare_command import CompareOptions, run_compare
from nc_tools.run_records import RunIdentity, RunRecord

pytestmark = pytest.mark.slow

KEY = "test/gen/balanced_accuracy"
LINEAR, ETF = [0.70, 0.71, 0.69, 0.705], [0.73, 0.75, 0.72, 0.738]


def record(root, arm, values, *, seeds=None, lr=0.1, data="photos", images="same"):
    for seed, value in zip(seeds or range(len(values)), values, strict=True):
        about = {"name": data, "fingerprint": f"{images}-{seed}"} if data else {}
        identity = RunIdentity("loop", arm, seed, config={"optim": {"lr": lr}}, data=about, frame_seed=seed)
        with RunRecord.create(root, identity) as run:
            run.finish({KEY: value})


def plan(root, **changes):
    values = {"name": root.name, "question": "Which?", "baseline": "linear", "arms": ["linear"], "primary": KEY}
    root.mkdir(exist_ok=True)
    (root / "experiment.json").write_text(json.dumps({**values, **changes}))


def cautions(comparison, kind):
    return [caution.text for caution in comparison.cautions if caution.kind == kind]


def test_arms_of_two_folders_are_paired_as_in_one(tmp_path):
    record(tmp_path / "first", "linear", LINEAR)
    record(tmp_path / "second", "etf", ETF)
    record(tmp_path / "one", "linear", LINEAR)
    record(tmp_path / "one", "etf", ETF)
    both, one = compare([tmp_path / "first", tmp_path / "second"]), compare(tmp_path / "one")
    assert both.test("etf").paired == one.test("etf").paired
    assert both.baseline == "linear"
    assert both.experiment.name == "first + second"
    assert not both.cautions
    assert {run.run_id.partition("/")[0] for run in both.runs} == {"first", "second"}


def test_the_seeds_of_an_arm_with_equal_settings_are_joined(tmp_path):
    for part, seeds in (("first", (0, 1)), ("second", (2, 3))):
        record(tmp_path / part, "linear", [LINEAR[seed] for seed in seeds], seeds=seeds)
        record(tmp_path / part, "etf", [ETF[seed] for seed in seeds], seeds=seeds)
    comparison = compare([tmp_path / "first", tmp_path / "second"])
    assert comparison.arms == ("linear", "etf")
    assert comparison.test("etf").seeds == (0, 1, 2, 3)


@pytest.mark.parametrize("changes", [{"lr": 0.01}, {"data": "other"}, {"images": "changed"}], ids=str)
def test_an_arm_with_other_settings_or_data_is_an_arm_of_its_own(tmp_path, changes):
    record(tmp_path / "first", "linear", LINEAR)
    record(tmp_path / "first", "etf", ETF)
    record(tmp_path / "second", "linear", LINEAR, **changes)
    comparison = compare([tmp_path / "first", tmp_path / "second"])
    assert comparison.arms == ("linear (first)", "etf", "linear (second)")
    assert comparison.baseline == "linear (first)"
    unpaired = {caution.arm for caution in comparison.cautions if caution.kind == "not paired"}
    assert unpaired == ({"linear (second)"} if "images" in changes else set())
    with pytest.raises(ValueError, match=r"got 'linear': did you mean linear \(first\) or linear \(second\)"):
        compare([tmp_path / "first", tmp_path / "second"], baseline="linear")


def test_three_folders_with_one_name_are_told_apart_by_the_folders_above(tmp_path):
    for number, lr in enumerate((0.1, 0.01, 0.1)):
        record(tmp_path / f"day-{number}" / "out", "linear", LINEAR, lr=lr)
    comparison = compare([tmp_path / f"day-{number}" / "out" for number in range(3)])
    assert comparison.arms == ("linear (day-0/out, day-2/out)", "linear (day-1/out)")


def test_a_folder_given_twice_is_one_folder(tmp_path):
    record(tmp_path, "linear", LINEAR)
    record(tmp_path, "etf", ETF)
    comparison = compare([tmp_path, str(tmp_path / "." / "")])
    assert (comparison.arms, comparison.notes) == (("linear", "etf"), ())


def test_single_runs_are_compared_by_their_folders(tmp_path):
    record(tmp_path, "linear", LINEAR)
    record(tmp_path, "etf", ETF)
    folders = [folder for folder in (tmp_path / "runs").iterdir() if folder.name[:5] in ("linea", "etf-s")]
    chosen = [folder for folder in folders if "-s3-" not in folder.name]
    assert compare(chosen).test("etf").seeds == (0, 1, 2)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            {"primary": KEY},
            {"primary": "test/gen/accuracy"},
            r"different metrics \(first: test/gen/balanced_accuracy, second: test/gen/acc",
        ),
        (
            {"protocol": {}},
            {"protocol": {"test_per_train": 0.25}},
            r"do not all split the images anew for each seed \(first: 0.0, second: 0.25\)",
        ),
    ],
)
def test_folders_with_different_metrics_or_splits_are_refused(tmp_path, first, second, message):
    for name, settings in (("first", first), ("second", second)):
        record(tmp_path / name, "linear", LINEAR)
        plan(tmp_path / name, **settings)
    with pytest.raises(ValueError, match=message):
        compare([tmp_path / "first", tmp_path / "second"])


def test_other_rules_other_tuning_and_unnamed_data_are_cautions(tmp_path):
    record(tmp_path / "first", "linear", LINEAR)
    record(tmp_path / "second", "etf", ETF)
    record(tmp_path / "own", "mine", ETF, data="")
    plan(tmp_path / "first", protocol={"seeds": [0, 1], "rates": [0.1, 0.2], "margin": 0.01})
    plan(tmp_path / "second", arms=["etf"], protocol={"seeds": [2], "rates": [0.1], "margin": 0.01}, smoke=True)
    trials = [{"arm": "linear", "lr": lr, "score": 0.5} for lr in (0.1, 0.2)]
    (tmp_path / "first" / "tuning.json").write_text(json.dumps({"trials": trials}))
    (tmp_path / "second" / "tuning.json").write_text(json.dumps({"trials": [{**trials[0], "arm": "etf"}]}))
    comparison = compare([tmp_path / "first", tmp_path / "second", tmp_path / "own"])
    rules, tuning, data = cautions(comparison, "folders")
    assert "(rates: [0.1, 0.2] in first, [0.1] in second)" in rules
    assert "first, second were tuned by recorded trials, and own has no record of any" in tuning
    assert "runs in own (seed 0-3) do not say which data" in data
    assert "arms have different numbers of tuning trials (linear 2, etf 1)" in cautions(comparison, "tuning")
    assert comparison.experiment.margin == 0.01
    assert comparison.family.withheld  # numbers of a smoke run mean nothing, wherever they are
    assert comparison.experiment.question == "Which?"


def test_arms_with_other_images_at_every_seed_are_refused(tmp_path):
    record(tmp_path / "first", "linear", LINEAR)
    record(tmp_path / "second", "etf", ETF, images="changed")
    with pytest.raises(ValueError, match="every arm was trained on other images than the baseline 'linear'"):
        compare([tmp_path / "first", tmp_path / "second"])


def test_trials_of_an_arm_that_is_tuned_anew_for_each_seed_are_joined(tmp_path):
    for name, seeds in (("first", (0, 1)), ("second", (2, 3))):
        for arm, values in (("linear", LINEAR), ("etf", ETF)):
            for seed in seeds:
                record(tmp_path / name, arm, [values[seed]], seeds=[seed], lr=0.1 + seed)
        trials = [{"arm": arm, "seed": seed, "lr": 0.1, "score": 0.5} for arm in ("linear", "etf") for seed in seeds]
        plan(tmp_path / name, arms=["linear", "etf"], protocol={"tune_each_seed": True, "seeds": list(seeds)})
        (tmp_path / name / "tuning.json").write_text(json.dumps({"trials": trials}))
    comparison = compare([tmp_path / "first", tmp_path / "second"])
    assert comparison.test("etf").seeds == (0, 1, 2, 3)
    assert len(comparison.experiment.trials) == 8
    assert not comparison.cautions


@pytest.mark.parametrize(
    ("sources", "sentence"),
    [
        (["nowhere"], "no runs to compare: 'nowhere' has no folder runs/"),
        (["mlflow:digits"], "mlflow:digits needs the address of MLflow: give --tracking-uri ADDRESS, or set MLFLOW_"),
        (["mlflow:digits", "--tracking-uri", "sqlite:///none.db"], "there is no MLflow store"),
        (["out", "--filter", "x = 1"], "got the filter 'x = 1' and no such experiment"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_bad_source_is_one_sentence(tmp_path, monkeypatch, capsys, sources, sentence):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(SystemExit) as end:
        main(["compare", *sources])
    message = capsys.readouterr().err
    assert (end.value.code, message.count("\n")) == (2, 1)
    assert sentence in message


def test_the_report_of_two_folders_is_written_beside_neither(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_output(tmp_path / "first", images=50, epochs=2, seeds=2, arms=("linear", "linear_la"), broken=False)
    write_output(tmp_path / "second", images=50, epochs=2, seeds=2, arms=("linear", "cosine_la"), broken=False)
    main(["compare", "first", "second"])
    printed = capsys.readouterr().out
    assert "nc-tools compare first second --baseline" in printed
    assert printed.splitlines()[-1].endswith("/outputs/compare/report/comparison.html")
    assert not [name for name in ("first", "second") if (tmp_path / name / "report").exists()]
    assert "first/linear-s0" in (tmp_path / "outputs/compare/report/comparison.html").read_text()
    main(["compare", "first", "--out", "elsewhere"])
    assert (tmp_path / "elsewhere/report/comparison.json").exists()
    assert not (tmp_path / "first" / "report").exists()


def test_the_command_that_is_printed_holds_no_password():
    def command(uri, *sources):
        return CompareOptions(sources=sources, tracking_uri=uri, filter_string="a = 1").command

    assert command("http://ann:secret@host", "mlflow:x") == "nc-tools compare mlflow:x --filter 'a = 1'"
    assert command("http://host", "mlflow:x").endswith("--tracking-uri http://host")
    assert "host" not in command("http://host", "a", "b")


def test_watching_shows_the_table_again_when_a_run_has_ended_and_ends_with_ctrl_c(tmp_path):
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-m", "nc_tools.cli", "compare", "out", "--watch"]
    watching = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    lines = iter(watching.stdout.readline, "")
    try:
        assert "Nothing to compare yet: a comparison needs finished runs" in next(lines)
        assert "0 of 0 runs finished" in next(lines)
        record(tmp_path / "out", "linear", LINEAR[:2])
        record(tmp_path / "out", "etf", ETF[:2])
        assert any("4 of 4 runs finished. Ctrl-C ends." in line for line in lines)
        table = []
        record(tmp_path / "out", "etf", ETF[2:3], seeds=[2])
        for line in lines:
            table.append(line)
            if "5 of 5 runs finished" in line:
                break
        assert any("etf" in line.split() for line in table)
        time.sleep(0.1)
        os.killpg(watching.pid, signal.SIGINT)
        rest, errors = watching.communicate(timeout=60)
    finally:
        watching.kill()
    assert watching.returncode == 0
    assert errors == ""
    assert rest.strip().startswith("Report: file://")


def test_watching_a_folder_that_does_not_exist_is_an_error_at_once(tmp_path):
    with pytest.raises(FileNotFoundError, match="no runs to compare"):
        run_compare(CompareOptions(sources=[str(tmp_path / "typo")], watch=True), Console(file=io.StringIO()))
