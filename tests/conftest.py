"""The order of the test files: the longest first, so that no process waits for the other at the end of `make test`."""

import pytest

LONGEST = (
    "test_recipes.py",
    "test_documentation.py",
    "test_tracking_sync_server.py",
    "test_arms_contract.py",
    "test_heads_saved_everywhere.py",
    "test_compatibility.py",
    "test_pages_in_a_browser.py",
    "test_comparison_coverage.py",
    "test_choose_command.py",
    "test_tutorial.py",
    "test_gpu_script.py",
    "test_fine_tuning_page.py",
    "test_outliers_runs.py",
    "test_geometry_code_bounds.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files of ``LONGEST`` before the others, which keep their order."""
    place = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))
