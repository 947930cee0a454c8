"""Configurations: set from the command line, written as JSON, read back, hashed."""

import importlib.util
import json
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nc_tools.data import DataConfig
from nc_tools.experiment import Protocol, RunConfig, TunedParameter
from nc_tools.experiment.class_path import path_of
from nc_tools.experiment.deserialize import decode
from nc_tools.experiment.overrides import parse_setting, put, put_all
from nc_tools.experiment.recipe_plan import parse_seeds
from nc_tools.experiment.run_config import ModelConfig
from nc_tools.experiment.serialize import encode, run_hash, settings
from nc_tools.heads import LEARNED, ETFHead, Head, LinearHead
from nc_tools.losses import CrossEntropyLoss, LogitAdjustedLoss
from nc_tools.specs import Spec, spec
from nc_tools.training import OptimConfig, TrainConfig
from nc_tools.type_check import check_types, matches

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.py"))
BASE = RunConfig(head=spec(LinearHead), loss=spec(CrossEntropyLoss))


class OwnHead(LinearHead):
    """A head of somebody else's file."""


def arms_of(path):
    file_spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(file_spec)
    file_spec.loader.exec_module(module)
    return module.ARMS


EVERY_ARM = [pytest.param(config, id=f"{p.stem}-{arm}") for p in RECIPES for arm, config in arms_of(p).items()]


@pytest.mark.parametrize("config", EVERY_ARM)
def test_every_arm_of_every_recipe_comes_back_from_json(config):
    assert decode(json.loads(json.dumps(encode(config)))) == config
    written = json.loads(json.dumps(settings(config)))
    assert decode(written) == replace(config, tuned=TunedParameter())
    assert run_hash(decode(written)) == run_hash(config)


def test_classes_of_other_people_come_back():
    config = replace(BASE, head=spec(OwnHead, bias=False), optim=OptimConfig(optimizer=spec(torch.optim.AdamW)))
    encoded = encode(config)
    assert encoded["head"] == {"class": f"{__name__}.OwnHead", "arguments": {"bias": False}}
    written = json.loads(json.dumps(encoded))
    assert decode(written, modules=[sys.modules[__name__]]) == config
    with pytest.raises(ValueError, match=r"config\.head must be Spec\[Head\], got the class '.*OwnHead': .* pass its"):
        decode(written)
    with pytest.raises(TypeError, match="modules must hold modules that are imported, got 'my_heads'"):
        decode(written, modules=["my_heads"])


def test_a_class_inside_a_function_is_refused():
    class Hidden(LinearHead):
        pass

    with pytest.raises(ValueError, match="move it to the top level"):
        encode(spec(Hidden))


@pytest.mark.parametrize("value", [print, torch.ones(2), object()])
def test_what_cannot_be_written_down_is_refused(value):
    with pytest.raises(TypeError, match="a configuration may hold numbers, strings, tuples, specs and dataclasses"):
        encode(spec(LinearHead, bias=value))


def test_the_hash_does_not_change_by_itself(monkeypatch):
    # Finished runs are recognized by it: after a change here, every finished run is repeated.
    monkeypatch.setattr("nc_tools.experiment.serialize.__version__", "0.2.0")
    for base in (BASE, put(BASE, "training.capture", False), put(BASE, "training.checkpoint_seconds", 1.0)):
        assert run_hash(base, "final", "fingerprint", 0, 0) == KNOWN_HASH


def test_the_hash_depends_on_every_setting_but_the_tuned_parameter():
    changed = [
        put(BASE, "optim.lr", 0.2),
        put(BASE, "optim.head_lr_ratio", 0.2),
        put(BASE, "training.epochs", 31),
        put(BASE, "training.ema_decay", 0.9),
        put(BASE, "model.width", 17),
        put(BASE, "data.imbalance", 2.0),
        put(BASE, "data.holdout", 0.3),
        put(BASE, "data.views", 2),
        put(BASE, "head.bias", False),
        replace(BASE, loss=spec(LogitAdjustedLoss)),
        replace(BASE, head=spec(ETFHead, scale=LEARNED)),
        replace(BASE, head=spec(ETFHead)),
    ]
    hashes = [run_hash(c) for c in [BASE, *changed]]
    assert len(set(hashes)) == len(hashes)
    assert run_hash(replace(BASE, tuned=TunedParameter(path="head.bias", values=(False,)))) == run_hash(BASE)
    facts = [run_hash(BASE, *f) for f in ((), ("final",), ("final", 0), ("final", 1), ("tuning", 0))]
    assert len(set(facts)) == len(facts)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8, unique=True))
