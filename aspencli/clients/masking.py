"""Masking of secrets in requests and responses that are shown."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
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
            return f"{len(body):,} bytes that are no JSON"
    elif kind == "application/x-www-form-urlencoded":
        form = dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
        text = json.dumps(_masked(form), ensure_ascii=False)
    elif kind == "text/plain":
        text = masked_text(body.decode(errors="replace"))
    else:
        return f"{len(body):,} bytes of {kind or 'no stated kind'}"
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
