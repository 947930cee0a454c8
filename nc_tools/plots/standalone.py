"""Make SVG files that can be opened on their own, with the light colors of the report pages."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from markupsafe import Markup

_COLOR = re.compile(r"(--[\w-]+):\s*([^;]+);")
_VIEW_BOX = re.compile(r'<svg viewBox="0 0 ([\d.]+) ([\d.]+)"')


def svg_document(drawing: Markup) -> str:
    """Return the text of a complete SVG file from the result of ``svg.picture``.

    The file has its own style sheet and a white background.
    """
    width, height = _VIEW_BOX.match(drawing).groups()  # type: ignore[union-attr]
    opening, marks = str(drawing).removeprefix("<svg ").split(">", 1)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" {opening}>'
        f'<style>{_style()}</style><rect width="100%" height="100%" fill="#fff"/>{marks}\n'
    )


@cache
def _style() -> str:
    """Return figure.css with light colors in place of its variables, which many SVG viewers do not support."""
    folder = files("nc_tools.plots") / "templates"
    light_colors = (folder / "page.css").read_text(encoding="utf-8").split("}", 1)[0]
    colors = dict(_COLOR.findall(light_colors))
    sheet = (folder / "figure.css").read_text(encoding="utf-8")
    return re.sub(r"var\((--[\w-]+)\)", lambda match: colors[match[1]], sheet)
