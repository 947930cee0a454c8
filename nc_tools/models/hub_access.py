"""Downloads from the Hugging Face Hub: read the local cache at once where the Hub cannot be reached."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit


@contextmanager
def hub_access() -> Iterator[None]:
    """Let huggingface_hub read its local cache only, if the name of the Hub cannot be resolved.

    Otherwise its client tries every file six times and prints a warning each time, so that without a network an error
    takes a minute. Behind a proxy, which resolves names itself, nothing is changed.

    Raises:
        OSError: If the Hub cannot be reached and a file is not in the cache.
    """
    try:
        from huggingface_hub import constants
    except ImportError:  # then neither timm nor transformers downloads anything
        yield
        return
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _resolves(constants.ENDPOINT)
    try:
        yield
    except OSError as error:
        if constants.HF_HUB_OFFLINE and not before and _not_in_cache(error):
            raise OSError(f"{urlsplit(constants.ENDPOINT).hostname} cannot be reached") from error
        raise
    finally:
        constants.HF_HUB_OFFLINE = before


def _resolves(endpoint: str) -> bool:
    """Return whether the name of a server can be resolved here, or by a proxy."""
    host = urlsplit(endpoint).hostname or ""
    proxies = urllib.request.getproxies()
    if any(kind in proxies for kind in ("https", "http", "all")) and not urllib.request.proxy_bypass(host):
        return True
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True


def _not_in_cache(error: BaseException | None) -> bool:
    """Return whether an error comes from a file that is not in the local cache."""
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    while error is not None:
        if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
            return True
        error = error.__cause__ or error.__context__
    return False
