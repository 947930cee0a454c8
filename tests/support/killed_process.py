"""A forked process that SIGKILL ends just before its n-th change of a file, to test what a killed process loses."""

import os
import signal
import sys
import traceback
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch

from nc_tools.run_records import RunRecord

CHANGES = ("replace", "rename", "unlink", "rmdir")


def killed_before(number, action, counted=None):
    """Run an action in a forked process that is killed before a change, counted from 0; return whether it was killed.

    Args:
        number: Number of the change.
        action: What the process does.
        counted: Context manager that is given a function to call before each change. By default changes are renamed,
            replaced and removed files, and lines of metrics.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        left, status = [number], 1

        def count():
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            torch.set_num_threads(1)  # the threads of the parent do not exist here
            with (counted or changes_of_files)(count):
                action()
            status = 0
        except BaseException:  # noqa: BLE001 - the parent learns of it by the exit status
            traceback.print_exc()
        finally:
            os._exit(status)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL), f"the process ended with status {code}"
    return code != 0


@contextmanager
def changes_of_files(count):
    def counting(change):
        def counted(*arguments, **more):
            count()
            return change(*arguments, **more)

        return counted

    with ExitStack() as stack:
        stack.enter_context(mock.patch.multiple(os, **{name: counting(getattr(os, name)) for name in CHANGES}))
        stack.enter_context(mock.patch.object(RunRecord, "log", counting(RunRecord.log)))
        yield
