"""Self-contained HTML pages, which load nothing from the network, with light and dark colors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nc_tools._support.printable import printable


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
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("nc_tools.plots")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters or {})
    page = environment.get_template(template).render(**values)
    return "\n".join(map(printable, page.split("\n")))
