"""The log of requests and responses that ``--debug`` shows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aspencli.clients.masking import masked_body, masked_headers, masked_url


@dataclass
class WireLog:
    """A log of requests and responses, line by line, with secrets masked.

    Attributes:
        write: Receives each line; None to log nothing.
    """

    write: Callable[[str], None] | None = None

    def asked(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> float:
        """Log a request, and return the time when it was sent."""
        if self.write is not None:
            self.write(f"> {method} {masked_url(url)}")
            self._rest(self.write, ">", headers, body)
        return time.monotonic()

    def answered(self, status: int, headers: Mapping[str, str], since: float) -> None:
        """Log the status and headers of a response."""
        if self.write is not None:
            self.write(f"< {status} after {time.monotonic() - since:.2f} s")
            self._rest(self.write, "<", headers, b"")

    def read(self, headers: Mapping[str, str], body: bytes) -> None:
        """Log the body of a response that was read completely."""
        if self.write is not None:
            self._rest(self.write, "<", {}, body, headers.get("content-type", ""))

    def note(self, text: str) -> None:
        """Log a remark."""
        if self.write is not None:
            self.write(f"* {text}")

    @staticmethod
    def _rest(
        write: Callable[[str], None],
        lead: str,
        headers: Mapping[str, str],
        body: bytes,
        content_type: str = "",
    ) -> None:
        for name, value in masked_headers(headers).items():
            write(f"{lead} {name.lower()}: {value}")
        shown = masked_body(body, content_type or headers.get("content-type", ""))
        if shown:
            write(f"{lead} {shown}")
