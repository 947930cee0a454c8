"""The committed tables: the records beside each of them give the table again."""

import importlib.util
import tarfile
from pathlib import Path

import pytest

import nc_tools
from nc_tools.comparison.export import comparison_csv

ROOT = Path(__file__).parents[1]
ARCHIVES = sorted((ROOT / "benchmarks" / "results").glob("*.tar.xz"))


def table_script():
    spec = importlib.util.spec_from_file_location("table", ROOT / "benchmarks" / "table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.name)
def test_the_records_give_the_committed_table(archive, tmp_path):
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    comparison = nc_tools.compare(tmp_path)
    page = archive.with_name(archive.name.removesuffix(".tar.xz") + ".md").read_text()
    script = table_script()
    assert page.partition(script.MARKER)[2].strip() == script.page_text(comparison).strip()
    csv = archive.with_name(archive.name.removesuffix(".tar.xz") + ".csv").read_text()
    assert csv == comparison_csv(comparison)


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.name)
def test_records_hold_no_weights_and_no_name_of_a_machine(archive):
    with tarfile.open(archive) as tar:
        names = tar.getnames()
        text = b"".join(tar.extractfile(name).read() for name in names if name.endswith(".json"))
    assert not any("weights" in name or "checkpoint" in name for name in names)
    assert b'"host"' not in text
    assert b'"/' not in text  # no absolute path


def test_the_script_packs_a_comparison_that_can_be_made_again(tmp_path, monkeypatch):
    from support.comparison_records import write_output

    out = write_output(tmp_path / "out", images=100, epochs=3, broken=False)
    page = tmp_path / "page.md"
    script = table_script()
    monkeypatch.setattr("sys.argv", ["table.py", str(out), str(page)])
    script.main()
    page.write_text("# A title\n\nWhat it shows.\n\n" + script.MARKER + page.read_text().partition(script.MARKER)[2])
    script.main()
    assert page.read_text().startswith("# A title\n\nWhat it shows.\n\n" + script.MARKER)
    with tarfile.open(page.with_suffix(".tar.xz")) as tar:
        tar.extractall(tmp_path / "again", filter="data")
    again = nc_tools.compare(tmp_path / "again")
    assert page.read_text().partition(script.MARKER)[2].strip() == script.page_text(again).strip()
