"""What no body may hold, whatever it is for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, cast

from fastapi import Request
from fastapi.exceptions import RequestValidationError

from api.limits import MAX_FINDINGS, Limits

_CONTAINERS = (dict, list)  # a union of them takes four times as long to compare with
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
        document = await request.json()
    except ValueError:
        return  # no JSON: whoever reads it says so
    level = [document] if isinstance(document, _CONTAINERS) else []
    for _ in range(limit + 1):
        # Without a function call for each of half a million values: the service waits meanwhile.
        level = [
            inner
            for outer in level
            if outer
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, _CONTAINERS)
        ]
        if not level:
            return
    finding = {
        "type": "too_deep",
        "loc": ("body",),
        "msg": f"The body has more than {limit} levels of lists and objects",
    }
    raise RequestValidationError([finding])


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
    holding = _holding_nul(document)
    findings = [
        {
            "type": "nul",
            "loc": ("body", *path),
            "msg": "a NUL character cannot be stored",
            "input": text,
        }
        for path, text in islice(holding, MAX_FINDINGS)
    ]
    if next(holding, None):
        # To find and describe the others of half a million takes seconds.
        left = "Strings after these were not checked for NUL characters"
        findings.insert(0, {"type": "not_checked", "loc": ("body",), "msg": left})
    if findings:
        raise RequestValidationError(findings)


def _holding_nul(document: Any) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield each string with a NUL and its path, in the order of the document.

    It is read only as far as the strings are asked for. There is no recursion, since it may be as
    deep as it likes.
    """
    path: list[Any] = []
    left = [_entries([document])]
    while left:
        for key, value in left[-1]:
            if isinstance(value, str):
                if "\0" in value:
                    yield (*path, key)[1:], value
            elif isinstance(value, _CONTAINERS):
                path.append(key)
                left.append(_entries(value))
                break
        else:
            left.pop()
            if path:
                path.pop()


def _entries(container: dict[str, Any] | list[Any]) -> Iterator[tuple[Any, Any]]:
    entries: Iterable[tuple[Any, Any]] = (
        container.items() if isinstance(container, dict) else enumerate(container)
    )
    return iter(entries)
