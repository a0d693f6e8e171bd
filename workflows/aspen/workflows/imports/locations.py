"""Locations: those that a repository's metadata has, and their latitudes and longitudes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from aspen.database.sessions import WriteSession
from aspen.workflows.imports.coordinates import LEVELS, Coordinates, Matching, Place, Position

# The unique constraint does not prevent duplicates, as it treats NULLs as distinct. Readers, and
# rows that refer to a location, do not wait for this lock.
_LOCK = "LOCK TABLE aspen.locations IN SHARE ROW EXCLUSIVE MODE"
_NAMES = ", ".join(LEVELS)
_ADD = f"""
INSERT INTO aspen.locations ({_NAMES})
SELECT * FROM (
    SELECT {_NAMES} FROM wanted
    UNION SELECT region, country, division, NULL FROM wanted WHERE division IS NOT NULL
    UNION SELECT region, country, NULL, NULL FROM wanted
    EXCEPT SELECT {_NAMES} FROM aspen.locations
) AS missing
ORDER BY region, country, division NULLS FIRST, location NULLS FIRST
"""  # noqa: S608 - our own constants
_OF_METADATA = f"""
WITH wanted AS (
    SELECT DISTINCT {_NAMES} FROM aspen.public_repository_metadata
     WHERE pathogen_id = :pathogen AND country IS NOT NULL
       AND (:repository IS NULL OR public_repository_id = :repository)
) {_ADD}
"""  # noqa: S608 - same
_OF_TABLE = f"""
WITH wanted AS (
    SELECT * FROM unnest(CAST(:region AS varchar[]), CAST(:country AS varchar[]),
                         CAST(:division AS varchar[]), CAST(:location AS varchar[]))
        AS given ({_NAMES})
) {_ADD}
"""  # noqa: S608 - same
_ALL = f"SELECT id, {_NAMES}, latitude, longitude FROM aspen.locations ORDER BY id"  # noqa: S608
_PLACE = """
UPDATE aspen.locations SET latitude = :latitude, longitude = :longitude
 WHERE id = :id AND (latitude IS NULL OR longitude IS NULL)
"""


@dataclass(frozen=True)
class Added:
    """The result of an import.

    Attributes:
        places: The number of places added.
        positions: The number of places that got a position.
        ambiguous: The number of places without one whose name is in the file: other places of that
            name are nearer to each position.
        without: The number of places that still have none.
    """

    places: int = 0
    positions: int = 0
    ambiguous: int = 0
    without: int = 0

    def __str__(self) -> str:
        return (
            f"{self.places:,} locations added; {self.positions:,} got coordinates, and "
            f"{self.without:,} have none ({self.ambiguous:,} because their names are ambiguous)"
        )


def add_places(
    session: WriteSession,
    *,
    pathogen: int,
    repository: int | None = None,
    coordinates: Coordinates | None = None,
) -> Added:
    """Add the places of a pathogen's metadata and of a file, and positions from the file.

    No other import adds places until the transaction ends. Positions that are known stay.

    Args:
        session: The transaction.
        pathogen: The ID of the pathogen.
        repository: The ID of the repository; None for all.
        coordinates: The content of the file.
    """
    given = coordinates or Coordinates()
    session.execute(sa.text(_LOCK))
    added = _add(session, {"pathogen": pathogen, "repository": repository}, given)
    ids, matching = _known(session)
    found = _positions(matching, given)
    if found:
        _place(session, {ids[place]: at for place, at in found.items()})
    without = sum(at is None for at in matching.known.values())
    return Added(added, len(found), matching.ambiguous, without)


def _add(session: WriteSession, source: Mapping[str, int | None], coordinates: Coordinates) -> int:
    """Add the places of a source's metadata and of a table; return their number."""
    typed = sa.bindparam("repository", type_=sa.Integer)
    added = _count(session, sa.text(_OF_METADATA).bindparams(typed), source)
    if places := coordinates.places:
        columns = {level: [place[n] for place in places] for n, level in enumerate(LEVELS)}
        added += _count(session, sa.text(_OF_TABLE), columns)
    return added


def _count(session: WriteSession, statement: sa.TextClause, values: Mapping[str, object]) -> int:
    result = session.execute(statement, values)
    assert isinstance(result, sa.CursorResult)  # noqa: S101 - an INSERT has no other
    return result.rowcount


def _known(session: WriteSession) -> tuple[dict[Place, int], Matching]:
    """Return the ID of every place, the first one of duplicates, and the positions so far."""
    ids, matching = dict[Place, int](), Matching({})
    for row in session.execute(sa.text(_ALL)):
        place = tuple(row[1 : 1 + len(LEVELS)])
        if ids.setdefault(place, row.id) == row.id:
            known = None in {row.latitude, row.longitude}
            matching.known[place] = None if known else (row.latitude, row.longitude)
    return ids, matching


def _positions(matching: Matching, coordinates: Coordinates) -> dict[Place, Position]:
    """Return the positions of places that have none yet."""
    found = {
        place: at
        for place, at in coordinates.places.items()
        if at is not None and matching.known[place] is None
    }
    matching.known |= found
    return found | matching.match(coordinates.named)


def _place(session: WriteSession, positions: Mapping[int, Position]) -> None:
    rows = [
        {"id": place, "latitude": latitude, "longitude": longitude}
        for place, (latitude, longitude) in positions.items()
    ]
    session.execute(sa.text(_PLACE), rows)