def test_seeds_read_as_lists(seeds):
    assert parse_seeds(",".join(map(str, seeds))) == tuple(seeds)


@given(st.integers(0, 50), st.integers(0, 20))
def test_seeds_read_as_ranges(first, more):
    assert parse_seeds(f"{first}-{first + more}") == tuple(range(first, first + more + 1))


def test_a_seed_named_twice_counts_once():
    assert parse_seeds("1,0-2, 1") == (1, 0, 2)


@pytest.mark.parametrize("text", ["", "a", "1,,2", "4-0", "-3", "1-", "0.5", "²"])
def test_ill_formed_seeds_are_refused(text):
    with pytest.raises(ValueError, match="--seeds must read like 0-4 or 0,2,5"):
        parse_seeds(text)


def test_seeds_that_would_fill_the_memory_are_refused():
    assert len(parse_seeds("0-9999")) == 10_000
    with pytest.raises(ValueError, match="--seeds must be at most 10,000 numbers, got '5-99999999999999'"):
        parse_seeds("5-99999999999999")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": ()}, "at least one"),
        ({"seeds": (1, 1)}, "each seed only once"),
        ({"draws": 0}, "draws must be at least 1"),
        ({"seeds": (0, 1000)}, r"must share no seed, got \[1000\]"),
        ({"rates": ()}, "at least one learning rate, all positive, finite and rising"),
        ({"rates": (0.1, 0.01)}, "positive, finite and rising"),
        ({"rates": (0.0, 0.1)}, "positive, finite and rising"),
        ({"rates": (0.1, 0.1)}, "positive, finite and rising"),
        ({"rates": (float("nan"),)}, "positive, finite and rising"),
        ({"seeds": (-1,)}, "a seed must be a whole number of at least 0, got -1"),
        ({"tuning_seeds": ()}, "must hold at least one seed"),
        ({"max_extensions": -1}, "max_extensions must be at least 0, got -1"),
    ],
)
def test_the_protocol_is_checked_when_written(change, message):
    with pytest.raises(ValueError, match=message):
        Protocol(**change)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optim.lr=0.1", ("optim.lr", 0.1)),
        (" a.b = 1e-4 ", ("a.b", 1e-4)),
        ("model.name=resnet32", ("model.name", "resnet32")),
        ("protocol.rates=(0.1, 1.0)", ("protocol.rates", (0.1, 1.0))),
        ("training.ema_decay=None", ("training.ema_decay", None)),
        ("data.source=imagefolder:a=b", ("data.source", "imagefolder:a=b")),
    ],
)
def test_settings_are_literals_or_strings(text, expected):
    assert parse_setting(text) == expected


@pytest.mark.parametrize("text", ["optim.lr", "=3", " =3"])
def test_a_setting_needs_a_name_and_a_value(text):
    with pytest.raises(ValueError, match=r"must read a\.b=value"):
        parse_setting(text)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("optm.lr", 0.1, r"no field 'optm' in RunConfig; did you mean 'optim'\?"),
        ("optim.l", 0.1, r"no field 'l' in OptimConfig; did you mean .*'lr'"),
        ("optim.lr.x", 0.1, "cannot set 'x': a value of type float has no fields"),
        ("head.bias.x", 0.1, "cannot set 'bias.x': 'bias' is an argument of LinearHead"),
        ("optim.lr", "fast", "lr must be float, got 'fast'"),
        ("optim.lr", True, "lr must be float, got True"),
        ("training.epochs", 2.5, "epochs must be int, got 2.5"),
        ("training.epochs", True, "epochs must be int, got True"),
        ("training.compile", 1, "compile must be bool, got 1"),
        ("training.ema_decay", "no", "ema_decay must be float or None, got 'no'"),
        ("training.precision", "float16", "precision must be 'auto', 'float32' or 'bfloat16', got 'float16'"),
        ("optim.milestones", ("a",), "milestones must be"),
        ("head.bias", "yes", "bias must be bool, got 'yes'"),
        ("loss.label_smoothing", "x", "label_smoothing must be float or ClassWiseSmoothing, got 'x'"),
        ("loss.label_smoothing", True, "label_smoothing must be float"),
        ("data.noise", "PairNoise(1, 2)", r"PairNoise takes only rate, got 2 values in 'PairNoise\(1, 2\)'"),
        ("data.noise", "PairNoise(rate=max)", "arguments of noise must be numbers, quoted text or tuples"),
        ("head", 3, "head must be"),
        ("model.width", 0, "width must be positive"),
    ],
)
def test_a_setting_that_does_not_fit_says_why(path, value, message):
    with pytest.raises(ValueError, match=message):
        put(BASE, path, value)


