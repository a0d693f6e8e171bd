"""Groups, pathogens, and locations, found through the API.

Every data request belongs to a group, on whose behalf the API is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from aspencli.errors import (
    AspenError,
    BadInputError,
    CredentialsError,
    NotFoundError,
    UncertainError,
)
from aspencli.remote.types import GroupRoles, Location, Me
from aspencli.text import as_id, nearest, not_found

if TYPE_CHECKING:
    from aspencli.remote.api import Api

LOCATION_LEVELS = ("region", "country", "division", "location")
"""The parts of a location, from largest to smallest."""
_LOOKS_ONLY = frozenset({"viewer"})
_SERVER_ERROR = 500


@dataclass(frozen=True)
class Org:
    """The group on whose behalf the API is called."""

    id: int
    name: str | None = None  # its name; None if only the ID was given, which takes no lookup

    def __str__(self) -> str:
        return f"group {self.id}" + (f" ({self.name})" if self.name else "")


@dataclass(frozen=True)
class Scope:
    """The group and the pathogen that a data request belongs to."""

    org: Org
    slug: str

    @property
    def key(self) -> tuple[int, str]:
        """Return the arguments that the client's methods take."""
        return self.org.id, self.slug

    def __str__(self) -> str:
        return f"{self.org}, {self.slug}"


def find_org(api: Api, key: str | None) -> Org:
    """Return the group with this ID, name, or prefix, or the user's only group if None was given.

    Raises:
        NotFoundError: None of the user's groups matches. (IDs are not checked.)
        BadInputError: Several groups match, or none was named and the user has several.
        CredentialsError: None was named, and the user has none.
    """
    number = as_id(key) if key is not None else None
    if number is not None:
        return Org(number)
    mine = api.users.me()["groups"]
    if key is None:
        return _only(mine)
    for found in (_named(mine, key), _prefixed(api, mine, key)):
        candidates = [Org(group["id"], group["name"]) for group in found]
        if len(candidates) > 1:
            raise BadInputError(
                f"Ambiguous group: {key!r} matches several of your groups.",
                hint="Use its ID.",
                details=[str(org) for org in candidates],
            )
        if candidates:
            return candidates[0]
    raise _no_group(mine, key)


def find_both(api: Api, org: str | None, owner: str | None) -> tuple[Org, Org | None]:
    """Return the group that sends the request and the group whose data is wanted (None for any).

    Args:
        api: The API.
        org: The sending group's ID, name, or prefix; None for the owner, or the only group.
        owner: The same for the owner; must be an ID if the user has no role in that group.
    """
    wanted = find_org(api, owner) if owner is not None else None
    if org is None or org == owner:
        return wanted or find_org(api, None), wanted
    return find_org(api, org), wanted


def require_writer(me: Me, org: Org) -> None:
    """Check that the user may change the group's data, as far as their roles show.

    Raises:
        CredentialsError: The user has read-only access.
    """
    known = next((g for g in me["groups"] if g["id"] == org.id), None)
    if known is not None and set(known["roles"]) <= _LOOKS_ONLY:
        raise CredentialsError(
            f"You have read-only access to group {org.id} ({known['name']}), and cannot change its "
            "samples.",
            hint="Ask an administrator of the group to make you a member.",
        )


def find_slugs(api: Api, slug: str | None) -> list[str]:
    """Return the slug of the requested pathogen in a list, or all slugs if none was named.

    Raises:
        NotFoundError: The pathogen does not exist.
    """
    known = [pathogen["slug"] for pathogen in api.pathogens()]
    if slug is None:
        return known
    found = next((each for each in (slug, slug.upper()) if each in known), None)
    if found is None:
        raise not_found("pathogen", slug, known)
    return [found]


def _only(mine: list[GroupRoles]) -> Org:
    if len(mine) == 1:
        return Org(mine[0]["id"], mine[0]["name"])
    if mine:
        raise BadInputError(
            "No group was given, and you have a role in several.",
            hint="Pass --org ID, or set CZGE_ORG.",
            details=_listed(mine),
        )
    raise CredentialsError(
        "No group was given, and you have no role in any.",
        hint="System administrators do not have access to every group's data. Ask an administrator "
        "of the group to invite you.",
    )


def _named(mine: list[GroupRoles], key: str) -> list[GroupRoles]:
    exact = [group for group in mine if group["name"] == key]
    return exact or [group for group in mine if group["name"].lower() == key.lower()]


def _prefixed(api: Api, mine: list[GroupRoles], key: str) -> Iterator[GroupRoles]:
    for group in mine:
        try:
            prefix = api.groups.get(group["id"])["prefix"]
        except (NotFoundError, CredentialsError):  # Viewers may not read a group's details.
            continue
        if prefix.lower() == key.lower():
            yield group


def _no_group(mine: list[GroupRoles], key: str) -> NotFoundError:
    return NotFoundError(
        f"You have no role in a group {key!r}.",
        details=_listed(mine),
        hint="Use the ID of one of them. Other groups can only be given by ID."
        if mine
        else "You have no role in any group. Other groups can only be given by ID.",
    )


def _listed(mine: Iterable[GroupRoles]) -> list[str]:
    return [f"{g['id']}  {g['name']} ({', '.join(g['roles'])})" for g in mine]


@contextmanager
def creating(noun: str, broken: str) -> Iterator[None]:
    """Add what to do next to the error of a request that creates a user or a group.

    Args:
        noun: What is created.
        broken: What a server error means, which the published version of the service responds with.
    """
    try:
        yield
    except UncertainError as error:
        error.hint = (
            f"Run the same command again: it creates the {noun}, or reports that it already exists "
            "(exit code 7)."
        )
        raise
    except AspenError as error:
        if error.answer is not None and error.answer.status == _SERVER_ERROR:
            error.hint = broken
        raise


class AllLocations(Protocol):
    """A source of all locations, such as the API's."""

    def all(self) -> Iterable[Location]:
        """Return every location."""


class Gazetteer:
    """A location index, loaded once, on the first lookup."""

    def __init__(self, locations: AllLocations):
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
