"""Remove credentials from addresses (URLs) and command lines before they are written or printed."""

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

# A password may itself contain an "@" or a "/": everything up to the last "@" before a space or quote is removed.
_USERINFO = re.compile(r"(?<=://)[^\s'\"]*@")
_QUERY = re.compile(r"([?&][^=&\s'\"]+=)[^&\s'\"]+")


def redact(text: str) -> str:
    """Replace user names, passwords and query values of every address in ``text`` by ``***``.

    Example:
        >>> redact("https://ann:secret@host:5000/x failed")
        'https://***@host:5000/x failed'
        >>> redact("sqlite:////data/mlflow.db")
        'sqlite:////data/mlflow.db'
    """
    return re.sub(r"\w[\w+.-]*://[^\s'\"]+", lambda match: _redact_address(match.group()), text)


def _redact_address(address: str) -> str:
    return _QUERY.sub(r"\1***", _USERINFO.sub("***@", address))


def redact_known(text: str, uri: str) -> str:
    """Return ``text`` without credentials and without the password of ``uri``, even where it stands alone."""
    redacted = redact(text.replace(uri, redact(uri)))
    try:
        password = urlsplit(uri).password
    except ValueError:
        password = None
    return redacted.replace(password, "***") if password and len(password) > 2 else redacted


def redact_command(command: Sequence[str]) -> tuple[str, ...]:
    """Return a command line without credentials.

    Example:
        >>> redact_command(["train.py", "--tracking-uri=http://ann:secret@host:5000"])
        ('train.py', '--tracking-uri=http://***@host:5000')
    """
    return tuple(redact(str(word)) for word in command)
