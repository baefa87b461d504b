"""Open a page in chromium, let its own script act, and read what that has written into the page."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NEEDS_CHROMIUM = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (apt-get install chromium)"),
]
"""For `pytestmark` of a module whose tests need it."""
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def seen_in(address: str, folder: Path, *flags: str) -> dict[str, Any]:
    """Return the JSON that the page at `address` has put into `<pre id="seen">`; no script of it may fail.

    `folder` keeps chromium's profile. The page's script says under `broken` what failed, null where nothing.
    """
    command = [CHROMIUM, *FLAGS, *flags, f"--user-data-dir={folder}/profile", "--dump-dom", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    seen = json.loads(html.unescape(found[1]))
    assert seen["broken"] is None
    return seen
