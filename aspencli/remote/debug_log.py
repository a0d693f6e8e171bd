"""The log of requests and responses that ``--debug`` shows, with secrets masked."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

MASK = "***"
# These are allow lists, because the names of future secrets are not known.
_OPEN_QUERY = frozenset(
    {"group_id", "id_style", "max_location_depth", "org_id", "pathogen_slug", "response_type"}
)
_OPEN_HEADERS = frozenset(
    {
        "accept", "accept-encoding", "accept-ranges", "age", "allow", "cache-control", "connection",
        "content-disposition", "content-encoding", "content-length", "content-range",
        "content-type", "date", "etag", "host", "if-range", "last-modified", "range", "retry-after",
        "server", "transfer-encoding", "user-agent", "vary", "via", "x-amz-request-id",
        "x-request-id",
    }
)  # fmt: skip
_SECRET_KEY = re.compile(r"token|secret|password|code|cookie|assertion|credential|signature", re.I)
_TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+(\.[\w-]*)?")
_ADDRESS = re.compile(r"(?:https?://)?[\w.\[\]:-]+/[^\s\"'<>]*")
_MAGIC_LINK = re.compile(r"(/access/)[^/?\s\"]+")
_LONGEST = 2_000  # characters of a body


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


def masked_url(address: str) -> str:
    """Return an address without possible secrets, as in presigned URLs and magic links."""
    parts = urlsplit(address)
    query = [
        (name, value if name in _OPEN_QUERY else MASK)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
    ]
    place = parts.netloc.rpartition("@")[2]
    path = _MAGIC_LINK.sub(rf"\1{MASK}", parts.path)
    return urlunsplit((parts.scheme, place, path, urlencode(query, safe="*"), ""))


def masked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers, with values masked unless they are known to be harmless."""
    return {
        name: value
        if name.lower() in _OPEN_HEADERS
        else masked_url(value)
        if name.lower() == "location"
        else MASK
        for name, value in headers.items()
    }


def masked_body(body: bytes, content_type: str) -> str:
    """Return a body as text: JSON and forms without their secrets, others as type and size."""
    kind = content_type.partition(";")[0].strip().lower()
    if not body:
        return ""
    if kind == "application/json":
        try:
            text = json.dumps(_masked(json.loads(body)), ensure_ascii=False)
        except ValueError:
            return f"{len(body):,} bytes of invalid JSON"
    elif kind == "application/x-www-form-urlencoded":
        form = dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
        text = json.dumps(_masked(form), ensure_ascii=False)
    elif kind == "text/plain":
        text = masked_text(body.decode(errors="replace"))
    else:
        return f"{len(body):,} bytes of {kind or 'unknown type'}"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ... ({len(text):,} characters)"


def masked_text(text: str) -> str:
    """Return a text without tokens, and without the queries and magic links of addresses."""
    text = _TOKEN.sub(MASK, text)
    return _ADDRESS.sub(lambda match: masked_url(match[0]), text)


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: MASK if item and isinstance(item, str) and _SECRET_KEY.search(key) else
            _masked(item)
            for key, item in value.items()
        }  # fmt: skip
    if isinstance(value, list):
        return [_masked(item) for item in value]
    return masked_text(value) if isinstance(value, str) else value
