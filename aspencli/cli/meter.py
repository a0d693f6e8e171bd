"""The counts of ``--verbose``: connections and statements of the database, requests to the API.

Nothing is counted without the option. Statements and addresses are shown without values: the text
of a statement is never printed, and secrets in addresses are masked.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aspencli.text import counted, duration_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aspencli.remote.http import WireLog

_MILLI = 1_000


@dataclass
class _Tally:
    """A number of events, and the seconds that they took."""

    number: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.number += 1
        self.seconds += seconds


def _time_text(seconds: float) -> str:
    return f"{seconds * _MILLI:.0f} ms" if seconds < 1 else duration_text(seconds)


@dataclass
class Meter:
    """The counts of one run.

    Attributes:
        began: The time when the run began.
    """

    began: float = field(default_factory=time.monotonic)
    connections: _Tally = field(default_factory=_Tally)
    statements: _Tally = field(default_factory=_Tally)
    requests: _Tally = field(default_factory=_Tally)
    _tell: Callable[[str], None] | None = None

    def watch_databases(self, tell: Callable[[str], None]) -> None:
        """Count the connections and statements of every database of this process from now on.

        ``tell`` prints a line for each connection.
        """
        if self._tell:
            return
        self._tell = tell
        from sqlalchemy import Engine, event

        for name, heard in self._listeners:
            event.listen(Engine, name, heard)

    def stop(self) -> None:
        """Stop counting what databases do."""
        if self._tell:
            from sqlalchemy import Engine, event

            for name, heard in self._listeners:
                event.remove(Engine, name, heard)
            self._tell = None

    @property
    def _listeners(self) -> tuple[tuple[str, Callable[..., None]], ...]:
        return (
            ("do_connect", self._connecting),
            ("connect", self._connected),
            ("before_cursor_execute", self._executing),
            ("after_cursor_execute", self._executed),
        )

    def _connecting(
        self, _dialect: Any, record: Any, _arguments: Any, _parameters: Mapping[str, Any]
    ) -> None:
        record.info["aspencli_began"] = time.monotonic()

    def _connected(self, connection: Any, record: Any) -> None:
        took = time.monotonic() - record.info.pop("aspencli_began", time.monotonic())
        self.connections.add(took)
        info = connection.info
        where = f"{info.user}@{info.host or 'this machine'}:{info.port}/{info.dbname}"
        if self._tell:
            self._tell(f"Connected to {where} in {_time_text(took)}.")

    def _executing(self, connection: Any, *_details: Any) -> None:
        connection.info["aspencli_began"] = time.monotonic()

    def _executed(self, connection: Any, *_details: Any) -> None:
        began = connection.info.pop("aspencli_began", None)
        if began is not None:
            self.statements.add(time.monotonic() - began)

    def log(self, write: Callable[[str], None] | None, tell: Callable[[str], None]) -> WireLog:
        """Return a log of requests that also counts them, and prints a line for each."""
        from aspencli.remote.http import WireLog, masked_url

        meter = self

        class Metered(WireLog):
            """A log that also counts."""

            _asked = ""

            def asked(
                self, method: str, url: str, headers: Mapping[str, str], body: bytes
            ) -> float:
                self._asked = f"{method} {masked_url(url)}"
                return super().asked(method, url, headers, body)

            def answered(self, status: int, headers: Mapping[str, str], since: float) -> None:
                took = time.monotonic() - since
                meter.requests.add(took)
                tell(f"{self._asked}: {status} in {_time_text(took)}.")
                super().answered(status, headers, since)

        return Metered(write)

    def summary(self) -> str:
        """Return what was done and how long it took, as one line."""
        parts = [f"Took {_time_text(time.monotonic() - self.began)}."]
        if self.connections.number or self.statements.number:
            parts.append(
                f"Database: {counted(self.connections.number, 'connection')} in "
                f"{_time_text(self.connections.seconds)}, "
                f"{counted(self.statements.number, 'statement')} in "
                f"{_time_text(self.statements.seconds)}."
            )
        if self.requests.number:
            parts.append(
                f"API: {counted(self.requests.number, 'request')} in "
                f"{_time_text(self.requests.seconds)}."
            )
        return " ".join(parts)
