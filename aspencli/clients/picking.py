"""Extraction of values from responses, with a check of their types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

T = TypeVar("T")


def whole(_shape: type[T]) -> Callable[[Any], T]:
    """Return a function that takes a whole object; it checks only that it is an object."""

    def pick(body: Any) -> T:
        if not isinstance(body, dict):
            raise TypeError("an object was expected")
        return cast("T", body)

    return pick


def under(key: str, kind: type[T]) -> Callable[[Any], T]:
    """Return a function that takes the value under a key, which must be of that type."""

    def pick(body: Any) -> T:
        found = body[key]
        if not isinstance(found, kind):
            raise TypeError(f"{key} was expected to be a {kind.__name__}")
        return found

    return pick
