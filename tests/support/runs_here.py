"""Recipes and commands whose runs are made in this process, without the seconds in which new processes import torch."""

import contextlib
import shutil
from unittest import mock

import torch

from nc_tools.experiment.run_pack import error_result, run_pack
from nc_tools.experiment.workers import set_arithmetic
from nc_tools.tracking.mlflow_sync import MlflowSync

POOLS = ("nc_tools.experiment.run_plan.Workers", "nc_tools.experiment.on_features.run_seeds.Workers")


class WorkersHere:
    """Makes the runs that :class:`~nc_tools.experiment.workers.Workers` makes in processes, one after the other.

    Real worker processes are tested in test_experiment_workers.py.
    """

    def __init__(self, _count, threads, make_run=None):
        self._threads = threads
        self._make_run = make_run or run_pack

    def __enter__(self):
        self._settings = contextlib.ExitStack()
        self._settings.callback(torch.set_num_threads, torch.get_num_threads())
        self._settings.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
        self._settings.callback(torch.use_deterministic_algorithms, torch.are_deterministic_algorithms_enabled())
        set_arithmetic(self._threads)
        return self

    def __exit__(self, *_):
        self._settings.close()

    def run(self, jobs, *, stop, on_progress, on_result):
        results = []
        for job in jobs:
            try:
                result = self._make_run(job, on_progress, stop)
            except Exception as error:  # noqa: BLE001 - as in a worker: one run's error must not end the others
                result = error_result(error)
            on_result(job, result)
            results.append(result)
        return results


@contextlib.contextmanager
def runs_here():
    """Make the runs of recipes and commands in this process."""
    with contextlib.ExitStack() as stack:
        for pool in POOLS:
            stack.enter_context(mock.patch(pool, WorkersHere))
        yield


@contextlib.contextmanager
def sync_here(store=None):
    """Send runs to MLflow at the end of a block from this process, which has imported MLflow once.

    Args:
        store: A SQLite store with tables, which is copied where one is missing; see ``support.mlflow_store``.
    """
    from nc_tools.tracking.mirror import Mirror

    def stop(sync):
        if store is not None and sync.store.database is not None and not sync.store.database.exists():
            shutil.copy(store, sync.store.database)
        sync.report = Mirror(sync.root, sync.store).push()
        return sync.report

    with mock.patch.multiple(MlflowSync, start=lambda *_, **__: None, stop=stop):
        yield
