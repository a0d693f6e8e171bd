"""Latitudes and longitudes of places, from a file.

Nextstrain's list has a level, a name, a latitude, and a longitude, but not where a place is. So
where a name occurs more than once in the database (Cambridge, Orange County), a position belongs to
the place whose division or country is nearest to it. A table with the whole place in each row is
read as well.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aspen.workflows.programs import named
from aspen.workflows.reading import reading
from aspen.workflows.steps import StepError

LEVELS = ("region", "country", "division", "location")
Place = tuple[str | None, ...]
"""The names of a place, one for each of `LEVELS`."""
Position = tuple[float, float]
"""Degrees north and east."""

_TABLE = (*LEVELS, "latitude", "longitude")
_EARTH_KM = 6_371
# No location is farther from the middle of its division, and no division from that of its country.
# Alaska and Hawaii are 5,000 and 6,000 km from the middle of the United States.
_FARTHEST_KM = {"division": 8_000, "location": 2_500}
# A country in two regions, such as Russia, is one country.
_UNIQUE = frozenset({"region", "country"})
_SHOWN = 5


@dataclass(frozen=True)
class Coordinates:
    """The content of a file.

    Attributes:
        named: The positions of a name at a level, in a list like Nextstrain's.
        places: The positions of whole places, in a table; None if it has none.
    """

    named: Mapping[tuple[str, str], Sequence[Position]] = field(default_factory=dict)
    places: Mapping[Place, Position | None] = field(default_factory=dict)


def read_coordinates(path: Path) -> Coordinates:
    """Return the content of a file.

    Raises:
        StepError: It is neither a list nor a table of places, or a line of it is wrong.
    """
    with reading(path) as file:
        lines = (
            (number, line.rstrip("\n"))
            for number, line in enumerate(file, start=1)
            if line.strip() and not line.startswith("#")
        )
        first = next(lines, None)
        if first is None:
            raise StepError(f"{path.name} has only comments.")
        header = tuple(cell.strip().lower() for cell in first[1].split("\t"))
        if {"country", "division"} <= set(header):
            return Coordinates(places=_read_table(path, header, lines))
        return Coordinates(named=_read_list(path, _chained(first, lines)))


def _chained(first: tuple[int, str], rest: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    yield first
    yield from rest


def _read_list(
    path: Path, lines: Iterable[tuple[int, str]]
) -> Mapping[tuple[str, str], Sequence[Position]]:
    found, wrong = defaultdict[tuple[str, str], list[Position]](list), list[str]()
    for number, line in lines:
        cells = [cell.strip() for cell in line.split("\t")]
        position = _position(*cells[2:]) if len(cells) == len(LEVELS) else None
        if position is None or cells[0] not in LEVELS or not cells[1]:
            wrong.append(str(number))
        elif position not in found[cells[0], cells[1]]:
            found[cells[0], cells[1]].append(position)
    if wrong:
        raise StepError(
            f"{path.name} is not a list of places (level, name, latitude, longitude, separated by "
            f"tabs): wrong lines {named(wrong, _SHOWN)}."
        )
    return found


def _read_table(
    path: Path, header: tuple[str, ...], lines: Iterable[tuple[int, str]]
) -> Mapping[Place, Position | None]:
    if unknown := [name for name in header if name not in _TABLE]:
        raise StepError(f"{path.name} has unknown columns: {named(unknown)}.")
    found, wrong = dict[Place, Position | None](), list[str]()
    for number, line in lines:
        cells = [cell.strip() for cell in line.split("\t")]
        row = dict(zip(header, cells, strict=False))
        place = tuple(row.get(level) or None for level in LEVELS)
        given = [row[name] for name in ("latitude", "longitude") if row.get(name)]
        position = _position(*given)
        if len(cells) > len(header) or place[1] is None or (given and position is None):
            wrong.append(str(number))
        found[place] = position
    if wrong:
        raise StepError(f"{path.name} has wrong lines: {named(wrong, _SHOWN)}.")
    if not found:
        raise StepError(f"{path.name} has no rows.")
    return found


def _position(*cells: str) -> Position | None:
    """Return the position in two cells; None if there is none."""
    try:
        latitude, longitude = map(float, cells)
    except ValueError:
        return None
    on_earth = abs(latitude) <= 90 and abs(longitude) <= 180  # noqa: PLR2004 - degrees
    return (latitude, longitude) if on_earth else None


def distance_km(one: Position, other: Position) -> float:
    """Return the distance of two positions on the Earth."""
    (a, b), (c, d) = (map(math.radians, one), map(math.radians, other))
    part = math.sin((c - a) / 2) ** 2 + math.cos(a) * math.cos(c) * math.sin((d - b) / 2) ** 2
    return 2 * _EARTH_KM * math.asin(math.sqrt(min(1.0, part)))


@dataclass
class Matching:
    """Finds positions for places.

    Args:
        known: Every place of the database, with its position if it has one. Positions that are
            found are added.
    """

    known: dict[Place, Position | None]
    ambiguous: int = 0

    def match(self, listed: Mapping[tuple[str, str], Sequence[Position]]) -> dict[Place, Position]:
        """Return the positions of places that have none; larger places come first."""
        found: dict[Place, Position] = {}
        for depth, level in enumerate(LEVELS):
            by_name = defaultdict[str, list[Place]](list)
            for place in self.known:
                if (name := place[depth]) is not None and not any(place[depth + 1 :]):
                    by_name[name].append(place)
            for name, places in by_name.items():
                positions = listed.get((level, name))
                if positions and any(self.known[place] is None for place in places):
                    found |= self._assign(level, places, positions)
            self.known |= found
        return found

    def _assign(
        self, level: str, places: list[Place], positions: Sequence[Position]
    ) -> dict[Place, Position]:
        if level in _UNIQUE:
            return {place: positions[0] for place in places if self.known[place] is None}
        found: dict[Place, Position] = {}
        for position in positions:
            if len(places) == 1 and self._outer(places[0]) is None:
                found.setdefault(places[0], position)
                continue
            # Without a position of what it is in, a place of a common name cannot be told apart.
            near = [
                (distance_km(position, outer), str(place), place)
                for place in places
                if (outer := self._outer(place)) is not None
            ]
            if near:
                kilometers, _, place = min(near)
                if kilometers <= _FARTHEST_KM.get(level, math.inf):
                    found.setdefault(place, position)
        found = {place: at for place, at in found.items() if self.known[place] is None}
        missing = sum(self.known[place] is None for place in places)
        self.ambiguous += missing - len(found)
        return found

    def _outer(self, place: Place) -> Position | None:
        """Return the position of the smallest place around a place that has one."""
        names = list(place)
        for depth in reversed(range(1, len(LEVELS))):
            if names[depth] is None:
                continue
            names[depth] = None
            if any(names) and (at := self.known.get(tuple(names))) is not None:
                return at
        return None
