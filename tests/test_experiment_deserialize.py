"""A record decides values, never which code runs: each field takes only what its type hint allows."""

import dataclasses
import importlib
import inspect
import json
import pkgutil
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import nc_tools
from nc_tools import schedules
from nc_tools.experiment import ModelConfig, RunConfig
from nc_tools.experiment.class_path import path_of
from nc_tools.experiment.deserialize import decode
from nc_tools.experiment.serialize import encode
from nc_tools.heads import Head, LearnedScale, LinearHead
from nc_tools.losses import CrossEntropyLoss, LossTerm, WeightedSumLoss, term
from nc_tools.specs import Spec, spec
from nc_tools.training import OptimConfig, SecondStage
from nc_tools.transfer import FineTuning
from nc_tools.type_check import check_types, hints_of

BASE = RunConfig(head=spec(LinearHead), loss=spec(WeightedSumLoss, terms=(term(1.0, spec(CrossEntropyLoss)),)))
PLACES = [
    (),
    ("head",),
    ("head", "arguments", "bias"),
    ("loss",),
    ("loss", "arguments", "terms"),
    ("loss", "arguments", "terms", 0),
    ("loss", "arguments", "terms", 0, "weight"),
    ("loss", "arguments", "terms", 0, "loss"),
    ("loss", "arguments", "terms", 0, "name"),
    ("data",),
    ("data", "source"),
    ("data", "noise"),
    ("data", "sampling"),
    ("data", "class_counts"),
    ("data", "class_counts", 0),
    ("model",),
    ("model", "name"),
    ("optim",),
    ("optim", "optimizer"),
    ("optim", "optimizer", "arguments", "momentum"),
    ("optim", "sam"),
    ("training",),
    ("training", "mixing"),
    ("training", "epochs"),
    ("tuned",),
    ("tuned", "values", 0),
    ("second_stage",),
]


class OwnHead(LinearHead):
    """A head of somebody else's file, with arguments without hints."""

    def __init__(self, feature_dim: int, num_classes: int, *, extra=None, widths: list[int] | None = None) -> None:
        super().__init__(feature_dim, num_classes)
        self.extra, self.widths = extra, widths


@dataclass(frozen=True)
class OwnSchedule:
    """A schedule of somebody else's file."""

    end: float

    def __call__(self, progress: float) -> float:
        return progress * self.end


OWN = sys.modules[__name__]


def written(config=BASE):
    values = json.loads(json.dumps(encode(config)))
    values["data"]["class_counts"] = [5, 5]
    return values


def put_at(values, place, new):
    if not place:
        return new
    parent = values
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = new
    return values


def payloads(marker: Path):
    command = [sys.executable, "-c", f"open({str(marker)!r}, 'w')"]
    return [
        {"dataclass": "subprocess.Popen", "args": command},
        {"class": "subprocess.Popen", "arguments": {"args": command}},
        {"dataclass": "pathlib.Path.touch", "self": str(marker)},
        {"class": "antigravity.fly", "arguments": {}},
        {"dataclass": "tests.support.no_such_module_x.Thing"},
        {"class": "torch.nn.Linear", "arguments": {"in_features": 1, "out_features": 1}},
        {"dataclass": "nc_tools.run_records.environment.git_commit"},
        {"class": "nc_tools.run_records.writer.RunRecord", "arguments": {"path": str(marker), "identity": None}},
        {"dataclass": "nc_tools.run_records.identity.RunIdentity", "kind": "loop", "arm": "a", "seed": 0},
        {"class": "nc_tools.experiment.plan.Path", "arguments": {}},
        {"class": ["subprocess.Popen"], "arguments": {}},
        {"dataclass": None},
        {"class": "", "arguments": {}},
        {"dataclass": "Popen"},
    ]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)) or "config")
def test_no_class_outside_the_allowed_ones_is_imported_or_built_wherever_it_stands(tmp_path, place):
    for payload in payloads(tmp_path / "ran"):
        before = set(sys.modules)
        with pytest.raises(ValueError, match=r"^config"):
            decode(put_at(written(), place, payload))
        assert set(sys.modules) == before
        assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("place", PLACES[1:], ids=str)
@pytest.mark.parametrize("wrong", [[], {}, -1.5, "\x1b[2J", [[[]]], {"a": 1}, True, float("nan"), 10**400])
def test_a_value_is_what_its_hint_says_or_is_refused_in_one_line(place, wrong):
    try:
        decoded = decode(put_at(written(), place, wrong))
    except ValueError as error:
        decoded = str(error)
    if isinstance(decoded, str):
        assert len(decoded.splitlines()) == 1
        assert "\x1b" not in decoded
        assert len(decoded) < 600
    else:
        check_types(decoded)


