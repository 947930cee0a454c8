"""How many processes make the runs."""

import pytest

from nc_tools.experiment.worker_count import worker_count


def test_one_worker_for_each_core_or_one_on_a_gpu(monkeypatch):
    monkeypatch.setattr("nc_tools.experiment.worker_count.available_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert worker_count(None, "cpu") == (8, 1)
    assert worker_count(None, "cuda:1") == (1, 8)
    assert worker_count(3, "cpu") == (3, 2)
    assert worker_count(16, "cuda") == (16, 1)
    with pytest.raises(ValueError, match="--workers must be at least 1, got 0"):
        worker_count(0, "cpu")


@pytest.mark.parametrize(
    ("given", "threads"), [("1", 1), ("3", 3), (" 2,4", 2), ("64", 4), ("0", 1), ("", 4), ("many", 4), ("-1", 4)]
)
def test_no_worker_has_more_threads_than_the_environment_says(monkeypatch, given, threads):
    monkeypatch.setattr("nc_tools.experiment.worker_count.available_cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert worker_count(2, "cpu") == (2, threads)
