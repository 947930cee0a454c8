"""Taking credentials out of addresses before anything is written or printed."""

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

# A password may itself hold an "@" or a "/": everything up to the last "@" before a space or quote is cut.
_USERINFO = re.compile(r"(?<=://)[^\s'\"]*@")
_QUERY = re.compile(r"([?&][^=&\s'\"]+=)[^&\s'\"]+")


def redact(text: str) -> str:
    """Hide user names, passwords and query values of every address in ``text``.

    Example:
        >>> redact("https://ann:secret@host:5000/x failed")
        'https://***@host:5000/x failed'
        >>> redact("sqlite:////data/mlflow.db")
        'sqlite:////data/mlflow.db'
    """
    return re.sub(r"\w[\w+.-]*://[^\s'\"]+", lambda found: _redact_address(found.group()), text)


def _redact_address(address: str) -> str:
    return _QUERY.sub(r"\1***", _USERINFO.sub("***@", address))


def redact_known(text: str, uri: str) -> str:
    """As ``redact``, and hide the password of ``uri`` wherever else a library repeats it."""
    hidden = redact(text.replace(uri, redact(uri)))
    try:
        password = urlsplit(uri).password
    except ValueError:
        password = None
    return hidden.replace(password, "***") if password and len(password) > 2 else hidden


def redact_command(command: Sequence[str]) -> tuple[str, ...]:
    """Return a command line that may be kept in a record.

    Example:
        >>> redact_command(["train.py", "--tracking-uri=http://ann:secret@host:5000"])
        ('train.py', '--tracking-uri=http://***@host:5000')
    """
    return tuple(redact(str(word)) for word in command)
