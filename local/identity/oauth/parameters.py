"""The parameters of a token request: a form or, as with Auth0, JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Depends, Request

from local.identity.errors import OAuthError

_LONGEST = 65_536


async def _read(request: Request) -> Mapping[str, str]:
    body = await request.body()
    if len(body) > _LONGEST:
        raise OAuthError("invalid_request", "The request is too long.", 413)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return _from_json(body)
    if kind != "application/x-www-form-urlencoded":
        raise OAuthError(
            "invalid_request", "Send the parameters as application/x-www-form-urlencoded."
        )
    return _from_form(body)


def _from_json(body: bytes) -> Mapping[str, str]:
    try:
        document = json.loads(body)
    except ValueError as error:
        raise OAuthError("invalid_request", "The body is no valid JSON.") from error
    if not _encodable(document):
        raise OAuthError("invalid_request", "The body holds characters that are none.")
    if not isinstance(document, dict) or not all(isinstance(v, str) for v in document.values()):
        raise OAuthError("invalid_request", "The body must be a JSON object of strings.")
    return _without_empty(document)


def _encodable(document: object) -> bool:
    """Return True if there are no lone surrogates, which JSON allows but UTF-8 does not."""
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _from_form(body: bytes) -> Mapping[str, str]:
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise OAuthError("invalid_request", "The form is no valid UTF-8.") from error
    if len(dict(pairs)) < len(pairs):
        raise OAuthError("invalid_request", "A parameter is repeated.")
    return _without_empty(dict(pairs))


def _without_empty(parameters: Mapping[str, str]) -> Mapping[str, str]:
    """Drop empty parameters, which count as omitted (RFC 6749 section 3.2)."""
    return {name: value for name, value in parameters.items() if value}


def required(parameters: Mapping[str, str], name: str) -> str:
    """Return a required parameter.

    Raises:
        OAuthError: The parameter is missing.
    """
    if name not in parameters:
        raise OAuthError("invalid_request", f"Missing required parameter: {name}")
    return parameters[name]


Parameters = Annotated[Mapping[str, str], Depends(_read)]
"""An endpoint parameter: the parameters in the request body."""
