"""The group on whose behalf the API is called: every data request belongs to one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from aspencli.errors import BadInputError, CredentialsError, NotFoundError
from aspencli.remote.types import Group, GroupRoles, Me, Pathogen
from aspencli.stored_text import as_id
from aspencli.text import not_found

_LOOKS_ONLY = frozenset({"viewer"})


class Users(Protocol):
    """The part of the API that returns the current user."""

    def me(self) -> Me:
        """Return the current user."""


class Groups(Protocol):
    """The part of the API that returns groups."""

    def get(self, group: int) -> Group:
        """Return one group."""


class Directory(Protocol):
    """The part of the API that lists users, groups, and pathogens."""

    @property
    def users(self) -> Users:
        """Return the users endpoints."""

    @property
    def groups(self) -> Groups:
        """Return the groups endpoints."""

    def pathogens(self) -> list[Pathogen]:
        """Return every pathogen."""


@dataclass(frozen=True)
class Org:
    """The group on whose behalf the API is called.

    Attributes:
        name: Its name; None if only the ID was given, which takes no lookup.
    """

    id: int
    name: str | None = None

    def __str__(self) -> str:
        return f"group {self.id}" + (f" ({self.name})" if self.name else "")


@dataclass(frozen=True)
class Scope:
    """The group and the pathogen that a data request belongs to.

    Attributes:
        org: The group.
        slug: The pathogen's slug.
    """

    org: Org
    slug: str

    @property
    def key(self) -> tuple[int, str]:
        """Return the arguments that the client's methods take."""
        return self.org.id, self.slug

    def __str__(self) -> str:
        return f"{self.org}, {self.slug}"


def find_org(directory: Directory, key: str | None) -> Org:
    """Return the requested group; a user with a role in only one group may omit it.

    Args:
        directory: The API.
        key: ID, name, or prefix; None to use the user's only group.

    Raises:
        NotFoundError: None of the user's groups matches. (IDs are not checked.)
        BadInputError: Several groups match, or none was named and the user has several.
        CredentialsError: None was named, and the user has none.
    """
    number = as_id(key) if key is not None else None
    if number is not None:
        return Org(number)
    mine = directory.users.me()["groups"]
    if key is None:
        return _only(mine)
    for found in (_named(mine, key), _prefixed(directory.groups, mine, key)):
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


def find_both(directory: Directory, org: str | None, owner: str | None) -> tuple[Org, Org | None]:
    """Return the group that sends the request and the group whose data is wanted (None for any).

    Args:
        directory: The API.
        org: The sending group's ID, name, or prefix; None for the owner, or the only group.
        owner: The same for the owner; must be an ID if the user has no role in that group.
    """
    wanted = find_org(directory, owner) if owner is not None else None
    if org is None or org == owner:
        return wanted or find_org(directory, None), wanted
    return find_org(directory, org), wanted


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


def find_slugs(directory: Directory, slug: str | None) -> list[str]:
    """Return the slug of the requested pathogen in a list, or all slugs if none was named.

    Raises:
        NotFoundError: The pathogen does not exist.
    """
    known = [pathogen["slug"] for pathogen in directory.pathogens()]
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


def _prefixed(groups: Groups, mine: list[GroupRoles], key: str) -> Iterator[GroupRoles]:
    for group in mine:
        try:
            prefix = groups.get(group["id"])["prefix"]
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
