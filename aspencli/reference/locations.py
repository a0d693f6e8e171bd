"""Look up locations by ID, or as ``Region / Country / Division / Location``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from aspencli.errors import BadInputError, NotFoundError
from aspencli.remote.types import Location
from aspencli.stored_text import as_id
from aspencli.text import nearest

LOCATION_LEVELS = ("region", "country", "division", "location")
"""The parts of a location, from largest to smallest."""


class Locations(Protocol):
    """The part of the API that lists locations."""

    def all(self, depth: str | None = None) -> list[Location]:
        """Return every location."""


class Gazetteer:
    """A location index, loaded once, on the first lookup.

    Args:
        locations: The API.
    """

    def __init__(self, locations: Locations):
        self._locations = locations
        self._by_name: dict[str, list[Location]] = {}
        self._by_id: dict[int, Location] = {}

    def find(self, text: str) -> Location:
        """Return the location with that ID or name, ignoring letter case and extra spaces.

        Raises:
            NotFoundError: The location does not exist.
            BadInputError: Several locations match.
        """
        self._load()
        number = as_id(text)
        found = self._by_name.get(_folded(text.split("/")), [])
        if number is not None and number in self._by_id:
            found = [self._by_id[number]]
        if not found:
            raise self._none(text)
        if len(found) > 1:
            raise BadInputError(
                f"Several locations match {text!r}.",
                hint="Use the ID of one of them.",
                details=[f"{place['id']}  {name_of(place)}" for place in found],
            )
        return found[0]

    def _load(self) -> None:
        if not self._by_id:
            for place in self._locations.all():
                self._by_id[place["id"]] = place
                self._by_name.setdefault(_folded(_parts(place)), []).append(place)

    def _none(self, text: str) -> NotFoundError:
        near = nearest(_folded(text.split("/")), list(self._by_name))
        return NotFoundError(
            f"No such location: {text!r}",
            details=[f"similar: {name_of(self._by_name[name][0])}" for name in near[:5]],
            hint="Use an ID, or Region / Country / Division / Location (the last ones may be left "
            "out). To search: aspencli locations search",
        )


def name_of(place: Location) -> str:
    """Format a location as ``Region / Country / Division / Location``."""
    return " / ".join(_parts(place))


def _parts(place: Location) -> list[str]:
    return [str(place[part]) for part in LOCATION_LEVELS if place[part]]  # type: ignore[literal-required] # the parts are keys


def _folded(parts: Iterable[str]) -> str:
    return "/".join(" ".join(part.split()).lower() for part in parts)
