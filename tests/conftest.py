"""The order of the test files, and what several of them set."""

import pytest
import torch

# The files that take longest, which are the first, so that no process waits for the other at the end of `make test`.
LONGEST = (
    "test_recipes.py",
    "test_experiment_killed_runs.py",
    "test_cluster.py",
    "test_documentation.py",
    "test_tracking_sync_server.py",
    "test_arms_contract.py",
    "test_heads_saved_everywhere.py",
    "test_compatibility.py",
    "test_pages_in_a_browser.py",
    "test_comparison_coverage.py",
    "test_experiment_workers.py",
    "test_tutorial.py",
    "test_gpu_script.py",
    "test_fine_tuning_page.py",
    "test_geometry_code_bounds.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files of ``LONGEST`` before the others, which keep their order."""
    place = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture
def one_thread():
    """Let this process add up in the order of a worker with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
