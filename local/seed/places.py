"""Locations for seeded samples; missing ones are added."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import Location

_LEVELS = ("region", "country", "division", "location")


@dataclass(frozen=True)
class Place:
    """A location by its names, from the largest level down; None where it is less specific."""

    region: str | None
    country: str | None = None
    division: str | None = None
    location: str | None = None

    @property
    def names(self) -> tuple[str | None, str | None, str | None, str | None]:
        """Return the four names, from the largest level down."""
        return (self.region, self.country, self.division, self.location)

    @property
    def deepest(self) -> tuple[str, str]:
        """Return its most specific level and the name there; both empty if it has none."""
        for level, name in zip(reversed(_LEVELS), reversed(self.names), strict=True):
            if name:
                return level, name
        return "", ""

    @property
    def summary(self) -> tuple[Place, ...]:
        """Return every larger place that contains it; location search starts from those rows."""
        names = self.names
        return tuple(Place(*names[:depth]) for depth in (1, 2, 3) if any(names[depth:]))


Coordinates = tuple[float, float]
"""Latitude (north positive) and longitude (east positive), in degrees."""


def seeded_places() -> dict[Place, Coordinates]:
    """Return the places of the generated samples: North America, down to counties of California."""
    text = (files("local.seed") / "locations.csv").read_text(encoding="utf-8")
    return {
        Place(*(row[level] or None for level in _LEVELS)): (
            float(row["latitude"]),
            float(row["longitude"]),
        )
        for row in csv.DictReader(text.splitlines())
    }


def known_places(session: Session) -> dict[Place, int]:
    """Return the ID of each existing location."""
    columns = [getattr(Location, level) for level in _LEVELS]
    rows = session.execute(sa.select(*columns, Location.id).order_by(Location.id.desc()))
    return {Place(*row[:4]): row[4] for row in rows}


def add_places(session: Session, places: Iterable[tuple[Place, Coordinates | None]]) -> int:
    """Add the locations that are missing; return their number.

    The unique constraint does not prevent duplicates, as it treats NULLs as distinct.
    """
    known = known_places(session)
    missing = {place: at for place, at in places if place not in known}
    if missing:
        session.execute(sa.insert(Location), [_row(place, at) for place, at in missing.items()])
    return len(missing)


def _row(place: Place, at: Coordinates | None) -> dict[str, object]:
    names = dict(zip(_LEVELS, place.names, strict=True))
    latitude, longitude = at or (None, None)
    return {**names, "latitude": latitude, "longitude": longitude}
