"""Keys and values in the form that MLflow accepts, compared with MLflow's own validation."""

import math
import posixpath
import re
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from nc_tools.tracking import mlflow_fields


@given(st.text(min_size=0, max_size=300))
def test_every_key_becomes_one_that_mlflow_accepts(key):
    safe = mlflow_fields.safe_key(key)
    # The rules of mlflow.utils.validation: allowed characters, a normal relative path, length.
    assert re.fullmatch(r"[/\w.\- ]+", safe)
    assert posixpath.normpath(safe) == safe
    assert not safe.startswith(("/", ".."))
    assert safe != "."
    assert len(safe) <= 250


def test_mlflow_agrees_on_awkward_keys():
    from mlflow.utils.validation import _validate_metric, _validate_param

    for key in ("top-5 (%)", "a//b", "/a", "a/", ".", "..", "a/../b", "", "é/ü", "x" * 400, "a@b:c\n"):
        _validate_metric(mlflow_fields.safe_key(key), 1.0, 0, 0)
        _validate_param(mlflow_fields.safe_key(key), "v")


@given(st.lists(st.text("ab%@/.", min_size=1, max_size=5), min_size=2, max_size=2, unique=True))
def test_keys_with_different_rejected_characters_stay_different(keys):
    first, second = keys
    # Only keys that are the same path may become equal.
    if mlflow_fields.safe_key(first) == mlflow_fields.safe_key(second):
        assert "//" in first + second or first.endswith("/") or second.endswith("/") or first == second


def test_ordinary_keys_stay_as_they_are():
    for key in ("test/gen/balanced_accuracy", "train/nc/nc1_pinv", "test/cal_ts/ece"):
        assert mlflow_fields.safe_key(key) == key


def test_flatten_names_nested_fields_and_cuts_long_values():
    flat = mlflow_fields.flatten_params(
        {"a": {"b": 1, "c": {"d": "x"}}, "long": "y" * 7000, "none": None, "empty": {}, "on": True}
    )
    assert flat["a.b"] == "1"
    assert flat["a.c.d"] == "x"
    assert flat["none"] == "null"
    assert flat["empty"] == "{}"
    assert flat["on"] == "true"
    assert len(flat["long"]) == 6000


def values(metrics):
    return [(metric.key, metric.value, metric.timestamp, metric.step) for metric in metrics]


def test_points_keep_step_and_time_and_show_null_as_nan():
    (first, second) = values(mlflow_fields.points([{"step": 3, "time_ms": 7, "values": {"a": 1, "b": None}}]))
    assert first == ("a", 1.0, 7, 3)
    assert math.isnan(second[1])


def test_final_value_that_its_curve_ends_on_is_not_sent_twice():
    run = SimpleNamespace(
        final={"a": 1.0, "b": 2.0, "c": 3.0},
        started_ms=1,
        ended_ms=9,
        curves=lambda: {"a": [(1, 0.0), (2, 1.0)], "b": [(1, 2.0), (2, 5.0)]},
    )
    assert values(mlflow_fields.final_points(run)) == [("b", 2.0, 9, 2), ("c", 3.0, 9, 2)]
