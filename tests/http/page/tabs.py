"""Tabs of a real browser: Chromium, driven by Playwright.

Needs Debian's `chromium` (or what CHROMIUM says) and the Python package `playwright`. AXE names the file axe.min.js of
the npm package `axe-core`, SCREENSHOTS a folder for pictures.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
NEEDS = "needs Chromium: apt-get install chromium, or CHROMIUM=/its/path"
IN_A_BROWSER = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason=NEEDS),
]
"""The marks of a module of such tests."""
AXE = os.environ.get("AXE")
DEADLINE = 60_000
"""Milliseconds; far more than anything here takes."""
SETTLED = 700
"""Milliseconds in which a view draws what it has asked for. A feed of events is never idle, so none waits for that."""


def playwright() -> Any:
    """The package that drives the browser; skips the module that asks for it where it is not here."""
    reason = "needs the package playwright: pip install playwright"
    return pytest.importorskip("playwright.sync_api", reason=reason, exc_type=ImportError)


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        args = ["--no-sandbox"] if os.geteuid() == 0 else []
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=args)
        yield running
        running.close()


class Watched:
    """A tab of the browser, and what went wrong in it."""

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        sizes = {"viewport": {"width": 1400, "height": 900}} | options
        self.context = browser.new_context(permissions=["clipboard-read", "clipboard-write"], **sizes)
        self.context.set_default_timeout(DEADLINE)
        self.tab, self.url = self.context.new_page(), url
        self.wrong: list[str] = []
        self.tab.on("dialog", lambda found: (self.wrong.append(f"dialog {found.message}"), found.dismiss()))
        self.tab.on("pageerror", lambda found: self.wrong.append(f"error {found}"))
        self.tab.on("console", lambda said: self.wrong.append(said.text) if said.type == "error" else None)
        self.tab.on("request", lambda asked: self._own(asked.url))

    def _own(self, url: str) -> None:
        if not url.startswith((self.url, "blob:")):
            self.wrong.append(f"loaded {url}")

    def open(self, view: str = "") -> Any:
        self.tab.goto(f"{self.url}/#{view}")
        return self.tab

    def log_in(self, token: str) -> Any:
        self.tab.goto(self.url)
        self.tab.get_by_label("Token").fill(token)
        self.tab.get_by_role("button", name="Log in").click()
        self.tab.get_by_role("heading", name="Chat", exact=True).wait_for()
        return self.tab


def send(tab: Any, text: str) -> None:
    tab.get_by_label("Message", exact=True).fill(text)
    tab.get_by_role("button", name="Send").click()
    tab.get_by_role("button", name="Stop", exact=True).wait_for(state="hidden")


def read(tab: Any, *rows: Any) -> None:
    tab.get_by_label("Paste a conversation").fill("\n".join(json.dumps(row) for row in rows))
    tab.get_by_role("button", name="Read", exact=True).click()
    tab.locator("#main").get_by_text("transcripts read" if len(rows) > 1 else "transcript read").wait_for()


def used(tab: Any, view: str, *, asked: str, talk: Any) -> None:
    """A view that was opened, with everything in it that one action brings up."""
    tab.get_by_role("heading", level=1).wait_for()
    if view == "chat":
        send(tab, asked)
        tab.locator(".answer > .strip .token").nth(3).click()
        tab.get_by_text("Strongest features").wait_for()
    if view == "transcripts":
        read(tab, talk)
    if view == "alerts":
        tab.locator("table.feed button").first.click()
        tab.get_by_role("heading", name=re.compile("^Decision")).wait_for()
    if "/" in view:
        tab.locator(".detail .card").first.wait_for()


def looked_at(tab: Any, view: str, width: int, theme: str) -> None:
    """A view fits a screen of this width, axe says nothing serious of it where it is asked, and its picture is kept."""
    fits(tab, view, width)
    if AXE:
        nothing_serious(tab, view)
    picture(tab, f"{view.partition('/')[0]}-{width}-{theme}")


_SQUEEZED = """() => [...document.querySelectorAll("#main *")].filter((one) => {
    const { width, height } = one.getBoundingClientRect(), size = parseFloat(getComputedStyle(one).fontSize);
    const told = !one.childElementCount && one.textContent.trim().length > 7;
    return told && width && width < 4 * size && height > 5 * size;
}).map((one) => one.textContent)"""
"""Texts that stand in a column of a few letters."""


def fits(tab: Any, view: str, width: int) -> None:
    """Once it is drawn, a view is not wider than the screen, and no text of it is squeezed."""
    tab.wait_for_timeout(SETTLED)
    over = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert over <= 0, f"{view} is {over} pixels wider than a screen of {width}"
    assert tab.evaluate(_SQUEEZED) == [], view


def nothing_serious(tab: Any, view: str) -> None:
    """Of a view axe says nothing serious."""
    assert AXE
    tab.evaluate(Path(AXE).read_text(encoding="utf-8"))
    found = tab.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    serious = [
        (one["id"], [node["html"][:160] for node in one["nodes"][:3]])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == [], view


def picture(tab: Any, name: str, *, whole: bool = True) -> None:
    """Saved where SCREENSHOTS says so: the whole page, or what a screen shows of it."""
    if folder := os.environ.get("SCREENSHOTS"):
        tab.screenshot(path=f"{folder}/{name}.png", full_page=whole)
