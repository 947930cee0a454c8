"""Every recipe through its real command line, and every wrong command line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.recipe_commands import ENVIRONMENT, RECIPES, arms_of, command, recipe_module, run_in_process, smoke

from nc_tools.experiment.recipe_cli import recipe_parser, run_recipe
from nc_tools.run_records import scan

LONG_TAIL = next(path for path in RECIPES if path.stem == "long_tail")
FLAGS = [
    *("--data", "--labels", "--clean", "--corrections", "--noise", "--image-size", "--imbalance", "--resplit"),
    *("--transfer-data", "--test-table", "--skip-unreadable", "--skip-missing", "--drop-duplicates"),
    *("--arms", "--model", "--weights", "--train", "--epochs", "--seeds", "--set"),
    *(
        "--out",
        "--name",
        "--device",
        "--workers",
        "--pack",
        "--cluster",
        "--gpus-per-task",
        "--resume",
        "--tracking-uri",
        "--smoke",
        "--plan",
        "--print-config",
        "--config",
    ),
]


@pytest.fixture(params=RECIPES, ids=lambda path: path.stem)
def finished(request, tmp_path_factory):
    """A recipe, its smoke run's output folder, and what the run printed."""
    return (request.param, *smoke(request.param, tmp_path_factory))


@pytest.mark.slow
def test_a_smoke_run_prints_the_table_and_says_what_to_do_next(finished):
    path, out, shown = finished
    arms = arms_of(path)
    table = next(i for i, line in enumerate(shown) if "bal. acc" in line)
    rows = [line.lstrip("▲▼ ").split()[0] for line in shown[table + 2 : table + 2 + len(arms)]]
    assert rows == arms
    report = f"Report: {(out / 'report' / 'comparison.html').as_uri()}"
    assert shown[-2:] == [report, f"MLflow: nc-tools ui {out}"]


@pytest.mark.slow
def test_a_smoke_run_leaves_report_and_records(finished):
    path, out, _ = finished
    for ending in ("html", "md", "csv", "json"):
        assert (out / "report" / f"comparison.{ending}").stat().st_size > 200
    runs = scan(out).runs
    assert {r.status for r in runs} == {"FINISHED"}
    experiment = json.loads((out / "experiment.json").read_text())
    assert experiment["arms"] == arms_of(path)
    assert {r["run_id"] for r in experiment["runs"]} == {r.path.name for r in runs if r.identity.kind == "final"}
    assert not [p for p in out.rglob("*") if p.name.endswith(".part") or p.name == "checkpoint.pt"]


@pytest.mark.slow
def test_a_smoke_run_is_in_mlflow(finished):
    from mlflow import MlflowClient

    _, out, _ = finished
    client = MlflowClient(tracking_uri=f"sqlite:///{out / 'mlflow.db'}")
    experiments = [e for e in client.search_experiments() if e.name != "Default"]
    shown = client.search_runs([e.experiment_id for e in experiments], max_results=1000)
    assert {run.info.status for run in shown} == {"FINISHED"}
    names = [run.info.run_name for run in shown]
    final = [r for r in scan(out).runs if r.identity.kind == "final"]
    for stored in final:
        run = shown[names.index(stored.identity.label)]
        key = "test/gen/balanced_accuracy"
        assert run.data.metrics[key] == pytest.approx(stored.final[key])
        assert len(client.get_metric_history(run.info.run_id, "train/loss")) == len(stored.curves()["train/loss"])
        assert float(run.data.params["optim.lr"]) == stored.identity.config["optim"]["lr"]
        assert any(stored.identity.arm == value for value in run.data.tags.values())
        files = {f.path for f in client.list_artifacts(run.info.run_id)}
        assert {"predictions.safetensors", "weights.safetensors"} <= {Path(f).name for f in files} | {
            Path(f.path).name for folder in files for f in client.list_artifacts(run.info.run_id, folder)
        }


