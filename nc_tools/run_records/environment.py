"""The environment of a run, which may explain its numbers: commit, versions, hardware, command line."""

import platform
import subprocess
import sys
from functools import lru_cache
from importlib import import_module, metadata
from pathlib import Path

from nc_tools._support.available_cores import available_cores
from nc_tools.run_records.redact import redact_command

PACKAGES = ("nc_tools", "torch", "torchvision", "numpy", "scipy", "scikit-learn", "mlflow")


@lru_cache(maxsize=1)
def git_commit() -> str | None:
    """Return the Git commit of the running script, or else of the working directory; None if unknown."""
    script = Path(sys.argv[0]) if sys.argv and sys.argv[0] else Path()
    folder = script.resolve().parent if script.is_file() else Path.cwd()
    try:
        git = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return git.stdout.strip() or None if git.returncode == 0 else None


def command() -> tuple[str, ...]:
    """Return the command line of this process, without credentials."""
    return redact_command(sys.argv)


@lru_cache(maxsize=1)
def _versions() -> tuple[tuple[str, str], ...]:
    pairs = [("python", platform.python_version())]
    for name in PACKAGES:
        if name == "nc_tools":
            # The metadata of an editable install keep the version of the day on which it was made.
            pairs.append((name, str(import_module(name).__version__)))
            continue
        try:
            pairs.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return tuple(pairs)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that can change a result, without importing them."""
    return dict(_versions())


def hardware() -> str:
    """Return one line about the machine: processor, cores that this process may use, GPU if torch is imported."""
    usable = available_cores()
    text = f"{_processor()}, {usable} cores"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        text += f", {torch.cuda.get_device_name()}"
    return text


@lru_cache(maxsize=1)
def _processor() -> str:
    # On Linux only this file has the model's name; on other systems only platform.processor() has one.
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
