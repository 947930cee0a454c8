"""Credentials are removed from addresses."""

import json

import pytest
from support.recipe_commands import RECIPES, recipe_module

from nc_tools.experiment.serialize import encode
from nc_tools.run_records import RunIdentity
from nc_tools.run_records.redact import redact, redact_command, redact_known, redact_settings


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
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("sqlite:///C:/a@b/mlflow.db", "sqlite:///C:/a@b/mlflow.db"),
        ("file:///data/a@b and s3://bucket/runs@2", "file:///data/a@b and s3://bucket/runs@2"),
        ("https://host/x#access_token=abc&state=1", "https://host/x#access_token=***&state=***"),
        ("https://host/x;jsessionid=abc", "https://host/x;jsessionid=***"),
        ("AccountName=a;AccountKey=Zm9v+/==;EndpointSuffix=x", "AccountName=a;AccountKey=***;EndpointSuffix=x"),
        ("Server=db;Pwd=hunter2;Database=d", "Server=db;Pwd=***;Database=d"),
        ("login of ann:hunter2@db.example.org:5432 failed", "login of ***@db.example.org:5432 failed"),
        ("ann:hunter2@127.0.0.1/x", "***@127.0.0.1/x"),
        ("HF_TOKEN=abc password='a b' x", "HF_TOKEN=*** password=*** x"),
        ("{'api_key': 'abc', 'n': 3}", "{'api_key': ***, 'n': 3}"),
        ("Authorization: Bearer abcdefgh12345", "Authorization: Bearer ***"),
        ("used hf_abcdefghijklmnopqrst here", "used *** here"),
        ("AKIAABCDEFGHIJKLMNOP and ghp_abcdefghijklmnop1234", "*** and ***"),
        # What is no credential stays readable.
        ("imagefolder:birds@2x and imagefolder:/data/a@b.org", "imagefolder:birds@2x and imagefolder:/data/a@b.org"),
        ("git@github.com:ann/repo", "git@github.com:ann/repo"),
        ("max_tokens=77 tokenizer=bert author=ann", "max_tokens=77 tokenizer=bert author=ann"),
        ("optim.weight_decay=1e-4 model.name=resnet18", "optim.weight_decay=1e-4 model.name=resnet18"),
        ("unexpected token: '}' at 12:30", "unexpected token: '}' at 12:30"),
    ],
)
def test_redaction(text, redacted):
    assert redact(text) == redacted


def test_a_password_repeated_by_a_library_is_removed_too():
    assert "hunter2" not in redact_known("login of ann with hunter2 failed", "http://ann:hunter2@h")


@pytest.mark.parametrize(
    ("command", "redacted"),
    [
        ("train.py --hf-token X --seed 3", "train.py --hf-token *** --seed 3"),
        ("train.py --password=X", "train.py --password=***"),
        ("train.py --password 1234", "train.py --password ***"),
        ("train.py --api_key X --apiKey X --APIKEY X", "train.py --api_key *** --apiKey *** --APIKEY ***"),
        ("train.py -token X --auth-token=X", "train.py -token *** --auth-token=***"),
        ("train.py --token --seed 3", "train.py --token --seed 3"),
        ("train.py --wandb-secret -X", "train.py --wandb-secret ***"),
        ("train.py --tokenizer bert --max-tokens 7", "train.py --tokenizer bert --max-tokens 7"),
        ("train.py --out a@b --data imagefolder:x@2x", "train.py --out a@b --data imagefolder:x@2x"),
        ("train.py --tracking-uri sqlite:////a@b/mlflow.db", "train.py --tracking-uri sqlite:////a@b/mlflow.db"),
        ("train.py --set loss.gamma=2.0", "train.py --set loss.gamma=2.0"),
    ],
)
def test_command_lines(command, redacted):
    assert redact_command(command.split()) == tuple(redacted.split())


def test_a_record_holds_no_secret_of_the_settings():
    config = {"hf_token": "s3cret", "nested": [{"db": "postgresql://u:s3cret@h/d"}], "note": "password=s3cret"}
    identity = RunIdentity(
        "loop", "mine", 0, config=config, data={"name": "https://u:s3cret@h", "classes": ["token=cat"]},
        command=("x.py", "--token", "s3cret"),
    )  # fmt: skip
    written = identity.to_json()
    assert "s3cret" not in json.dumps(written)
    assert written["data"]["classes"] == ["token=cat"]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_no_setting_of_a_recipe_looks_like_a_secret(recipe):
    for config in recipe_module(recipe).ARMS.values():
        encoded = encode(config)
        assert redact_settings(encoded) == encoded
