"""Settings of the documentation site: ``make docs`` builds it into docs/_build."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path
from types import ModuleType
from typing import Any, get_origin

from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

import nc_tools

HERE = Path(__file__).resolve().parent

project = "nc_tools"
author = "the nc_tools developers"
version = release = nc_tools.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
exclude_patterns = ["_build"]
html_theme = "pydata_sphinx_theme"
html_title = f"nc_tools {release}"
html_theme_options = {
    "show_prev_next": False,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
}
html_sidebars = {"index": [], "architecture": [], "changelog": []}
html_context = {"default_mode": "auto"}  # without it the theme logs an error at the first visit
html_show_sourcelink = False
myst_heading_anchors = 3
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
napoleon_use_ivar = True
napoleon_use_rtype = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# The packages whose public names have a page, in the order of the site.
FAMILIES = (
    "heads", "losses", "schedules", "surgery", "measuring", "metrics", "ood", "geometry", "transfer", "data",
    "features", "training", "experiment", "comparison", "tracking", "run_records", "deployment", "suspects",
    "integrations", "models",
)  # fmt: skip


def write_api_pages(_app: Sphinx) -> None:
    """Write a reference page for each package of public names, and their list."""
    folder = HERE / "api"
    folder.mkdir(exist_ok=True)
    lines = ["# Reference", "", "Every public name, by package.", "", "| package | what it holds |", "|---|---|"]
    for family in FAMILIES:
        name = f"nc_tools.{family}"
        module = importlib.import_module(name)
        lines.append(f"| [{name}]({family}.rst) | {_headline(module)} |")
        text = f"{name}\n{'=' * len(name)}\n\n.. automodule:: {name}\n   :members:\n   :show-inheritance:\n"
        for constant, meaning in constants(module).items():
            text += f"\n.. py:data:: {constant}\n   :module: {name}\n\n   {meaning}\n"
        _write(folder / f"{family}.rst", text)
    lines += ["", "```{toctree}", ":hidden:", "", *FAMILIES, "```", ""]
    _write(folder / "index.md", "\n".join(lines))


def public_names(module: ModuleType) -> list[str]:
    """Return the public names of a package, or those that a single module defines."""
    own = [n for n, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    return list(getattr(module, "__all__", [name for name in own if not name.startswith("_")]))


def constants(module: ModuleType) -> dict[str, str]:
    """Return what autodoc leaves out of a package, such as ``LEARNED`` or the name of a type, with its description.

    The description stands below the name in the file that defines it, or is that of the value's own class.
    """
    described = _attribute_docs(module.__name__)
    names = [name for name in public_names(module) if not callable(getattr(module, name)) and name not in described]
    names += [n for n in public_names(module) if get_origin(getattr(module, n)) is not None and n not in described]
    for found in pkgutil.walk_packages(getattr(module, "__path__", []), f"{module.__name__}."):
        described = _attribute_docs(found.name) | described
    return {name: described.get(name) or _own_headline(getattr(module, name)) for name in dict.fromkeys(names)}


def _attribute_docs(module: str) -> dict[str, str]:
    """Return the docstrings below the assignments of a module, by name."""
    documented = ModuleAnalyzer.for_module(module).find_attr_docs()
    return {name: " ".join(lines).strip() for (owner, name), lines in documented.items() if not owner}


def _own_headline(value: object) -> str:
    """Return the headline of a value's class, if that is one of ours."""
    return _headline(type(value)) if type(value).__module__.startswith("nc_tools.") else ""


def _headline(documented: object) -> str:
    return (documented.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")


def _write(path: Path, text: str) -> None:
    """Write a file if it changes, so that a second build reads only what is new."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def name_files_of_the_repository(_app: Sphinx, _page: str, source: list[str]) -> None:
    """Show links to files that are no part of the site, such as notebooks, as their paths in the repository."""

    def path_of(match: re.Match[str]) -> str:
        text, target = match["text"], match["path"]
        path = target.removeprefix("../") if target.startswith("../") else f"docs/{target}"
        return f"`{path}`" if text.strip("`") in (path, target, Path(path).name) else f"{text} (`{path}`)"

    outside = r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<path>\.\./[^)#]+|[^):#]+\.(?:ipynb|py))(#[^)]*)?\)"
    source[0] = re.sub(outside, path_of, source[0])


def mark_formulas(_app: Sphinx, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Mark indented blocks as literal, and bars as bars: in docstrings formulas are written plainly.

    A block counts if a blank line and a line that is not indented come before it, as sections such as ``Args`` do not.
    """
    marked: list[str] = []
    before, in_block = "", False
    for line in lines:
        indented = line.startswith("    ")
        if line.strip() and not indented:
            in_block = False
        elif indented and not in_block and marked and not marked[-1].strip() and before and before[0] != " ":
            marked += [] if before.endswith("::") else ["::", ""]
            in_block = True
        plain = not in_block and ">>>" not in line and "``" not in line
        marked.append(line.replace("|", r"\|") if plain else line)
        before = line or before
    lines[:] = marked


def setup(app: Sphinx) -> None:
    """Connect the functions above to the build."""
    app.connect("autodoc-process-docstring", mark_formulas, priority=400)  # before napoleon reads the sections
    app.connect("builder-inited", write_api_pages)
    app.connect("source-read", name_files_of_the_repository)
