"""Generate mutants with cosmic-ray: one operator, applied at one place of one module."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
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

    def is_listed(self, item: Mapping[str, str]) -> bool:
        """Return True if an entry of survivors.toml describes this mutant."""
        about = {"module": str(self.module), "operator": self.operator, "code": self.code, "becomes": self.becomes}
        return about.items() <= item.items()


def mutants_of(module: Path, operators: Sequence[str]) -> Iterator[Mutant]:
    """Yield every mutant of a module, except in type annotations and decorators, where they change no result."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code

    source = module.read_text(encoding="utf-8")
    rows = source.splitlines()
    nodes = list(ast.walk(ast.parse(source)))
    left_out: list[Any] = [node.annotation for node in nodes if isinstance(node, ast.arg | ast.AnnAssign)]
    left_out += [node.returns for node in nodes if isinstance(node, ast.FunctionDef)]
    left_out += [item for node in nodes for item in getattr(node, "decorator_list", ())]
    spans = [((x.lineno, x.col_offset), (x.end_lineno, x.end_col_offset)) for x in left_out if x is not None]
    for name in operators:
        operator = _operator(name)
        places = [start for node in ast_nodes(get_ast(source)) for start, _ in operator.mutation_positions(node)]
        for occurrence, place in enumerate(places):
            keyword_only = rows[place[0] - 1].startswith("*,", place[1])  # in a signature: no product
            if not keyword_only and not any(start <= place < end for start, end in spans):
                mutated = mutate_code(source, operator, occurrence)
                pairs = zip(rows, mutated.splitlines(), strict=False)
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
