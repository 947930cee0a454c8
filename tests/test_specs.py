"""Specs: checked when created, filled when built."""

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nc_tools._support.suggestions import did_you_mean
from nc_tools.heads import ETFHead, LinearHead
from nc_tools.losses import LabelRelaxationLoss, LogitAdjustedLoss
from nc_tools.specs import Spec, spec


class Example:
    def __init__(self, need: int, *rest: Any, choice: str = "a", num_classes: int = 0, **options: Any) -> None:
        self.received = {"need": need, "choice": choice, "num_classes": num_classes, "rest": rest, "options": options}


def test_facts_fill_only_what_the_spec_leaves_open() -> None:
    example = spec(Example, choice="b").build({"need": 1, "num_classes": 3, "feature_dim": 9, "choice": "c"})
    assert example.received == {"need": 1, "choice": "b", "num_classes": 3, "rest": (), "options": {}}


def test_defaults_hold_where_neither_sets_a_value() -> None:
    assert spec(Example, need=2).build({}).received["choice"] == "a"


def test_the_error_for_a_missing_argument_names_it() -> None:
    with pytest.raises(TypeError, match=r"Example needs need, which neither .* Write spec\(Example, need=...\)"):
        spec(Example).build({"num_classes": 2})
    with pytest.raises(TypeError, match="LinearHead needs feature_dim, num_classes"):
        spec(LinearHead).build({})


def test_a_mistyped_argument_is_an_error_at_once() -> None:
    with pytest.raises(TypeError, match=r"ETFHead has no argument 'scal'; did you mean 'scale'\?"):
        spec(ETFHead, scal=8.0)
    with pytest.raises(TypeError, match=r"Example has no argument 'rest'"):
        spec(Example, rest=1)
    with pytest.raises(TypeError, match=r"no argument 'tua'; .*tau"):
        spec(LogitAdjustedLoss).with_arguments({"tua": 1.0})


@pytest.mark.parametrize("value", [ETFHead(8, 4), "ETFHead", None, len])
def test_a_value_that_is_not_a_class_is_an_error(value: Any) -> None:
    with pytest.raises(TypeError, match=r"(?s)spec needs a class, got .* as in spec\(ETFHead"):
        spec(value)


def test_with_arguments_leaves_the_first_spec_alone() -> None:
    first = spec(ETFHead, scale=8.0)
    second = first.with_arguments({"scale": 4.0, "projection": True})
    assert (first.arguments, second.arguments) == ({"scale": 8.0}, {"scale": 4.0, "projection": True})


def test_the_arguments_are_copied() -> None:
    arguments = {"tau": 1.0}
    copied = spec(LogitAdjustedLoss).with_arguments(arguments)
    arguments["tau"] = 2.0
    assert copied.arguments == {"tau": 1.0}


def test_leaves_open_is_true_for_arguments_that_are_not_set() -> None:
    head = spec(ETFHead, frame_seed=1)
    assert head.leaves_open("scale")
    assert not head.leaves_open("frame_seed")
    assert not head.leaves_open("class_counts")
    assert spec(LogitAdjustedLoss).leaves_open("class_counts")
    assert not spec(LabelRelaxationLoss).leaves_open("class_counts")


def test_names_of_the_arguments() -> None:
    assert spec(Example).parameter_names == ["need", "choice", "num_classes"]


def test_specs_are_values() -> None:
    assert spec(ETFHead, scale=8.0) == spec(ETFHead, scale=8.0) != spec(ETFHead, scale=4.0)
    assert pickle.loads(pickle.dumps(spec(ETFHead, scale=8.0))) == Spec(ETFHead, {"scale": 8.0})


@given(st.text(max_size=8), st.lists(st.text(min_size=1, max_size=8), max_size=40, unique=True))
def test_suggestions_always_name_something_that_exists(name: str, names: list[str]) -> None:
    suggestion = did_you_mean(name, names)
    assert any(n in suggestion or repr(n) in suggestion for n in names) if names else suggestion == "none is known"
    assert not names or name not in names or repr(name) in suggestion


def test_suggestions_name_each_only_once() -> None:
    assert did_you_mean("scal", ["scale", "bias", "scale"]) == "did you mean 'scale'?"


def test_suggestions_do_not_list_hundreds() -> None:
    suggestion = did_you_mean("zzzz", (f"name{i:03}" for i in range(300)))
    assert suggestion.startswith("there are 300, such as name000, ")
    assert len(suggestion) < 200
