"""Credentials are removed from addresses."""

import pytest

from nc_tools.run_records.redact import redact, redact_known


@pytest.mark.parametrize(
    ("text", "redacted"),
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
def test_redaction(text, redacted):
    assert redact(text) == redacted


def test_a_password_repeated_by_a_library_is_removed_too():
    assert "hunter2" not in redact_known("login of ann with hunter2 failed", "http://ann:hunter2@h")
