"""Recipes with pretrained networks, a single arm, or a configuration from a file."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from support.recipe_commands import RECIPES, recipe_module, run_in_process

from nc_tools.experiment import Protocol
from nc_tools.experiment.config_file import read_config
from nc_tools.experiment.plan import Plan
from nc_tools.experiment.recipe_cli import recipe_parser
from nc_tools.experiment.recipe_plan import make_plan
from nc_tools.experiment.serialize import run_hash
from nc_tools.run_records import read_run

pytestmark = pytest.mark.slow

RECIPE = recipe_module(next(path for path in RECIPES if path.stem == "long_tail"))


def run(*flags: str) -> None:
    run_in_process(RECIPE.ARMS, name="x", question="Why?", protocol=RECIPE.PROTOCOL, argv=list(flags))


def plan_of(*flags: str) -> Plan:
    args = recipe_parser("x", "Why?", list(RECIPE.ARMS)).parse_args(list(flags))
    return make_plan(RECIPE.ARMS, name="x", question="Why?", protocol=Protocol(), args=args)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_file(timm.create_model("resnet10t").state_dict(), path)
    return str(path)


QUICK = ("--smoke", "--device", "cpu", "--workers", "1", "--seeds", "0,1", "--set", "protocol.draws=1")


@pytest.mark.slow
def test_a_pretrained_network_is_compared_from_the_command_line(weights: str, tmp_path: Path, capsys: Any) -> None:
    model = ("--model", "timm:resnet10t", "--weights", weights, "--train", "head", "--image-size", "16")
    run(*model, *QUICK, "--arms", "linear,etf_la", "--epochs", "1", "--out", str(tmp_path))
    shown = capsys.readouterr().out
    line = " ".join(shown.split())
    assert "timm:resnet10t, weights of w.safetensors (tensors" in line
    assert "licence not stated), trained: head, 512 features; images: 16 x 16 pixels" in line
    finals = [read_run(path) for path in sorted((tmp_path / "runs").glob("*final*"))]
    assert {run.identity.arm for run in finals} == {"linear", "etf_la"}
    assert all(run.status == "FINISHED" for run in finals)


@pytest.mark.slow
def test_one_arm_alone_is_trained_and_nothing_is_compared(tmp_path: Path, capsys: Any) -> None:
    run(*QUICK, "--arms", "etf", "--epochs", "1", "--out", str(tmp_path))
    shown = " ".join(capsys.readouterr().out.split())
    assert "etf is the only arm: nothing is compared. Add a baseline with --arms BASELINE,etf" in shown
    assert "balanced accuracy" in shown
    assert "2 runs" in shown
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("train", "rates", "ratio"),
    [("all", (3e-6, 3e-4), 10.0), ("last:2", (1e-5, 1e-3), 10.0), ("head", (3e-4, 3e-2), 1.0)],
)
@pytest.mark.parametrize("as_setting", [False, True])
def test_pretrained_weights_bring_an_optimizer_and_rates_that_suit_them(
    weights: str, train: str, rates: tuple[float, float], ratio: float, as_setting: bool
) -> None:
    given = ("--set", f"model.weights={weights}") if as_setting else ("--weights", weights)
    plan = plan_of("--model", "timm:resnet10t", *given, "--train", train)
    assert (plan.protocol.rates[0], plan.protocol.rates[-1], len(plan.protocol.rates)) == (*rates, 5)
    for config in plan.arms.values():
        assert config.optim.optimizer.cls is torch.optim.AdamW
        assert (config.optim.weight_decay, config.optim.head_lr_ratio) == (0.01, ratio)
    own = plan_of(
        "--model", "timm:resnet10t", *given, "--set", "optim.weight_decay=0.3", "--set", "protocol.rates=0.5,"
    )
    assert own.protocol.rates == (0.5,)
    assert own.arms["linear"].optim.weight_decay == 0.3
    assert own.arms["linear"].optim.optimizer.cls is torch.optim.AdamW


def test_the_size_of_the_images_is_the_networks_with_weights_and_the_datas_without(weights: str) -> None:
    with_weights = plan_of("--model", "timm:resnet10t", "--weights", weights, "--image-size", "64").arms["linear"]
    assert (with_weights.model.image_size, with_weights.data.image_size) == (64, None)
    without = plan_of("--model", "timm:resnet10t", "--image-size", "64").arms["linear"]
    assert (without.model.image_size, without.data.image_size) == (None, 64)


@pytest.mark.parametrize("pretrained", [False, True])
def test_a_printed_configuration_gives_the_same_comparison(
    pretrained: bool, weights: str, tmp_path: Path, capsys: Any
) -> None:
    flags = ["--arms", "linear,etf_la,linear_tau", "--set", "optim.weight_decay=0.25", "--seeds", "0-2"]
    flags += ["--model", "timm:resnet10t", "--weights", weights] if pretrained else []
    run(*flags, "--print-config")
    printed = capsys.readouterr().out
    (tmp_path / "f.json").write_text(printed)
    run("--config", str(tmp_path / "f.json"), "--print-config")
    again = capsys.readouterr().out
    assert json.loads(again) == json.loads(printed)
    assert list(json.loads(again)["arms"]) == ["linear", "etf_la", "linear_tau"]
    run("--config", str(tmp_path / "f.json"), "--arms", "linear,etf_la", "--epochs", "7", "--print-config")
    changed = json.loads(capsys.readouterr().out)
    assert list(changed["arms"]) == ["linear", "etf_la"]
    assert changed["arms"]["linear"]["training"]["epochs"] == 7


def test_a_printed_configuration_has_the_same_hashes(tmp_path: Path, capsys: Any) -> None:
    flags = ["--smoke", "--arms", "linear,etf_la", "--epochs", "1"]
    run(*flags, "--print-config")
    (tmp_path / "f.json").write_text(capsys.readouterr().out)
    arms, protocol = read_config(tmp_path / "f.json")
    args = recipe_parser("x", "Why?", list(arms)).parse_args([])
    first = make_plan(
        RECIPE.ARMS, name="x", question="", protocol=RECIPE.PROTOCOL, args=recipe_parser("x", "", []).parse_args(flags)
    )
    again = make_plan(arms, name="x", question="", protocol=protocol, args=args)
    assert again.suite == first.suite
    assert [run_hash(c) for c in again.arms.values()] == [run_hash(c) for c in first.arms.values()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "has no 'arms': give a file that --print-config has printed"),
        ('{"arms": {}, "protocol": {}}', "must hold arms by name"),
        ('{"arms": {"a": 3}, "protocol": {}}', "arms.a must be RunConfig, got 3"),
        ("no json", "f.json"),
    ],
)
def test_a_file_that_is_no_configuration(text: str, message: str, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(SystemExit) as end:
        run("--config", str(tmp_path / "f.json"), "--print-config")
    assert end.value.code == 2
    assert message in capsys.readouterr().err
