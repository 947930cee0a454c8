"""Imports go down only, heavy ones wait, and each dangerous thing has one owner."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import LONGEST

import nc_tools

ROOT = Path(nc_tools.__file__).parent
FLOORS = [
    {
        "_support",
        "class_moments",
        "decoding",
        "geometry",
        "plots",
        "records",
        "schedules",
        "seeds",
        "specs",
        "type_check",
    },
    {"heads", "losses", "metrics", "models", "ood", "surgery"},
    {"data", "features"},
    {"training", "run_records"},
    {"evaluation", "tracking", "transfer"},
    {"choosing", "comparison", "deployment", "experiment", "integrations", "measuring", "suspects"},
    {"cli", "cli_options", "cli_texts"},
    {""},  # nc_tools itself, which shows what stands below; its version belongs to nobody
]
FLOOR_OF = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}
FILES = sorted(ROOT.rglob("*.py"))


def part_of(dotted: str) -> str:
    return [*dotted.split("."), ""][1]


def dotted_name(file: Path) -> str:
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names that are imported, ``from nc_tools import heads`` as nc_tools.heads."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute, so that this test can read them"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def at_import_time(file: Path) -> ast.Module:
    """The statements that run when the module is imported: no function bodies, nothing for type checkers."""

    class Strip(ast.NodeTransformer):
        def visit_FunctionDef(self, _: ast.FunctionDef) -> None:
            return None

        def visit_If(self, node: ast.If) -> ast.AST | None:
            return None if "TYPE_CHECKING" in ast.unparse(node.test) else self.generic_visit(node)

    return Strip().visit(ast.parse(file.read_text(encoding="utf-8")))  # type: ignore[no-any-return]


@cache
def edges() -> set[tuple[str, str]]:
    """(importing part, imported part) over the whole package."""
    found = set()
    for file in FILES:
        above = part_of(dotted_name(file))
        below = {part_of(name) for name in imports(parsed(file)) if name.split(".")[0] == "nc_tools"}
        found |= {(above, part) for part in below if part not in (above, "__version__")}
    return found


def test_every_part_has_a_floor() -> None:
    assert {part_of(dotted_name(file)) for file in FILES} - {""} == set(FLOOR_OF) - {""}


def test_imports_go_down_only() -> None:
    upwards = {f"{above} imports {below}" for above, below in edges() if FLOOR_OF[above] < FLOOR_OF[below]}
    assert upwards == set()


def test_parts_of_one_floor_do_not_import_in_circles() -> None:
    graph: dict[str, set[str]] = {}
    for above, below in edges():
        graph.setdefault(above, set()).add(below)
    TopologicalSorter(graph).prepare()


def test_modules_do_not_import_in_circles() -> None:
    names = {dotted_name(file) for file in FILES}
    graph = {}
    for file in FILES:
        wanted = set()
        for name in imports(at_import_time(file)):
            target = name if name in names else name.rpartition(".")[0]
            wanted |= {target} & names
        graph[dotted_name(file)] = wanted - {dotted_name(file), dotted_name(file).rpartition(".")[0]}
    TopologicalSorter(graph).prepare()


def public_definitions() -> dict[str, set[str]]:
    """Public classes, functions and constants of every module, by name."""
    homes: dict[str, set[str]] = {}
    for file in FILES:
        for node in parsed(file).body:
            names: list[str] = []
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                names = [node.name]
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [target.id for target in targets if isinstance(target, ast.Name)]
            for name in names:
                if not name.startswith("_") and not (len(name) == 1 and name.isupper()):  # a type variable
                    homes.setdefault(name, set()).add(dotted_name(file))
    return homes


def test_a_public_name_has_one_home() -> None:
    twice = {name: sorted(homes) for name, homes in public_definitions().items() if len(homes) > 1}
    assert twice == {}, "give each a name of its own, or import one from the other"


def test_a_file_name_stands_once() -> None:
    homes: dict[str, list[str]] = {}
    for file in FILES:
        homes.setdefault(file.name, []).append(dotted_name(file))
    homes.pop("__init__.py")
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_files_are_short() -> None:
    long = {str(file.relative_to(ROOT)): n for file in FILES if (n := len(file.read_text().splitlines())) > 300}
    assert long == {}, "one idea a file"


def importers(package: str, *, when_imported: bool) -> set[str]:
    trees = {f: at_import_time(f) if when_imported else parsed(f) for f in FILES}
    return {dotted_name(f) for f, t in trees.items() if any(n.split(".")[0] == package for n in imports(t))}


def test_mlflow_has_one_owner() -> None:
    found = importers("mlflow", when_imported=False)
    assert found
    assert {part_of(name) for name in found} == {"tracking"}


# The modules that only the process that sends runs to MLflow imports.
SENDER = {
    f"nc_tools.tracking.{name}"
    for name in ("connection", "mirror", "mlflow_fields", "run_items", "runs_in_store", "send_item")
}


@pytest.mark.parametrize("package", ["mlflow", "torchvision", "timm", "sklearn", "matplotlib", "pandas"])
def test_heavy_packages_are_imported_inside_functions(package: str) -> None:
    assert importers(package, when_imported=True) <= (SENDER if package == "mlflow" else set())


def test_only_the_sending_process_imports_mlflow() -> None:
    names = {dotted_name(file): imports(at_import_time(file)) for file in FILES}
    importing = {name for name, wanted in names.items() if any(target.startswith(tuple(SENDER)) for target in wanted)}
    assert importing - SENDER == {"nc_tools.tracking.sync_process"}
    assert not any("sync_process" in target for wanted in names.values() for target in wanted)


def test_only_two_modules_train() -> None:
    def trains(node: ast.AST) -> bool:
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            return False
        return node.func.attr == "backward" or ast.unparse(node.func).endswith("optimizer.step")

    owners = {dotted_name(file) for file in FILES if any(trains(node) for node in ast.walk(parsed(file)))}
    assert owners == {"nc_tools.training.step", "nc_tools.training.packed.fit_pack"}


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    return set(json.loads(done.stdout))


@pytest.mark.slow
def test_a_head_is_built_without_sympy() -> None:
    """torch imports it, for half a second, when something is drawn on the meta device."""
    heads = "LinearHead(4, 3), CosineHead(4, 3), ETFHead(4, 3, projection=True), NearestETFHead(4, 3)"
    assert "sympy" not in loaded_by(f"from nc_tools.heads import *; {heads}")


@pytest.mark.parametrize("module", ["nc_tools", "nc_tools.cli"])
def test_the_command_and_the_package_load_at_once(module: str) -> None:
    heavy = {"torch", "numpy", "torchvision", "mlflow", "sklearn", "scipy", "matplotlib", "pandas", "rich", "timm"}
    assert loaded_by(f"import {module}") & heavy == set()


@pytest.mark.slow
def test_heads_and_losses_need_torch_alone() -> None:
    heavy = {"torchvision", "mlflow", "sklearn", "scipy", "matplotlib", "pandas", "rich", "jinja2", "pydantic", "timm"}
    loaded = loaded_by(
        "import nc_tools.heads, nc_tools.losses, nc_tools.surgery, nc_tools.geometry, nc_tools.metrics, nc_tools.models"
    )
    assert loaded & heavy == set()
    assert "torch" in loaded


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="needs the time of a single child")
def test_help_takes_less_than_a_third_of_a_second() -> None:
    def seconds() -> float:
        child = subprocess.Popen(
            [sys.executable, "-m", "nc_tools.cli", "--help"], stdout=subprocess.DEVNULL, cwd=ROOT.parent
        )
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 0
        return usage.ru_utime + usage.ru_stime

    assert min(seconds() for _ in range(3)) < 0.3


def test_variables_say_what_they_hold():
    """A name such as `found` says that something was found and not what it is."""
    vague = {"told", "known", "found", "said", "seen", "asked"}
    places = []
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(parsed(path)):
            stored = node.id if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else ""
            name = node.arg if isinstance(node, ast.arg) else stored
            if name in vague:
                places.append(f"{path.relative_to(ROOT)}:{node.lineno} {name}")
    assert places == []


def test_the_longest_test_files_exist() -> None:
    assert [name for name in LONGEST if not Path(__file__).with_name(name).exists()] == []
