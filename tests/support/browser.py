"""A real browser for tests: headless Chromium through playwright, and what it must not see."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NEEDS_CHROMIUM = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
WIDTHS = "[document.documentElement.scrollWidth, innerWidth]"  # they differ on a page that overflows


@dataclass
class Watched:
    """A page in the browser, what its console said, and the addresses that it asked for."""

    page: object
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def browser() -> Iterator[object]:
    """Start Chromium, and end it."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, which the extra dev installs")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield chromium
        finally:
            chromium.close()


@contextmanager
def opened(chromium, address: str, *, width: int = 1400, scheme: str = "light") -> Iterator[Watched]:
    """Open a page, and watch its errors and requests from the beginning."""
    page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    watched = Watched(page)
    page.on("console", lambda message: watched.console.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: watched.console.append(str(error)))
    page.on("request", lambda request: watched.requests.append(request.url))
    try:
        page.goto(address)
        yield watched
    finally:
        page.close()


def barriers(page) -> list[str]:
    """What axe-core finds on a page, one line for each kind of barrier."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-core, which dev installs")
    found = axe.Axe().run(page).response["violations"]
    return [f"{one['id']} ({one['impact']}), {len(one['nodes'])} x, {one['nodes'][0]['html'][:160]}" for one in found]
