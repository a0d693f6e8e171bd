"""Support for opening pages in the operator's browser."""

from __future__ import annotations

import os
import subprocess
import sys


def has_browser() -> bool:
    """Return True if there is a graphical browser; one inside the terminal does not count."""
    if os.environ.get("BROWSER") or sys.platform in {"darwin", "win32"}:
        return not os.environ.get("SSH_CONNECTION") or bool(os.environ.get("BROWSER"))
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def open_browser(link: str) -> bool:
    """Open a page without waiting for the browser; its output is discarded.

    Returns:
        True if something was started; the page itself may still have failed to open.
    """
    try:
        # A separate process, because the output of browsers would end up among the results.
        subprocess.Popen(  # noqa: S603 - a web page of the provider, checked before
            [sys.executable, "-m", "webbrowser", link],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return False
    return True
