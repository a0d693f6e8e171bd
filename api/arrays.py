"""Many values as one parameter: a list of parameters ends at 32,767."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY


def integers(values: Iterable[int]) -> sa.BindParameter[Sequence[int]]:
    """Numbers, however many they are."""
    return sa.literal(list(values), ARRAY(sa.Integer))


def texts(values: Iterable[str]) -> sa.BindParameter[Sequence[str]]:
    """Strings, however many they are."""
    return sa.literal(list(values), ARRAY(sa.String))
