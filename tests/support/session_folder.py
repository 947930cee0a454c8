"""The folder of a test session, which its processes share."""

import os
from pathlib import Path


def session_folder(tmp_path_factory) -> Path:
    """Return the folder for what is made once in a test session, for all processes of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
