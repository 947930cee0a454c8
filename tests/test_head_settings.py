"""Settings that would change nothing on fixed features are refused and not ignored."""

from dataclasses import replace

import pytest
from support.head_plans import arms_of, base_of, embeddings

from nc_tools.cli import main
from nc_tools.experiment import Protocol
from nc_tools.experiment.on_features.head_settings import check_head_settings, check_protocol_settings


@pytest.mark.parametrize("command", ["choose", "gain"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "training.compile=true"], "training.compile=True is about a backbone that is trained"),
        (["--set", "training.precision=bfloat16"], "training.precision=bfloat16 is about a backbone"),
        (["--set", "optim.layer_decay=.7"], "optim.layer_decay=0.7 is about a backbone"),
        (["--set", "optim.head_first=.3"], "optim.head_first=0.3 is about a backbone"),
        (["--set", "model.freeze_norm=false"], "model.freeze_norm=False is about a backbone"),
        (["--set", "optim.lr=.1"], "--set protocol.rates=0.1 --set protocol.max_extensions=0"),
        (["--set", "protocol.tune_each_seed=false"], "each seed tunes on a hold-out of its own"),
        (["--set", "protocol.rank_layers=true"], "protocol.rank_layers=True is not used"),
        (["--set", "protocol.curve_points=5"], "protocol.curve_points=5 is not used"),
        (["--epochs", "0"], "--epochs must be at least 1, got 0"),
        (["--cache", "somewhere"], "leave out --cache"),
    ],
)
def test_what_would_change_nothing_is_refused(tmp_path, capsys, command, words, message):
    words = list(words)
    file = embeddings(tmp_path, ids=[f"{i}.png" for i in range(76)])
    words += ["--arms", "linear_la"] if command == "choose" else ["--arm", "linear_la"]
    with pytest.raises(SystemExit) as end:
        main([command, str(file), "--out", str(tmp_path / "out"), "--seeds", "0,1", "--workers", "1", *words])
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "runs").exists()


def test_the_settings_of_the_commands_themselves_pass(tmp_path):
    check_protocol_settings(Protocol(tune_each_seed=True, curve_points=1, draws=2, margin=0.01, suspects=5))
    for name, arm in arms_of(base_of(tmp_path / "e.npz")).items():
        check_head_settings(name, arm)
        check_head_settings(name, replace(arm, optim=replace(arm.optim, warmup=0.0, schedule="step", clip_norm=1.0)))
