"""The Chromium of this machine. Browsers of Playwright's own would have to be downloaded; this one is packaged."""

from __future__ import annotations

import os
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MISSING = (
    f"the test of the page drives a real Chromium, and there is none here (looked for {', '.join(NAMES)}"
    " on PATH). Install it: apt-get install chromium"
)


class ChromiumMissing(RuntimeError):
    """There is no Chromium on this machine; the message says how to get it."""


def program() -> str:
    """Return the path of Chromium. Raises ChromiumMissing."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        raise ChromiumMissing(MISSING)
    return found


def options() -> list[str]:
    """Return what Chromium has to be told here: root has no sandbox."""
    return ["--no-sandbox"] if os.geteuid() == 0 else []
