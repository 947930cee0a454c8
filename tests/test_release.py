"""What a release needs: one version, a wheel and a source archive that install and work, and metadata."""

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.version import Version

import nc_tools

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_version_stands_in_one_place():
    assert "version" not in PROJECT
    assert PROJECT["dynamic"] == ["version"]
    Version(nc_tools.__version__)
    files = [ROOT / "pyproject.toml", ROOT / "CITATION.cff", *ROOT.glob("docs/conf.py"), *ROOT.glob("nc_tools/**/*.py")]
    holders = [file for file in files if f'"{nc_tools.__version__}"' in file.read_text()]
    assert holders == [ROOT / "nc_tools" / "__init__.py"]


def test_the_citation_is_complete_and_of_this_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation.keys() >= {"cff-version", "message", "title", "authors", "license", "type"}
    assert citation["license"] == PROJECT["license"]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in PROJECT["authors"]]


def test_the_constraints_are_the_versions_of_the_newest_tables():
    lines = (ROOT / "benchmarks" / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    # Those with their records beside them; older tables name their own versions.
    records = (ROOT / "benchmarks" / "results").glob("*.tar.xz")
    tables = [file.with_name(file.name.replace(".tar.xz", ".md")).read_text() for file in records]
    recorded = [dict(re.findall(r"([\w-]+) ([\d.]+\d)", line)) for page in tables
                for line in re.findall(r"^- \*\*Versions\*\*: (.*)$", page, re.MULTILINE)]  # fmt: skip
    assert len(recorded) >= 7
    for versions in recorded:
        assert {name: versions[name] for name in pinned} == pinned
    floors = {re.match(r"[\w-]+", text)[0]: text.partition(">=")[2] for text in PROJECT["dependencies"]}
    assert all(Version(pinned[name]) >= Version(floors[name]) for name in pinned)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The files that Git tracks, the source archive made from them, and the wheel made from that archive."""
    folder = tmp_path_factory.mktemp("build")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("needs a Git checkout, which says what belongs to the source")
    names = [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    for name in names:
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / "source" / name)
    call(folder / "source", "-c", f"import setuptools.build_meta as build; build.build_sdist({str(folder)!r})")
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    call(folder, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir",
         str(folder), str(unpacked))  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    return names, archive, wheel


def call(folder, *words, **environment):
    """Run Python in a folder, without the checkout on its path."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=variables | environment, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(built):
    names, _, wheel = built
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        facts = email.message_from_bytes(archive.read(metadata))
        assert any(name.endswith(".dist-info/licenses/LICENSE") for name in archive.namelist())
    assert held == {name for name in names if name.startswith("nc_tools/")}
    assert facts["Name"] == "nc_tools"
    assert facts["Version"] == nc_tools.__version__
    assert facts["Requires-Python"] == PROJECT["requires-python"]
    assert set(facts.get_all("Classifier")) == set(PROJECT["classifiers"])


@pytest.mark.slow
def test_the_wheel_is_installed_and_compares_runs_with_the_network_switched_off(built, tmp_path):
    site = tmp_path / "site"
    call(tmp_path, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(site), str(built[2]))
    shutil.copytree(ROOT / "tests" / "data" / "records_0_1", tmp_path / "out")
    said = call(tmp_path, "-c", "import nc_tools; print(nc_tools.__file__, nc_tools.__version__)", PYTHONPATH=str(site))
    assert said.split() == [str(site / "nc_tools" / "__init__.py"), nc_tools.__version__]
    call(tmp_path, "-m", "nc_tools.cli", "compare", "out", "--tracking-uri", "none", PYTHONPATH=str(site))
    assert (tmp_path / "out" / "report" / "comparison.html").exists()
    assert (site / "bin" / "nc-tools").exists()
