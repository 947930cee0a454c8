"""Generate mutants with cosmic-ray: one operator, applied at one place of one module."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType
from typing import Any


@dataclass(frozen=True)
class Mutant:
    """One change of one module.

    Attributes:
        module: The module's path, relative to the repository.
        operator: Name of cosmic-ray's operator.
        line: Number of the changed line.
        code: Text of the line.
        becomes: Text of the line in the mutant.
        source: Source of the mutant.
    """

    module: Path
    operator: str
    line: int
    code: str
    becomes: str
    source: str


def mutants_of(module: Path, operators: Sequence[str]) -> Iterator[Mutant]:
    """Yield every mutant of a module, except those of type annotations, which change no result."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code

    source = module.read_text(encoding="utf-8")
    nodes = list(ast.walk(ast.parse(source)))
    annotations: list[Any] = [node.annotation for node in nodes if isinstance(node, ast.arg | ast.AnnAssign)]
    annotations += [node.returns for node in nodes if isinstance(node, ast.FunctionDef)]
    spans = [((a.lineno, a.col_offset), (a.end_lineno, a.end_col_offset)) for a in annotations if a is not None]
    for name in operators:
        operator = _operator(name)
        places = [start for node in ast_nodes(get_ast(source)) for start, _ in operator.mutation_positions(node)]
        for occurrence, place in enumerate(places):
            if not any(start <= place < end for start, end in spans):
                mutated = mutate_code(source, operator, occurrence)
                pairs = zip(source.splitlines(), mutated.splitlines(), strict=False)
                number, code, becomes = next((n, *pair) for n, pair in enumerate(pairs, 1) if pair[0] != pair[1])
                yield Mutant(module, name, number, code.strip(), becomes.strip(), mutated)


def _operator(name: str) -> Any:
    from cosmic_ray.plugins import get_operator

    return get_operator(f"core/{name}")()


class MutatedLoader(SourceFileLoader):
    """Finder and loader of one module: its code is the mutant's, its name and file are the module's own."""

    def __init__(self, mutant: Mutant) -> None:
        path = str(mutant.module.resolve())
        super().__init__(".".join(mutant.module.with_suffix("").parts).removesuffix(".__init__"), path)
        self.mutated = compile(mutant.source, path, "exec")
        sys.meta_path.insert(0, self)

    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        """Return a spec for the mutated module alone."""
        return spec_from_file_location(fullname, self.path, loader=self) if fullname == self.name else None

    def get_code(self, _: str) -> CodeType:
        """Return the mutated code."""
        return self.mutated
