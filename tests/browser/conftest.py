"""A browser once a session; pages that must neither complain nor ask the network for anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.browser import chromium
from tests.browser.incidents import write
from watchdog_hook.cli import page, store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from watchdog_hook.core.model import Incident


class Open(Protocol):
    """Open the page of an incident; `more` goes to the browser's context. Not `quiet`: it may complain."""

    def __call__(self, incident: Incident, *, quiet: bool = True, **more: Any) -> Page: ...


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Return a Chromium without a window."""
    program = chromium.program()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=chromium.options())
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """Return a function that opens pages. At the end of the test none may have complained or asked for more."""
    contexts = []
    asked: list[str] = []
    urls: list[str] = []
    said: list[str] = []

    def open_one(incident: Incident, *, quiet: bool = True, **more: Any) -> Page:
        folder = write(tmp_path / f"{len(contexts)}", incident, faulthandler="Thread 0x7f\n")
        file = folder.with_suffix(".html")
        file.write_bytes(page.render(store.load(folder))[0])
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **more})
        contexts.append(context)
        opened = context.new_page()
        opened.set_default_timeout(20_000)
        if quiet:
            opened.on("console", lambda message: said.append(message.text))
            opened.on("pageerror", lambda error: said.append(str(error)))
            opened.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
            opened.on("request", lambda request: asked.append(request.url))
            urls.append(file.as_uri())
        opened.goto(file.as_uri())
        return opened

    yield open_one
    for context in contexts:
        context.close()
    assert said == []
    assert asked == urls
