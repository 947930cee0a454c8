"""Heads, losses, measures and comparisons use nothing that only Linux or only POSIX has.

The tests run on Linux. Here a process lacks the modules and calls that macOS or Windows do not have, and uses each of
these parts.
"""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

# What Windows lacks, and what macOS lacks too: /proc and the cores that a process may use.
WITHOUT = """
import builtins, io, os, pathlib, sys
import torch, psutil  # their own imports are their makers' to keep portable
for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog"):
    sys.modules[name] = None
calls = "sched_getaffinity fork wait4 getuid geteuid mkfifo O_NONBLOCK uname getpgid setsid killpg statvfs"
for name in calls.split():
    if hasattr(os, name):
        delattr(os, name)
opened = io.open
def checked(file, *args, **kwargs):
    caller = sys._getframe(1)
    while caller is not None and "pathlib" in caller.f_code.co_filename:
        caller = caller.f_back
    if str(file).startswith(("/proc", "/sys", "/dev")) and "nc_tools" in caller.f_code.co_filename:
        raise FileNotFoundError(2, "no such file on this system", str(file))
    return opened(file, *args, **kwargs)
io.open = builtins.open = checked
"""
USES = {
    "heads": """
import nc_tools
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 8), torch.nn.Linear(8, 3))
nc_tools.swap_head(model, nc_tools.ETFHead)
model(torch.randn(4, 12)).sum().backward()
assert nc_tools.ETFHead(8, 3).weight.shape == (3, 8)
""",
    "losses": """
import nc_tools
loss = nc_tools.LogitAdjustedLoss([5, 3, 1])(torch.randn(4, 3, requires_grad=True), torch.tensor([0, 1, 2, 0]))
loss.backward()
assert torch.isfinite(loss)
""",
    "measures": """
import nc_tools
images, labels = torch.randn(30, 12), torch.arange(30) % 3
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=8)
values = nc_tools.measure(torch.nn.Sequential(torch.nn.Linear(12, 8), torch.nn.Linear(8, 3)), loader)
assert values["nc/nc1_pinv"] > 0
""",
    "compare": """
import tempfile
import nc_tools
from nc_tools.run_records import RunIdentity, RunRecord
out = tempfile.mkdtemp()
for arm, gain in {"linear": 0.0, "etf": 0.02}.items():
    for seed in range(3):
        with RunRecord.create(out, RunIdentity("loop", arm, seed)) as run:
            run.log(1, {"train/loss": 0.5})
            run.finish({"test/gen/balanced_accuracy": 0.7 + gain + 0.01 * seed + 0.001 * gain * seed})
comparison = nc_tools.compare(out, out=out + "/report")
assert comparison.test("etf").paired.n == 3
assert (pathlib.Path(out) / "report" / "comparison.html").exists()
""",
}


@pytest.mark.parametrize("part", USES)
def test_it_is_used_where_a_system_lacks_what_linux_has(part):
    done = subprocess.run([sys.executable, "-c", WITHOUT + USES[part]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_check_would_see_a_call_that_only_linux_has():
    for call in ("import fcntl", "os.sched_getaffinity(0)"):
        done = subprocess.run([sys.executable, "-c", f"{WITHOUT}\n{call}"], capture_output=True, text=True, check=False)
        assert done.returncode == 1, call
