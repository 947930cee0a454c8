"""Specs: checked when written, filled when built."""

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nc_tools._support.suggestions import did_you_mean
from nc_tools.heads import ETFHead, LinearHead
from nc_tools.losses import LabelRelaxationLoss, LogitAdjustedLoss
from nc_tools.spec import Spec, spec


class Made:
    def __init__(self, need: int, *rest: Any, choice: str = "a", num_classes: int = 0, **others: Any) -> None:
        self.got = {"need": need, "choice": choice, "num_classes": num_classes, "rest": rest, "others": others}


def test_facts_fill_what_the_spec_leaves_open_and_no_more() -> None:
    made = spec(Made, choice="b").build({"need": 1, "num_classes": 3, "feature_dim": 9, "choice": "c"})
    assert made.got == {"need": 1, "choice": "b", "num_classes": 3, "rest": (), "others": {}}


def test_defaults_hold_where_neither_speaks() -> None:
    assert spec(Made, need=2).build({}).got["choice"] == "a"


def test_a_missing_argument_names_itself_and_the_way_out() -> None:
    with pytest.raises(TypeError, match=r"Made needs need, which neither .* Write spec\(Made, need=...\)"):
        spec(Made).build({"num_classes": 2})
    with pytest.raises(TypeError, match="LinearHead needs feature_dim, num_classes"):
        spec(LinearHead).build({})


def test_a_mistyped_argument_is_an_error_at_once() -> None:
    with pytest.raises(TypeError, match=r"ETFHead has no argument 'scal'; did you mean 'scale'\?"):
        spec(ETFHead, scal=8.0)
    with pytest.raises(TypeError, match=r"Made has no argument 'rest'"):
        spec(Made, rest=1)
    with pytest.raises(TypeError, match=r"no argument 'tua'; .*tau"):
        spec(LogitAdjustedLoss).with_arguments({"tua": 1.0})


@pytest.mark.parametrize("wrong", [ETFHead(8, 4), "ETFHead", None, len])
def test_what_is_no_class_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"(?s)spec needs a class, got .* as in spec\(ETFHead"):
        spec(wrong)


def test_with_arguments_leaves_the_first_spec_alone() -> None:
    first = spec(ETFHead, scale=8.0)
    second = first.with_arguments({"scale": 4.0, "projection": True})
    assert (first.arguments, second.arguments) == ({"scale": 8.0}, {"scale": 4.0, "projection": True})


def test_the_callers_arguments_are_copied() -> None:
    mine = {"tau": 1.0}
    written = spec(LogitAdjustedLoss).with_arguments(mine)
    mine["tau"] = 2.0
    assert written.arguments == {"tau": 1.0}


def test_takes_tells_what_is_open() -> None:
    wanted = spec(ETFHead, frame_seed=1)
    assert wanted.leaves_open("scale")
    assert not wanted.leaves_open("frame_seed")
    assert not wanted.leaves_open("class_counts")
    assert spec(LogitAdjustedLoss).leaves_open("class_counts")
    assert not spec(LabelRelaxationLoss).leaves_open("class_counts")


def test_names_of_the_arguments() -> None:
    assert spec(Made).parameter_names == ["need", "choice", "num_classes"]


def test_specs_are_values() -> None:
    assert spec(ETFHead, scale=8.0) == spec(ETFHead, scale=8.0) != spec(ETFHead, scale=4.0)
    assert pickle.loads(pickle.dumps(spec(ETFHead, scale=8.0))) == Spec(ETFHead, {"scale": 8.0})


@given(st.text(max_size=8), st.lists(st.text(min_size=1, max_size=8), max_size=40, unique=True))
def test_suggestions_always_name_something_that_exists(name: str, known: list[str]) -> None:
    said = did_you_mean(name, known)
    assert any(k in said for k in known) if known else said == "none is known"
    assert not known or name not in known or repr(name) in said


def test_suggestions_name_each_only_once() -> None:
    assert did_you_mean("scal", ["scale", "bias", "scale"]) == "did you mean 'scale'?"


def test_suggestions_do_not_list_hundreds() -> None:
    said = did_you_mean("zzzz", (f"name{i:03}" for i in range(300)))
    assert said.startswith("there are 300, such as name000, ")
    assert len(said) < 200
