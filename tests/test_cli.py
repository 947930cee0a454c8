"""The command nc-tools: its help, its subcommands on a finished output folder, and its messages on wrong input."""

import argparse
import json
import shutil
import subprocess
import sys

import pytest
from support.recipe_commands import ENVIRONMENT, RECIPES, arms_of, smoke
from support.runs_here import sync_here

from nc_tools.cli import main, parser


@pytest.fixture
def out(tmp_path_factory):
    return smoke(RECIPES[0], tmp_path_factory)[0]  # not a copy: MLflow's store contains the path of its folder


def test_help_needs_no_heavy_import():
    code = (
        "import sys\nfrom nc_tools.cli import parser\nparser().format_help()\n"
        "print([m for m in ('torch', 'mlflow', 'numpy', 'sklearn', 'rich', 'matplotlib') if m in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert process.stdout == "[]\n"


def subparsers() -> dict[str, argparse.ArgumentParser]:
    (action,) = [item for item in parser()._actions if isinstance(item, argparse._SubParsersAction)]
    return action.choices


def test_help_lists_the_commands(capsys):
    names = "choose compare data export gain measure predict suspects sync ui"
    assert set(subparsers()) == set(names.split())
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    output = capsys.readouterr().out
    assert all(f"    {name} " in output for name in subparsers())


@pytest.mark.parametrize("name", ["choose", "compare", "measure", "sync"])
def test_every_option_has_a_help_text(name):
    assert subparsers()[name].description
    assert [action.dest for action in subparsers()[name]._actions if not action.help] == []


def test_an_unknown_command_is_an_error(capsys):
    with pytest.raises(SystemExit) as end:
        main(["compar"])
    assert end.value.code == 2
    assert "invalid choice: 'compar'" in capsys.readouterr().err


def test_ctrl_c_is_no_traceback(monkeypatch, capsys):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("nc_tools.experiment.data_command.run_data", stopped)
    with pytest.raises(SystemExit) as end:
        main(["data", "photos"])
    assert (end.value.code, capsys.readouterr().err) == (130, "\nStopped.\n")


def test_a_mean_that_is_not_numbers_is_an_error(capsys):
    with pytest.raises(SystemExit) as end:
        main(["measure", "--model", "m", "--mean", "0.5,x"])
    assert end.value.code == 2
    assert "argument --mean: must be numbers such as 0.5,0.4,0.4, got '0.5,x'" in capsys.readouterr().err


@pytest.mark.slow
def test_compare_prints_the_table_and_writes_the_report_again(out, capsys):
    shutil.rmtree(out / "report")
    with sync_here():
        main(["compare", str(out)])
    output = capsys.readouterr()
    assert "bal. acc" in output.out
    assert output.err == ""
    assert all((out / "report" / f"comparison.{ending}").exists() for ending in ("html", "md", "csv", "json"))
    assert output.out.rstrip().splitlines()[-2].startswith("Report: file://")


@pytest.mark.slow
def test_a_full_disk_is_reported_and_leaves_the_old_report(out, tmp_path):
    resource = pytest.importorskip("resource")
    shutil.copytree(out, tmp_path / "out")
    report = tmp_path / "out" / "report"
    before = {path.name: path.read_bytes() for path in report.iterdir()}
    ended = subprocess.run(
        [sys.executable, "-c", "from nc_tools.cli import main; main()", "compare", str(tmp_path / "out")],
        env={**ENVIRONMENT, "PYTHONDONTWRITEBYTECODE": "1"},  # no cut bytecode
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000)),
    )
    assert ended.returncode == 2
    message = ended.stderr.splitlines()[-1]
    assert message.startswith("error: cannot write to disk: [Errno 27] File too large")
    assert message.endswith("Free disk space and rerun the same command.")
    assert "Traceback" not in ended.stderr
    assert {path.name: path.read_bytes() for path in report.iterdir()} == before


@pytest.mark.slow
def test_compare_takes_another_baseline(out, capsys):
    baseline = arms_of(RECIPES[0])[-1]
    with sync_here():
        main(["compare", str(out), "--baseline", baseline])
    assert f"significantly worse than {baseline}" in " ".join(capsys.readouterr().out.split())
    assert json.loads((out / "experiment.json").read_text())["baseline"] != baseline


@pytest.mark.slow
def test_sync_of_a_finished_folder_has_nothing_left_to_send(out, capsys):
    main(["sync", str(out)])
    output = capsys.readouterr().out
    assert output.splitlines()[0].endswith("0 not yet uploaded")
    assert "Report: file://" in output


def error_message(argv, capsys):
    """Run a command that must fail, and return its one line on standard error."""
    with pytest.raises(SystemExit) as end:
        main(argv)
    message = capsys.readouterr().err
    assert end.value.code == 2
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    return message


@pytest.mark.slow
def test_a_baseline_that_does_not_exist_is_an_error_with_a_suggestion(out, capsys):
    arm = arms_of(RECIPES[0])[0]
    assert arm in error_message(["compare", str(out), "--baseline", arm[:-1]], capsys)


@pytest.mark.parametrize("command", ["compare", "sync"])
def test_a_folder_without_runs_is_an_error_and_stays_empty(command, tmp_path, capsys):
    assert str(tmp_path) in error_message([command, str(tmp_path)], capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["compare", "sync"])
def test_a_folder_that_does_not_exist_is_not_created(command, tmp_path, capsys):
    assert "nowhere" in error_message([command, str(tmp_path / "nowhere")], capsys)
    assert not (tmp_path / "nowhere").exists()
