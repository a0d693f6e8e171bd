"""Opening a page in the operator's browser, where there is one."""

from __future__ import annotations

import os
import subprocess
import sys


def has_browser() -> bool:
    """Whether there is a screen to show a browser on; one inside the terminal does not count."""
    if os.environ.get("BROWSER") or sys.platform in {"darwin", "win32"}:
        return not os.environ.get("SSH_CONNECTION") or bool(os.environ.get("BROWSER"))
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def open_browser(link: str) -> bool:
    """Show a page; what the browser writes is not seen, and it is not waited for.

    Returns:
        Whether something was started; whether the page came up is not known.
    """
    try:
        # In a process of its own: what browsers write would end up among the results.
        subprocess.Popen(  # noqa: S603 - a web page of the provider, looked at before
            [sys.executable, "-m", "webbrowser", link],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return False
    return True
