"""What no body may hold, whatever it is for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from fastapi import Request
from fastapi.exceptions import RequestValidationError

from api.limits import Limits

_ESCAPED = rb"\u0000"


async def refuse_deep(request: Request) -> None:
    """Refuse lists and objects within each other without end.

    Raises:
        RequestValidationError: The body has too many levels.
    """
    body = await request.body()
    limit = cast("Limits", request.app.state.limits).body_depth
    if body.count(b"[") + body.count(b"{") <= limit:
        return
    try:
        level = [await request.json()]
    except ValueError:
        return  # no JSON: whoever reads it says so
    for _ in range(limit + 1):
        level = [inner for outer in level for inner in _containers(outer)]
        if not level:
            return
    finding = {
        "type": "too_deep",
        "loc": ("body",),
        "msg": f"The body has more than {limit} levels of lists and objects",
    }
    raise RequestValidationError([finding])


def _containers(value: Any) -> list[Any]:
    """Return the lists and objects directly in a list or an object."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return []
    return [inner for inner in value if isinstance(inner, dict | list)]


async def refuse_nul(request: Request) -> None:
    """PostgreSQL can hold every character but one.

    It is looked for in the bytes: to look into each string of ten thousand samples takes a third
    of the time that they take to be read.

    Raises:
        RequestValidationError: Strings hold that character; it tells which.
    """
    body = await request.body()
    if _ESCAPED not in body and b"\0" not in body:  # as it is, in UTF-16 and UTF-32
        return
    try:
        document = await request.json()
    except ValueError:
        return  # no JSON: whoever reads it says so
    findings = [
        {
            "type": "nul",
            "loc": ("body", *path),
            "msg": "a NUL character cannot be stored",
            "input": text,
        }
        for path, text in _holding_nul(document)
    ]
    if findings:
        raise RequestValidationError(findings)


def _holding_nul(document: Any) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Where in a document, and what; without recursion, since it may be as deep as it likes."""
    left: list[tuple[tuple[str | int, ...], Any]] = [((), document)]
    while left:
        path, value = left.pop()
        if isinstance(value, str):
            if "\0" in value:
                yield path, value
        elif isinstance(value, dict):
            left.extend(((*path, key), one) for key, one in reversed(value.items()))
        elif isinstance(value, list):
            inner = [((*path, place), one) for place, one in enumerate(value)]
            left.extend(reversed(inner))
