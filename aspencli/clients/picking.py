"""Taking from an answer what is wanted, and noticing that it is something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

T = TypeVar("T")


def whole(_shape: type[T]) -> Callable[[Any], T]:
    """Takes an object of that shape; that it is an object is looked at, no more."""

    def pick(body: Any) -> T:
        if not isinstance(body, dict):
            raise TypeError("an object was expected")
        return cast("T", body)

    return pick


def under(key: str, kind: type[T]) -> Callable[[Any], T]:
    """Takes from an object what is under a key, and of that kind."""

    def pick(body: Any) -> T:
        found = body[key]
        if not isinstance(found, kind):
            raise TypeError(f"{key} was expected to be a {kind.__name__}")
        return found

    return pick
