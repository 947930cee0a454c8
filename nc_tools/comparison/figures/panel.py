"""One panel of a row of small figures."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from nc_tools.plots import svg
from nc_tools.plots.panel_frame import Frame


@dataclass(frozen=True)
class Panel:
    """A titled picture with a caption of numbers beneath; the title is the arm's name or the metric's."""

    title: str
    drawing: Markup
    caption: str


def make_panel(title: str, about: str, caption: str, frame: Frame, parts: list[Markup]) -> Panel:
    """Return a panel whose picture is described by its title, what it shows and its caption."""
    return Panel(title, svg.picture(frame.width, frame.height, f"{title}{about}; {caption}", parts), caption)
