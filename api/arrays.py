"""Many values as one parameter: a list of parameters ends at 32,767."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

_Value = TypeVar("_Value")
_TOGETHER = 10_000


def integers(name: str) -> sa.BindParameter[Sequence[int]]:
    """Return a parameter for numbers, however many they are.

    Its values are given when the statement is executed. Statements refer to themselves, so what
    they hold stays in memory until garbage is collected.
    """
    return sa.bindparam(name, type_=ARRAY(sa.Integer))


def texts(name: str) -> sa.BindParameter[Sequence[str]]:
    """Return a parameter for strings, however many they are, as `integers` does for numbers."""
    return sa.bindparam(name, type_=ARRAY(sa.String))


def batches(values: Sequence[_Value]) -> Iterator[Sequence[_Value]]:
    """Yield some values at a time, for one statement after the other.

    The driver takes 0.1 s to encode 100,000 of them, in which the service answers no one.
    """
    for start in range(0, len(values), _TOGETHER):
        yield values[start : start + _TOGETHER]
