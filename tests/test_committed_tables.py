"""The committed tables: the records beside each of them give the table again."""

import csv
import importlib.util
import io
import json
import math
import shutil
import tarfile
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

import nc_tools
from nc_tools.comparison.export import comparison_csv

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
RECORDS = Path(__file__).parent / "data" / "records_0_1"
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
    committed = archive.with_name(archive.name.removesuffix(".tar.xz") + ".csv").read_text()
    rows, again = (list(csv.reader(io.StringIO(text))) for text in (committed, comparison_csv(comparison)))
    assert len(rows) == len(again) > 1
    different = [(one, other) for one, other in zip(rows, again, strict=True) if not all(map(alike, one, other))]
    assert different == []


def alike(one, other):
    """Return whether two cells are the same, numbers up to the last digits, which differ between versions of scipy."""
    try:
        return math.isclose(float(one), float(other), rel_tol=1e-6)
    except ValueError:
        return one == other


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


RUN = "etf-s0-d0-final-896f0939"


def write_anew(out: Path, page: Path, monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["table.py", str(out), str(page)])
    table_script().main()


def test_records_without_logits_are_packed_again_as_they_are(tmp_path, monkeypatch):
    out = shutil.copytree(RECORDS, tmp_path / "out")
    script = table_script()
    files = sorted(out.glob("runs/*/predictions.safetensors"))
    for file in files:
        save_file(script.without_logits(load_file(file)), file)
    write_anew(out, tmp_path / "page.md", monkeypatch)
    with tarfile.open(tmp_path / "page.tar.xz") as tar:
        packed = [tar.extractfile(str(file.relative_to(out))).read() for file in files]
    assert packed == [file.read_bytes() for file in files]


def test_runs_that_do_not_say_what_their_data_are_have_a_page(tmp_path, monkeypatch):
    out = shutil.copytree(RECORDS, tmp_path / "out")
    for file in out.glob("runs/*/run.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "data": {}}))
    write_anew(out, tmp_path / "page.md", monkeypatch)
    assert "- **Data**: not named, 268 test images.\n" in (tmp_path / "page.md").read_text()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda out: (out / "runs" / RUN / "predictions.safetensors").write_bytes(b"no"), "cannot be read"),
        (lambda out: shutil.rmtree(out / "runs"), "has no folder runs/"),
    ],
)
def test_damaged_records_are_refused_in_one_sentence_and_no_file_is_changed(
    tmp_path, monkeypatch, capsys, damage, message
):
    out = shutil.copytree(RECORDS, tmp_path / "out")
    damage(out)
    (tmp_path / "page.md").write_text("# As it was\n")
    with pytest.raises(SystemExit) as end:
        write_anew(out, tmp_path / "page.md", monkeypatch)
    assert end.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "page.md"]
    assert (tmp_path / "page.md").read_text() == "# As it was\n"
