"""A browser for testing pages: the system's Chromium (Debian: ``apt install chromium``)."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import pytest

CHROMIUM = shutil.which("chromium")
ARGUMENTS = ["--no-sandbox"] if os.geteuid() == 0 else []
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@contextmanager
def driven() -> Iterator[Any]:
    """Yield Chromium driven by playwright; skip the test if playwright is not installed."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright, which drives Chromium, is not installed"
    )
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


class PipedBrowser:
    """Chromium without a window that can reach no host but this machine.

    It is driven through Chromium's own pipe (``--remote-debugging-pipe``), which needs no package.

    Args:
        folder: A folder for its profile.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._last = 0
        self._left = b""

    def __enter__(self) -> Self:
        asked, self._asks = os.pipe()
        self._answers, answered = os.pipe()
        words = [
            *(str(CHROMIUM), *ARGUMENTS, "--headless=new", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update"),
            "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
            f"--user-data-dir={self._folder}",
            *("--remote-debugging-pipe", "about:blank"),
        ]
        self._process = subprocess.Popen(
            # Chromium reads from descriptor 3 and writes to 4.
            ["bash", "-c", f'exec "$@" 3<&{asked} 4>&{answered}', "bash", *words],
            pass_fds=(asked, answered),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(asked)
        os.close(answered)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError, RuntimeError):
            self.ask("Browser.close")
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._asks)
        os.close(self._answers)

    def page(self, width: int, height: int) -> PipedPage:
        """Return a new page in a window of a size."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = PipedPage(self, session)
        for domain in ("Page", "Network", "Runtime", "Log"):
            page.ask(f"{domain}.enable")
        page.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        return page

    def ask(
        self,
        method: str,
        session: str | None = None,
        heard: Callable[[dict[str, Any]], None] = lambda _event: None,
        **parameters: Any,
    ) -> dict[str, Any]:
        """Return the result of a command; events that arrive before it are passed on."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._asks, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") != self._last:
                heard(found)
                continue
            if "error" in found:
                raise RuntimeError(f"{method}: {found['error']['message']}")
            result: dict[str, Any] = found["result"]
            return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            piece = os.read(self._answers, 1 << 20)
            if not piece:
                raise RuntimeError("Chromium has ended")
            self._left += piece
        message, _, self._left = self._left.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found


class PipedPage:
    """A page of `PipedBrowser`.

    Attributes:
        requests: The URLs that it has requested.
        errors: The errors that it has reported.
    """

    def __init__(self, browser: PipedBrowser, session: str):
        self._browser = browser
        self._session = session
        self.requests: list[str] = []
        self.errors: list[str] = []

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return the result of a command for the page."""
        return self._browser.ask(method, self._session, self._hear, **parameters)

    def _hear(self, event: dict[str, Any]) -> None:
        about = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(about["request"]["url"])
            case "Log.entryAdded" if about["entry"]["level"] == "error":
                self.errors.append(about["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.errors.append(about["exceptionDetails"]["text"])

    def go(self, url: str) -> None:
        """Open a page."""
        self.ask("Page.navigate", url=url)

    def value(self, expression: str) -> Any:
        """Return the value of a script's expression, after its promise if it is one."""
        found = self.ask(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, expression: str, seconds: float = 60) -> Any:
        """Return the value of an expression as soon as it is true."""
        deadline = time.monotonic() + seconds
        while not (found := self.value(expression)):
            assert time.monotonic() < deadline, f"never true: {expression}; {self.errors}"
            time.sleep(0.05)
        return found

    def picture(self, path: Path, quality: int = 80) -> None:
        """Save what the page shows, as PNG or JPEG by the name of the file."""
        kind = {"format": "jpeg", "quality": quality} if path.suffix == ".jpg" else {}
        shown = self.ask("Page.captureScreenshot", **kind)["data"]
        path.write_bytes(base64.b64decode(shown))
