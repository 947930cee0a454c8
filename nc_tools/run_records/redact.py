"""Remove credentials from addresses (URLs), command lines and settings before they are written or printed."""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

_HIDDEN = "***"
_LAST_WORD = (
    r"(?:password|passwd|passphrase|pwd|token|secret|credentials?|signature|sig|auth|authorization"
    r"|(?:api|access|account|private|secret|shared|storage|encryption)[-_ ]?key)"
)
# The last word of a name says what it is: hf_token is a secret, max_tokens and tokenizer are not.
_HIDES_VALUE = re.compile(rf".*{_LAST_WORD}", re.IGNORECASE | re.DOTALL)
_QUOTED = r"\"[^\"]*\"|'[^']*'"
_ASSIGNED = re.compile(
    rf"((?<![A-Za-z])[\w.-]*{_LAST_WORD}[\"']?(?:\s*=\s*|(?<=[\"'])\s*:\s*))({_QUOTED}|[^\s;&#'\",}}]+)", re.IGNORECASE
)
_BEARER = re.compile(r"\b((?:bearer|basic)\s+)[\w.~+/=-]{8,}", re.IGNORECASE)
# Tokens of well-known services (Hugging Face, GitHub, OpenAI, AWS, Slack, Google, Databricks, JSON web tokens).
_KNOWN_TOKEN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{20,}|sk-[\w-]{20,}|AKIA[0-9A-Z]{16}"
    r"|xox[a-z]-[\w-]{10,}|AIza[\w-]{30,}|dapi[0-9a-f]{32}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)"
)
# user:password@host without a scheme, only if what follows "@" is certainly a host: birds@2x may be a folder.
_LOGIN = re.compile(
    r"(?<![\w/:.@])(?!(?:imagefolder|cifar10|cifar100|timm|torchvision):)[\w.+-]+:[^\s:/@'\"]+@"
    r"(?=(?:localhost|(?:[\w-]+\.)+[A-Za-z]{2,}|\d+(?:\.\d+){3})(?:[:/\s'\"]|$))"
)
_ADDRESS = re.compile(r"\w[\w+.-]*://[^\s'\"]+")
_QUERY = re.compile(r"([?&#;][^=&#;\s'\"]+=)[^&#;\s'\"]+")


def redact_addresses(text: str) -> str:
    """Replace user names, passwords, and values of queries and fragments of every address in ``text`` by ``***``.

    Example:
        >>> redact_addresses("https://ann:secret@host:5000/x#token=abc failed")
        'https://***@host:5000/x#token=*** failed'
        >>> redact_addresses("sqlite:////data@home/mlflow.db")
        'sqlite:////data@home/mlflow.db'
    """
    return _ADDRESS.sub(lambda match: _redact_address(match.group()), text)


def redact(text: str) -> str:
    """Remove from a text the credentials in addresses, in assignments such as ``token=...``, and well-known tokens.

    Example:
        >>> redact("AccountName=a;AccountKey=Zm9v==;Server=ann:secret@db.example.org")
        'AccountName=a;AccountKey=***;Server=***@db.example.org'
    """
    text = _ASSIGNED.sub(rf"\g<1>{_HIDDEN}", redact_addresses(text))
    text = _BEARER.sub(rf"\g<1>{_HIDDEN}", text)
    return _LOGIN.sub(f"{_HIDDEN}@", _KNOWN_TOKEN.sub(_HIDDEN, text))


def redact_known(text: str, uri: str) -> str:
    """Return ``text`` without credentials, and without the password of ``uri`` where it stands outside an address.

    A password of one or two characters is removed only inside addresses.
    """
    redacted = redact(text.replace(uri, redact(uri)))
    try:
        password = urlsplit(uri).password
    except ValueError:
        password = None
    return redacted.replace(password, _HIDDEN) if password and len(password) > 2 else redacted


def redact_command(command: Sequence[str]) -> tuple[str, ...]:
    """Return a command line without credentials.

    Example:
        >>> redact_command(["train.py", "--hf-token", "abc", "--tracking-uri=http://ann:secret@host:5000"])
        ('train.py', '--hf-token', '***', '--tracking-uri=http://***@host:5000')
    """
    words: list[str] = []
    follows_secret = False
    for word in map(str, command):
        is_value = follows_secret and not word.startswith("--")
        words.append(_HIDDEN if is_value else redact(word))
        follows_secret = word.startswith("-") and _is_secret_name(word.lstrip("-"))
    return tuple(words)


def redact_settings(value: Any) -> Any:
    """Return nested settings without credentials: neither in a text nor under a name such as ``hf_token``.

    Example:
        >>> redact_settings({"hf_token": "abc", "max_tokens": 77, "data": ["http://ann:secret@host"]})
        {'hf_token': '***', 'max_tokens': 77, 'data': ['http://***@host']}
    """
    if isinstance(value, Mapping):
        return {
            key: _HIDDEN if isinstance(item, str) and item and _is_secret_name(str(key)) else redact_settings(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact_settings(item) for item in value]
    return redact(value) if isinstance(value, str) else value


def _is_secret_name(name: str) -> bool:
    return _HIDES_VALUE.fullmatch(name) is not None


def _redact_address(address: str) -> str:
    scheme, _, rest = address.partition("://")
    login, at, host = rest.rpartition("@")
    # A password may itself contain "@" or "/". But an "@" after the first "/" belongs to a path, unless a ":" comes
    # before that "/".
    has_login = at and not rest.startswith("/") and ("/" not in login or ":" in login.partition("/")[0])
    return _QUERY.sub(rf"\g<1>{_HIDDEN}", f"{scheme}://{_HIDDEN}@{host}" if has_login else address)
