"""The device sign-in flow: polling until the operator decides on another device (RFC 8628).

Support for opening pages in the operator's browser.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from aspencli.auth.models import DeviceCode, NotYet, SignIn
from aspencli.errors import CredentialsError


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


_SLOWER_S = 5.0
_LONGEST_PAUSE_S = 60.0
_AGAIN = "Run the command again to get a new code."
_EXPIRED = frozenset({"expired_token", "invalid_grant"})  # Auth0 sends the second on expiry


class DeviceProvider(Protocol):
    """The part of an identity provider that the device flow needs."""

    def poll(self, code: DeviceCode) -> SignIn | NotYet:
        """Poll once for approval of the sign-in."""

    def refusal(self, error: str, description: str) -> CredentialsError:
        """Return the error for a refusal by the provider."""


@dataclass
class Clock:
    """A source of the current time and of delays."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def wait_for_approval(
    provider: DeviceProvider,
    code: DeviceCode,
    passed: Callable[[int], None],
    clock: Clock | None = None,
) -> SignIn:
    """Poll until the operator has approved the sign-in, and return it.

    Args:
        provider: The identity provider.
        code: The device code to poll for.
        passed: Called with the number of seconds elapsed.
        clock: The clock to use.

    Raises:
        CredentialsError: The sign-in was denied, timed out, or was refused by the provider.
    """
    clock = clock or Clock()
    start, interval, troubles = clock.now(), code.interval, 0
    pause = interval
    while (left := code.seconds - (clock.now() - start)) > 0:
        _sleep(clock, min(pause, left), lambda: passed(int(clock.now() - start)))
        found = provider.poll(code)
        if isinstance(found, SignIn):
            return found
        troubles = troubles + 1 if found.passing else 0
        if found.error == "slow_down":
            interval += _SLOWER_S
        elif not found.passing and found.error != "authorization_pending":
            raise _denied(provider, found)
        # RFC 8628, section 3.5, asks for exponential backoff while requests fail.
        slower = min(interval * 2**troubles, max(interval, _LONGEST_PAUSE_S))
        pause = max(slower if found.wait is None else interval, found.wait or 0)
    raise CredentialsError(
        f"The sign-in was not approved within {code.seconds / 60:.0f} minutes; the code expired.",
        hint=_AGAIN,
    )


def _denied(provider: DeviceProvider, found: NotYet) -> CredentialsError:
    if found.error == "access_denied":
        words = f": {found.description}" if found.description else "."
        return CredentialsError(
            f"The sign-in was denied on the other device{words}",
            hint="If you denied it by mistake, run the command again. If it was not you, contact "
            "your administrators.",
        )
    if found.error in _EXPIRED:
        return CredentialsError("The code expired before the sign-in was approved.", hint=_AGAIN)
    return provider.refusal(found.error, found.description)


def _sleep(clock: Clock, seconds: float, tick: Callable[[], None]) -> None:
    """Wait, and call ``tick`` every second."""
    end = clock.now() + seconds
    while (left := end - clock.now()) > 0:
        clock.sleep(min(1.0, left))
        tick()
