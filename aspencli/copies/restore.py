"""Replacing a database by one that is built beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aspencli.copies.beside import building, drop_leftovers, swap
from aspencli.copies.load import Loaded

if TYPE_CHECKING:
    from aspen.database.engine import Database


@dataclass(frozen=True)
class Replaced:
    """The result of a replacement.

    Attributes:
        replaced: True if there was a database before.
        leftovers: The databases of killed runs that were dropped first.
        left: Settings and privileges that could not be carried over, as SQL.
    """

    loaded: Loaded
    replaced: bool
    leftovers: tuple[str, ...]
    left: tuple[str, ...]


def replace(
    database: Database, build: Callable[[Database], Loaded], *, force: bool = False
) -> Replaced:
    """Replace a database by a new one, which ``build`` fills.

    Raises:
        ConflictError: Other sessions use the database, and ``force`` is not set.
        AspenError: The new database could not be filled; the old one is unchanged.
    """
    leftovers = drop_leftovers(database)
    with building(database) as new:
        loaded = build(new)
        swapped = swap(database, new, force=force)
    return Replaced(loaded, swapped.replaced, tuple(leftovers), swapped.left)