def test_an_argument_that_a_class_does_not_have_is_refused():
    with pytest.raises(TypeError, match="LinearHead has no argument 'bais'; did you mean 'bias'"):
        put(BASE, "head.bais", 1)


def test_settings_land_where_they_belong_and_nowhere_else():
    settings_ = [("optim.lr", 1), ("optim.optimizer.momentum", 0.5), ("head.bias", False), ("optim.milestones", 0.5)]
    changed = put_all(BASE, settings_)
    assert changed.optim.lr == 1.0
    assert isinstance(changed.optim.lr, float)
    assert changed.optim.optimizer.arguments == {"momentum": 0.5}
    assert changed.head.arguments == {"bias": False}
    assert changed.optim.milestones == (0.5,)
    assert (changed.data, changed.training, changed.model) == (DataConfig(), TrainConfig(), ModelConfig())
    assert BASE.optim.lr == 0.1


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("training.compile=true", True),
        ("training.compile=FALSE", False),
        ("training.ema_decay=none", None),
        ("training.epochs=1e2", 100),
        ("optim.weight_decay=1e-4", 1e-4),
        ("model.weights=none", None),
        ("data.sampling=none", None),
    ],
)
def test_settings_are_read_as_people_write_them(setting, expected):
    path, value = parse_setting(setting)
    changed = put(BASE, path, value)
    for part in path.split("."):
        changed = getattr(changed, part)
    assert (changed, type(changed)) == (expected, type(expected))


def test_lists_from_a_command_line_can_be_hashed():
    noisy = put(BASE, "data.noise", "MatrixNoise([[0.9, 0.1], [0, 1]])").data
    assert noisy.noise.matrix == ((0.9, 0.1), (0, 1))
    assert hash(noisy) == hash(put(BASE, "data.noise", "MatrixNoise(((0.9, 0.1), (0, 1)))").data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": DataConfig(noise=0.3)}, "data.noise must be SymmetricNoise, .* or None, got 0.3"),
        ({"training": TrainConfig(mixing="mixup")}, "training.mixing must be Mixup, CutMix or None, got 'mixup'"),
        ({"training": TrainConfig(epochs=2.5)}, "training.epochs must be int, got 2.5"),
        ({"head": spec(LinearHead, bias=3)}, "head.bias must be bool, got 3"),
        ({"head": LinearHead}, "head must be Spec.*, got <class"),
    ],
)
def test_a_recipe_with_a_value_of_the_wrong_type_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        check_types(replace(BASE, **change))


def test_each_position_of_a_tuple_has_its_own_type():
    assert matches((3, 0.5), tuple[int, float])
    assert matches((3, "a"), tuple[int, str])
    assert not matches((0.5, 3), tuple[int, float])
    assert not matches((3,), tuple[int, float])
    assert matches((3, 0.5), tuple)


def test_right_types_pass():
    check_types(BASE)
    check_types(replace(BASE, head=spec(ETFHead, scale=8), data=DataConfig(imbalance=10)))


def test_only_heads_with_an_open_frame_have_draws():
    assert not BASE.has_draws
    assert replace(BASE, head=spec(ETFHead)).has_draws
    assert not replace(BASE, head=spec(ETFHead, frame_seed=3)).has_draws


def test_a_scripts_own_class_has_one_name_in_all_processes(monkeypatch):
    for name in ("__main__", "__mp_main__"):
        script = types.ModuleType(name)
        script.__file__ = "/somewhere/my_recipe.py"
        script.__spec__ = None
        script.Mine = type("Mine", (LinearHead,), {"__module__": name})
        monkeypatch.setitem(sys.modules, name, script)
        assert path_of(script.Mine) == "my_recipe.Mine"
    main = sys.modules["__main__"]
    assert decode({"class": "my_recipe.Mine", "arguments": {}}, Spec[Head]).cls is main.Mine


KNOWN_HASH = "03f8bac61f3bab54"