@pytest.mark.slow
def test_ctrl_c_ends_a_recipe_with_130_and_everything_kept(tmp_path, tmp_path_factory):
    out = tmp_path / "out"
    out.mkdir()
    from support.mlflow_store import fresh_store

    fresh_store(out / "mlflow.db", tmp_path_factory)
    process = subprocess.Popen(
        [*command(LONG_TAIL, out), "--epochs", "300"],
        env=ENVIRONMENT,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        for _ in range(2400):
            if list(out.glob("runs/*/metrics.jsonl")) or process.poll() is not None:
                break
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to parent and workers alike
        printed, errors = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == 130, errors
    assert errors == ""
    assert f"Stopped. Finished runs are kept in {out}. To continue, give the same command with --resume." in printed
    runs = scan(out).runs
    assert {r.status for r in runs} == {"KILLED"}
    assert len(runs) > 1  # a pack
    assert all((r.path / "checkpoint.pt").exists() for r in runs)


def test_the_flags_are_these():
    parser = recipe_parser("x", "Why?", ["a"])
    assert [name for action in parser._actions for name in action.option_strings] == ["-h", "--help", *FLAGS]
    assert all(action.help for action in parser._actions)


def in_process(argv, path=LONG_TAIL):
    module = recipe_module(path)
    run_in_process(
        module.ARMS, name=path.stem, question=module.__doc__, protocol=module.PROTOCOL, default_arms=module.DEFAULT,
        argv=argv,
    )  # fmt: skip


def test_print_config_is_json_and_starts_nothing(tmp_path, capsys):
    out = tmp_path / "out"
    in_process(["--print-config", "--out", str(out), "--set", "model.width=3", "--set", "protocol.draws=1",
                "--seeds", "0-2", "--arms", "etf,linear", "--epochs", "7"])  # fmt: skip
    config = json.loads(capsys.readouterr().out)
    assert list(config["arms"]) == ["etf", "linear"]
    assert {arm["model"]["width"] for arm in config["arms"].values()} == {3}
    assert {arm["training"]["epochs"] for arm in config["arms"].values()} == {7}
    assert config["protocol"]["seeds"] == [0, 1, 2]
    assert config["protocol"]["draws"] == 1
    assert not out.exists()


def test_an_argument_of_a_head_is_set_where_a_head_has_it(capsys):
    in_process(["--print-config", "--set", "head.scale=5.0"])
    arms = json.loads(capsys.readouterr().out)["arms"]
    having = {arm for arm, config in arms.items() if config["head"]["arguments"].get("scale") == 5.0}
    assert having == {"cosine_la", "etf", "etf_la", "etf_dr", "random_la"}


def test_another_data_set_brings_back_all_its_classes(capsys):
    in_process(["--print-config", "--data", "cifar10:somewhere", "--imbalance", "100"])
    data = json.loads(capsys.readouterr().out)["arms"]["linear"]["data"]
    assert (data["source"], data["held_out_classes"], data["imbalance"]) == ("cifar10:somewhere", 0, 100)


@pytest.fixture
def pictures(tmp_path):
    """A folder of 2 x 6 images with a CSV of labels."""
    rows = ["path,label"]
    for split, count in (("train", 4), ("test", 2)):
        for name in ("cat", "dog"):
            (tmp_path / "pictures" / split / name).mkdir(parents=True)
            for i in range(count):
                path = Path(split) / name / f"{i}.png"
                Image.new("RGB", (8, 8), (40 * i, 9, 9 if name == "cat" else 200)).save(tmp_path / "pictures" / path)
                rows.append(f"{path},{name}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    return tmp_path / "pictures"


WRONG = {
    "arm": (["--arms", "linear,eft"], "there is no arm 'eft'; did you mean 'etf'"),
    "field": (["--set", "optm.lr=1"], "there is no field 'optm' in RunConfig; did you mean 'optim'?"),
    "inner field": (["--set", "training.epoch=1"], "did you mean 'epochs'?"),
    "protocol field": (["--set", "protocol.draw=1"], "did you mean 'draws'?"),
    "head argument": (["--set", "head.scal=1"], "no arm's head has an argument 'scal'; did you mean 'scale'?"),
    "setting": (["--set", "optim.lr"], "a setting must read a.b=value"),
    "kind of value": (["--set", "optim.weight_decay=much"], "weight_decay must be float, got 'much'"),
    "value": (["--set", "head.scale=-1"], "arm cosine_la: scale must be positive and finite, got -1"),
    "tuned rate": (["--set", "optim.lr=0.1"], "--set protocol.rates=0.1"),
    "primary": (["--set", "protocol.primary=test/gen/balanced"], "did you mean 'test/gen/balanced_accuracy'"),
    "text for a loss": (["--set", "loss.tau=much"], "tau must be float, got 'much'"),
    "nan for a loss": (["--set", "loss.tau=nan"], "tau must be float, got 'nan'"),
    "text for a head": (["--set", "head.scale=much"], "scale must be"),
    "optimizer": (["--set", "optim.optimizer.momentum=x"], "momentum must be float, got 'x'"),
    "optimizer's own": (["--set", "optim.optimizer.momentum=-1"], "arm linear: Invalid momentum value: -1"),
    "class": (["--set", "head=ETFHead"], "as in head.ARGUMENT=VALUE"),
    "below nothing": (["--set", "data.noise.rate=0.3"], "noise is None, so it has no 'rate'"),
    "views": (["--set", "data.views=4"], "data.views=4 is for runs on fixed features"),
    "record": (["--set", "data.noise=SymmetricNoise(rte=0.3)"], "SymmetricNoise has no argument 'rte'; did you mean"),
    "empty record": (["--set", "data.noise=SymmetricNoise()"], "SymmetricNoise needs rate, got"),
    "text in a record": (["--set", "data.noise=SymmetricNoise('a')"], "rate must be float, got 'a'"),
    "half a pixel": (["--set", "data.cutout=Cutout(1.5)"], "size must be int, got 1.5"),
    "deep": (["--set", "data.class_counts=" + "[" * 300], "class_counts must be tuple[int, ...] or None, got"),
    "data set": (["--data", "digit"], "did you mean 'digits'?"),
    "model": (["--model", "resnet3"], "there is no model 'resnet3'; did you mean"),
    "model to print": (["--model", "timm:resnet3", "--print-config"], "timm has no model 'resnet3'; did you mean"),
    "pretrained": (
        ["--set", "model.pretrained=true"],
        "in ModelConfig; write --weights pretrained",
    ),
    "weights without a library": (
        ["--model", "resnet18", "--weights", "pretrained"],
        "must be timm:NAME",
    ),
    "no weights": (["--model", "timm:resnet10t", "--weights", "none.safetensors"], "none.safetensors does not exist"),
    "part": (["--model", "timm:resnet10t", "--train", "head"], "has random weights: give model.weights"),
    "other part": (["--model", "timm:resnet10t", "--weights", "w", "--train", "some"], "must be head, last:N"),
    "imbalance": (["--imbalance", "0.01"], "did you mean 100?"),
    "narrow": (["--set", "model.width=1", "--arms", "linear,etf"], "arm etf: a simplex ETF of 7 classes needs"),
    "seeds": (["--seeds", "4-0"], "--seeds must read like 0-4 or 0,2,5, got '4-0'"),
    "tuned seeds": (["--seeds", "1000"], "must share no seed, got [1000] in both"),
    "workers": (["--workers", "0"], "--workers must be at least 1, got 0"),
    "pack": (["--pack", "few"], "--pack must be auto or a number of runs of at least 1, got 'few'"),
    "device": (["--device", "gpu"], "--device must be auto, cpu, cuda or cuda:N, got 'gpu'"),
    "epochs": (["--epochs", "0"], "training.epochs=0 trains nothing"),
    "labels of digits": (["--labels", "a.csv:label"], "which source digits lacks: remove labels"),
    "image size": (["--image-size", "0"], "image_size"),
    "missing folder": (["--data", "imagefolder:/nowhere/at/all"], "/nowhere/at/all"),
}


def refused(argv, capsys):
    """Run a wrong command line; return the one line that it prints."""
    with pytest.raises(SystemExit) as end:
        in_process(argv)
    shown = capsys.readouterr()
    assert end.value.code == 2
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1, shown.err
    return shown.err


@pytest.mark.parametrize(("argv", "message"), WRONG.values(), ids=WRONG)
def test_wrong_input_is_reported_in_one_line_and_nothing_is_left(argv, message, tmp_path, capsys):
    out = tmp_path / "out"
    assert message in refused([*argv, "--out", str(out)], capsys)
    assert not list(out.glob("runs/*"))
    assert not (out / "experiment.json").exists()


@pytest.mark.slow
def test_an_error_is_one_line_beside_the_process_that_sends_runs_to_mlflow(tmp_path, capsys):
    argv, message = WRONG["narrow"]
    module = recipe_module(LONG_TAIL)
    with pytest.raises(SystemExit) as end:
        run_recipe(module.ARMS, name="x", question="Why?", argv=[*argv, "--out", str(tmp_path / "out")])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_gpu_that_is_not_there_is_reported(tmp_path, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    error = refused(["--device", "cuda", "--out", str(tmp_path / "out")], capsys)
    assert "PyTorch finds no GPU here; use --device cpu" in error
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_written_is_reported(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    error = refused(["--out", str(tmp_path / "file" / "out")], capsys)
    assert f"{tmp_path / 'file' / 'out'}: Not a directory. Choose another folder with --out." in error


def test_an_empty_folder_is_reported(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    error = refused(["--data", f"imagefolder:{tmp_path / 'empty'}", "--out", str(tmp_path / "out")], capsys)
    assert str(tmp_path / "empty") in error


def test_a_missing_label_column_is_reported(pictures, tmp_path, capsys):
    error = refused(["--data", f"imagefolder:{pictures}", "--imbalance", "1", "--labels",
                    f"{tmp_path / 'labels.csv'}:lable", "--out", str(tmp_path / "out")], capsys)  # fmt: skip
    assert "has no column 'lable': its columns are 'path', 'label'; did you mean 'label'?" in error


def test_an_unreadable_image_is_named(pictures, tmp_path, capsys):
    (pictures / "train" / "cat" / "0.png").write_bytes(b"no image")
    error = refused(["--data", f"imagefolder:{pictures}", "--imbalance", "1", "--out", str(tmp_path / "out")], capsys)
    assert "train/cat/0.png" in error
    assert "--skip-unreadable" in error


def test_a_class_without_a_sample_is_reported(pictures, tmp_path, capsys):
    error = refused(["--data", f"imagefolder:{pictures}", "--imbalance", "50", "--out", str(tmp_path / "out")], capsys)
    assert "dog" in error


def test_a_flag_that_does_not_exist_ends_with_2(tmp_path):
    with pytest.raises(SystemExit) as end:
        in_process(["--sed", "3"])
    assert end.value.code == 2


def test_the_recipes_are_found():
    assert LONG_TAIL.exists()
    assert sys.executable in command(LONG_TAIL, Path("out"))
