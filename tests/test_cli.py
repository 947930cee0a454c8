"""The command nc-tools on a finished folder and on wrong ones."""

import json
import shutil
import subprocess
import sys
import time

import pytest
from support.recipe_commands import ENVIRONMENT, RECIPES, arms_of, smoke

from nc_tools.cli import main, parser


@pytest.fixture
def out(tmp_path_factory):
    return smoke(RECIPES[0], tmp_path_factory)[0]  # in its place: a store does not follow a folder that is moved


def test_help_needs_no_heavy_import():
    code = (
        "import sys\nfrom nc_tools.cli import parser\nparser().format_help()\n"
        "print([m for m in ('torch', 'mlflow', 'numpy', 'sklearn', 'rich', 'matplotlib') if m in sys.modules])"
    )
    started = time.process_time()
    told = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"
    assert time.process_time() - started < 1.0


def test_the_commands_are_these():
    shown = parser().format_help()
    assert "compare" in shown
    assert "sync" in shown
    with pytest.raises(SystemExit) as end:
        main(["compar"])
    assert end.value.code == 2


def test_compare_prints_the_table_and_writes_the_report_anew(out, capsys):
    shutil.rmtree(out / "report")
    main(["compare", str(out)])
    shown = capsys.readouterr()
    assert "bal. acc" in shown.out
    assert shown.err == ""
    assert all((out / "report" / f"comparison.{ending}").exists() for ending in ("html", "md", "csv", "json"))
    assert shown.out.rstrip().splitlines()[-3].startswith("Report: file://")


def test_a_report_for_which_there_is_no_room_leaves_the_old_one(out, tmp_path):
    resource = pytest.importorskip("resource")
    shutil.copytree(out, tmp_path / "out")
    report = tmp_path / "out" / "report"
    before = {path.name: path.read_bytes() for path in report.iterdir()}
    ended = subprocess.run(
        [sys.executable, "-c", "from nc_tools.cli import main; main()", "compare", str(tmp_path / "out")],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000)),
    )
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("error: [Errno 27] File too large: make room and give the same")
    assert "Traceback" not in ended.stderr
    assert {path.name: path.read_bytes() for path in report.iterdir()} == before


def test_compare_takes_another_baseline(out, capsys):
    baseline = arms_of(RECIPES[0])[-1]
    main(["compare", str(out), "--baseline", baseline])
    assert f"tuned baseline {baseline}" in " ".join(capsys.readouterr().out.split())
    assert json.loads((out / "experiment.json").read_text())["baseline"] != baseline


def test_sync_of_a_finished_folder_has_nothing_left_to_send(out, capsys):
    main(["sync", str(out)])
    first = capsys.readouterr().out
    assert first.splitlines()[0].endswith("0 pending")
    assert "Report: file://" in first


def refused(argv, capsys):
    with pytest.raises(SystemExit) as end:
        main(argv)
    shown = capsys.readouterr()
    assert end.value.code == 2
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    return shown.err


def test_a_baseline_that_does_not_exist_is_told(out, capsys):
    known = arms_of(RECIPES[0])[0]
    told = refused(["compare", str(out), "--baseline", known[:-1]], capsys)
    assert known in told


@pytest.mark.parametrize("command", ["compare", "sync"])
def test_a_folder_without_runs_is_told_and_left_alone(command, tmp_path, capsys):
    told = refused([command, str(tmp_path)], capsys)
    assert str(tmp_path) in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["compare", "sync"])
def test_a_folder_that_is_not_there_is_not_made(command, tmp_path, capsys):
    refused([command, str(tmp_path / "nowhere")], capsys)
    assert not (tmp_path / "nowhere").exists()
