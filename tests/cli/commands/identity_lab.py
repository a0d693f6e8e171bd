"""Commands on a target whose identity provider and database are both filled by the test."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests import zygote
from tests.cli.commands.ending import Ended
from tests.identity.population import Found, Population, as_found
from tests.identity.site import Site

_PATIENCE_S = 120


@dataclass
class IdentityLab:
    """A target with both sides, and a runner for commands in the test's own process.

    Attributes:
        site: Both sides.
    """

    site: Site
    _call: Callable[[Mapping[str, str], tuple[str, ...]], Ended]

    def __call__(self, *arguments: str) -> Ended:
        return self._call(self.site.environment, arguments)

    def fill(self, made: Population) -> None:
        self.site.fill(made)

    def diff(self, *options: str) -> set[Found]:
        """Return the differences that the program finds."""
        ended = self("identity", "diff", "-o", "json", *options)
        found = as_found(ended.json)
        assert ended.code == (7 if found else 0), ended.err
        return found

    def sync(self, source: str, *options: str, consent: tuple[str, ...] = ("--yes",)) -> Ended:
        """Sync without a limit; ``--yes`` is not enough where something is deleted."""
        return self(
            *("identity", "sync", "--source", source, "-o", "json", "--max-changes", "100000"),
            *(*options, *consent),
        )

    def rows(self, ended: Ended) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = ended.json
        return rows

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command in a separate process."""
        return zygote.start(
            arguments,
            env={**os.environ, **self.site.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def stop(
        self, process: subprocess.Popen[str], writes: int, number: int = signal.SIGKILL
    ) -> Ended:
        """Send a signal once the provider has received a number of requests that write."""
        before = self.site.writes()
        end = time.monotonic() + _PATIENCE_S
        while self.site.writes() < before + writes and process.poll() is None:
            if time.monotonic() > end:
                raise TimeoutError("the command sends no requests")
            time.sleep(0.001)
        process.send_signal(number)
        out, err = process.communicate(timeout=_PATIENCE_S)
        return Ended(process.returncode, out, err)
