"""Names and values as MLflow takes them, against MLflow's own validators; credentials."""

import math
import posixpath
import re
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nc_tools.run_records.redact import redact_known
from nc_tools.tracking import mlflow_fields, redact
from nc_tools.tracking.store import resolve_store


@given(st.text(min_size=0, max_size=300))
def test_every_key_becomes_one_that_mlflow_takes(key):
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
def test_different_refused_characters_stay_different(keys):
    first, second = keys
    # Only what a path cannot tell apart may fall together.
    if mlflow_fields.safe_key(first) == mlflow_fields.safe_key(second):
        assert "//" in first + second or first.endswith("/") or second.endswith("/") or first == second


def test_ordinary_keys_are_left_alone():
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


def test_points_keep_step_and_time_and_show_null_as_nan():
    (first, second) = mlflow_fields.points([{"step": 3, "time_ms": 7, "values": {"a": 1, "b": None}}])
    assert first == ("a", 1.0, 7, 3)
    assert math.isnan(second.value)


def test_final_value_that_its_curve_ends_on_is_not_sent_twice():
    run = SimpleNamespace(
        final={"a": 1.0, "b": 2.0, "c": 3.0},
        started_ms=1,
        ended_ms=9,
        curves=lambda: {"a": [(1, 0.0), (2, 1.0)], "b": [(1, 2.0), (2, 5.0)]},
    )
    assert mlflow_fields.final_points(run) == [("b", 2.0, 9, 2), ("c", 3.0, 9, 2)]


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("http://ann:pw@host:1/x", "http://***@host:1/x"),
        ("postgresql+psycopg2://u:p@ss/w@db/name", "postgresql+psycopg2://***@db/name"),
        (
            "failed: 'https://token@host' twice https://a:b@c",
            "failed: 'https://***@host' twice https://***@c",
        ),
        ("postgresql://db/x?user=ann&password=pw", "postgresql://db/x?user=***&password=***"),
        ("sqlite:////a/b.db and ann@example.org", "sqlite:////a/b.db and ann@example.org"),
    ],
)
def test_redaction(text, hidden):
    assert redact(text) == hidden


def test_a_password_repeated_by_a_library_is_hidden_too():
    assert "hunter2" not in redact_known("login of ann with hunter2 failed", "http://ann:hunter2@h")


def test_the_store_does_not_depend_on_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    default = resolve_store(tmp_path / "out", None)
    assert default.uri == f"sqlite:///{tmp_path}/out/mlflow.db"
    assert default.artifacts == tmp_path / "out" / "artifacts"
    monkeypatch.chdir(tmp_path)
    assert resolve_store(tmp_path / "out", "sqlite:///mine.db").uri == f"sqlite:///{tmp_path}/mine.db"
    assert resolve_store(tmp_path, "sqlite:///mlflow.db").key == resolve_store(tmp_path, None).key == "default"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:pw@host:5000")
    server = resolve_store(tmp_path / "out", None)
    assert server.uri == "http://ann:pw@host:5000"
    assert (server.key, server.artifacts) == ("http://***@host:5000", None)
    assert resolve_store(tmp_path, "sqlite:////given.db").uri == "sqlite:////given.db"


@pytest.mark.parametrize("uri", ["./mlruns", "file:/tmp/mlruns", "/tmp/mlruns"])
def test_a_folder_is_refused_as_store(tmp_path, uri):
    with pytest.raises(ValueError, match=r"server or a database.*mlflow\.db"):
        resolve_store(tmp_path, uri)


def test_a_path_that_no_sqlite_address_can_express_is_refused(tmp_path):
    with pytest.raises(ValueError, match="free of %"):
        resolve_store(tmp_path / "50%", None)
