"""Array parameters for many values: a statement is limited to 32,767 separate parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

_Value = TypeVar("_Value")
_TOGETHER = 10_000


def integers(name: str) -> sa.BindParameter[Sequence[int]]:
    """Return an array parameter for any number of integers.

    Pass its values when executing the statement. Statements contain reference cycles, so values
    stored in them stay in memory until the next garbage collection.
    """
    return sa.bindparam(name, type_=ARRAY(sa.Integer))


def texts(name: str) -> sa.BindParameter[Sequence[str]]:
    """Return an array parameter for any number of strings, as `integers` does for integers."""
    return sa.bindparam(name, type_=ARRAY(sa.String))


def batches(values: Sequence[_Value]) -> Iterator[Sequence[_Value]]:
    """Yield the values in batches, one for each statement.

    The driver takes 0.1 s to encode 100,000 values, which blocks the event loop.
    """
    for start in range(0, len(values), _TOGETHER):
        yield values[start : start + _TOGETHER]
