"""The Dockerfile without an engine: its steps are those of the README and of docs/scale.md."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
STEPS = [
    line.partition(" ")[::2]
    for line in (ROOT / "Dockerfile").read_text().splitlines()
    if line and not line.startswith("#")
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PAGES = {name: (ROOT / name).read_text() for name in ("README.md", "docs/scale.md")}


def arguments(**given):
    """The values of the build arguments: the given ones, and else the defaults."""
    named = dict(rest.partition("=")[::2] for step, rest in STEPS if step == "ARG")
    assert given.keys() <= named.keys()
    return named | given


def filled(text, values):
    """A line of the file with its build arguments filled in; an unknown one is an error."""
    return re.sub(r"\$\{(\w+)\}", lambda match: values[match[1]], text)


def steps(name):
    return [rest for step, rest in STEPS if step == name]


@pytest.mark.parametrize(("given", "page"), [({}, "README.md"), ({"EXTRAS": "[ray]"}, "docs/scale.md")])
def test_each_step_is_a_command_of_the_pages(given, page):
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGES[page], re.DOTALL | re.MULTILINE)
    commands = [shlex.split(line, comments=True) for line in "".join(blocks).splitlines()]
    assert steps("RUN")
    for step in steps("RUN"):
        assert shlex.split(filled(step, arguments(**given))) in commands


def test_the_base_has_a_python_that_the_package_allows():
    (base,) = steps("FROM")
    version = re.fullmatch(r"python:(\d+\.\d+)-slim", filled(base, arguments()))[1]
    assert version in SpecifierSet(PROJECT["requires-python"])


def test_what_the_build_reads_is_copied_and_not_ignored():
    copied = {word for step in steps("COPY") for word in step.split()[:-1]}
    assert all((ROOT / name).exists() for name in copied)
    assert {"pyproject.toml", "nc_tools", PROJECT["readme"], *PROJECT["license-files"]} <= copied
    assert not copied & set((ROOT / ".dockerignore").read_text().split())


def test_the_commands_of_the_page_give_arguments_that_the_file_has():
    block = next(block for block in re.findall(r"^```text\n(.*?)^```", PAGES["docs/scale.md"], re.DOTALL | re.MULTILINE)
                 if block.startswith("docker"))  # fmt: skip
    given = re.findall(r"--build-arg (\w+)=(\S+)", block)
    assert {name for name, _ in given} == arguments().keys() == {"BASE", "EXTRAS"}
    extras = {part for name, value in given if name == "EXTRAS" for part in value.strip("[]").split(",")}
    assert extras <= PROJECT["optional-dependencies"].keys()
    for recipe in re.findall(r"/nc_tools/(recipes/\S+)", block):
        assert (ROOT / recipe).exists()
