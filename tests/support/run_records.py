"""Records of short runs, and a process that writes one."""

import os
import subprocess
import sys
from pathlib import Path

import nc_tools
from nc_tools.run_records import RunIdentity, StoredRun, read_runs

SOURCE = Path(nc_tools.__file__).resolve().parents[1]


def identity(**changes) -> RunIdentity:
    """Return the identity of a final run of the arm etf."""
    return RunIdentity(**{"kind": "final", "arm": "etf", "seed": 0, "config": {"lr": 0.1}, **changes})


def run_python(body: str, root: Path, cwd: Path | None = None) -> subprocess.Popen[str]:
    """Start a training script whose record is ``run`` and which prints "ready" when the record exists."""
    script = f"""
import os, signal, sys, time
# A shell lets background processes ignore Ctrl-C; a program at a terminal does not ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
from nc_tools.run_records import RunIdentity, RunRecord, killed_on_sigterm
with killed_on_sigterm(), RunRecord.create({str(root)!r}, RunIdentity("final", arm="etf", seed=0)) as run:
    run.log(1, {{"train/loss": 1.0}})
    print("ready", flush=True)
{body}
"""
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )


def only_run(root: Path) -> StoredRun:
    """Read the only final run of an output folder."""
    (run,) = read_runs(root)
    return run