def test_a_head_of_nc_tools_is_no_loss_and_a_loss_no_head():
    values = written()
    values["head"], values["loss"] = values["loss"], values["head"]
    with pytest.raises(ValueError, match=r"config\.head must be Spec\[Head\], got the class '.*WeightedSumLoss'"):
        decode(values)
    with pytest.raises(ValueError, match=r"optimizer must be Spec\[Optimizer\], got the class '.*SAM'|'torch"):
        decode(put_at(written(), ("optim", "optimizer", "class"), "torch.optim.lr_scheduler.StepLR"))


def test_unknown_and_missing_fields_are_named():
    with pytest.raises(ValueError, match=r"config\.model has no 'widht'; did you mean 'width' or 'weights'\?"):
        decode(put_at(written(), ("model", "widht"), 3))
    with pytest.raises(ValueError, match=r"config\.head has no 'bais'; did you mean 'bias'\?"):
        decode(put_at(written(), ("head", "arguments", "bais"), False))
    values = written()
    del values["head"]
    with pytest.raises(ValueError, match="config lacks head, which RunConfig needs"):
        decode(values)
    with pytest.raises(ValueError, match=r"config\.model cannot be built: model\.width must be positive, got 0"):
        decode(put_at(written(), ("model", "width"), 0))


def test_own_classes_come_back_if_their_module_is_passed():
    head = spec(OwnHead, extra=LearnedScale(3.0), widths=[1, 2])
    loss = spec(WeightedSumLoss, terms=(term(OwnSchedule(0.5), spec(CrossEntropyLoss)),))
    config = RunConfig(head=head, loss=loss, optim=OptimConfig(optimizer=spec(torch.optim.AdamW, betas=(0.8, 0.9))))
    values = json.loads(json.dumps(encode(config)))
    assert decode(values, modules=[OWN]) == config
    with pytest.raises(ValueError, match=r"OwnHead': if you wrote this class, pass its module"):
        decode(values)
    values["head"] = encode(spec(LinearHead))
    with pytest.raises(ValueError, match=r"terms\[0\]\.weight must be Callable.*, got the class '.*OwnSchedule'"):
        decode(values)


def test_an_argument_without_a_hint_takes_only_what_heads_and_losses_take():
    head = encode(spec(OwnHead))
    for allowed in (LearnedScale(2.0), schedules.LinearSchedule(0.0, 1.0), spec(CrossEntropyLoss), (1, ("a", None))):
        head["arguments"]["extra"] = encode(allowed)
        assert decode(head, Spec[Head], modules=[OWN]).arguments["extra"] == allowed
    head["arguments"]["extra"] = encode(ModelConfig())
    with pytest.raises(ValueError, match="extra must be Any, got the class"):
        decode(head, Spec[Head], modules=[OWN])


def loaded_classes():
    """All classes of nc_tools, from all its modules."""
    for info in pkgutil.walk_packages(nc_tools.__path__, "nc_tools."):
        module = importlib.import_module(info.name)
        yield from (cls for cls in vars(module).values() if isinstance(cls, type) and cls.__module__ == module.__name__)


def test_a_class_of_nc_tools_is_known_by_its_name():
    names = Counter(cls.__name__ for cls in set(loaded_classes()) if not cls.__name__.startswith("_"))
    assert [name for name, count in names.items() if count > 1] == []


def test_every_field_that_a_record_holds_has_a_hint_that_says_what_it_takes():
    """A field without one, or with Any, would take more than it should."""
    settings = {
        cls
        for cls in loaded_classes()
        if issubclass(cls, (Head, LossTerm, SecondStage)) or (dataclasses.is_dataclass(cls) and reachable(cls))
    }
    assert {RunConfig, FineTuning, LinearHead, WeightedSumLoss, OptimConfig, LearnedScale} <= settings
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    open_hints = {
        f"{cls.__name__}.{name}"
        for cls in settings
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.kind in by_name and "Any" in str(hints_of(cls).get(name, Any))
    }
    assert open_hints == {"TunedParameter.values"}  # the values of any argument of a head or loss


def reachable(cls):
    packages = (
        "data",
        "experiment.run_config",
        "heads",
        "losses",
        "schedules",
        "training.train_config",
        "transfer.fine",
    )
    return cls.__module__.startswith(tuple(f"nc_tools.{package}" for package in packages))


def test_paths_are_those_of_the_module():
    assert path_of(LinearHead) == "nc_tools.heads.linear.LinearHead"
    exported = {"class": "nc_tools.heads.LinearHead", "arguments": {}}
    assert decode(exported, Spec[Head]).cls is LinearHead
