"""Self-contained HTML pages, which load nothing from the network, with light and dark colors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from nc_tools._support.printable import printable

if TYPE_CHECKING:
    from jinja2 import Environment


def render_page(
    package: str, template: str, values: Mapping[str, Any], filters: Mapping[str, Callable[[Any], object]] | None = None
) -> str:
    """Return the HTML page made from a Jinja template in a package, with every value escaped and printable.

    Args:
        package: The package whose ``templates`` folder holds the template. The template can include
            ``page.css`` and ``figure.css`` and import ``marks.html.j2`` from this package.
        template: File name of the template.
        values: What the template reads. A name that is missing raises an error.
        filters: Further Jinja filters, by name.
    """
    page = _environment(package, tuple((filters or {}).items())).get_template(template).render(**values)
    return "\n".join(map(printable, page.split("\n")))


@cache
def _environment(package: str, filters: tuple[tuple[str, Callable[[Any], object]], ...]) -> Environment:
    """Return the environment of a package's templates; each is compiled once, which takes longer than a page."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("nc_tools.plots")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment
