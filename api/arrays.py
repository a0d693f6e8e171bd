"""Many values as one parameter: a list of parameters ends at 32,767."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

_Value = TypeVar("_Value")
_TOGETHER = 10_000


def integers(values: Iterable[int]) -> sa.BindParameter[Sequence[int]]:
    """Numbers, however many they are."""
    return sa.literal(list(values), ARRAY(sa.Integer))


def texts(values: Iterable[str]) -> sa.BindParameter[Sequence[str]]:
    """Strings, however many they are."""
    return sa.literal(list(values), ARRAY(sa.String))


def batches(values: Sequence[_Value]) -> Iterator[Sequence[_Value]]:
    """Yield some values at a time, for one statement after the other.

    The driver takes 0.1 s to encode 100,000 of them, in which the service answers no one.
    """
    for start in range(0, len(values), _TOGETHER):
        yield values[start : start + _TOGETHER]
