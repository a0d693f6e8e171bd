"""In whose name the API is asked: every request about data belongs to a group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from aspencli.errors import BadInputError, CredentialsError, NotFoundError
from aspencli.services.checks import as_id
from aspencli.services.nearest import not_found
from aspencli.shapes import Group, GroupRoles, Me, Pathogen

_LOOKS_ONLY = frozenset({"viewer"})


class Users(Protocol):
    """Tells who is signed in."""

    def me(self) -> Me:
        """Who is signed in."""


class Groups(Protocol):
    """Tells of groups."""

    def get(self, group: int) -> Group:
        """One group."""


class Directory(Protocol):
    """Tells who there is."""

    @property
    def users(self) -> Users:
        """Its users."""

    @property
    def groups(self) -> Groups:
        """Its groups."""

    def pathogens(self) -> list[Pathogen]:
        """Every pathogen."""


@dataclass(frozen=True)
class Org:
    """The group in whose name the API is asked.

    Attributes:
        name: Its name; None where only its id was given, which needs no asking.
    """

    id: int
    name: str | None = None

    def __str__(self) -> str:
        return f"group {self.id}" + (f" ({self.name})" if self.name else "")


@dataclass(frozen=True)
class Scope:
    """What a request about data belongs to.

    Attributes:
        org: The group.
        slug: The pathogen's slug.
    """

    org: Org
    slug: str

    @property
    def key(self) -> tuple[int, str]:
        """As the methods of the client take it."""
        return self.org.id, self.slug

    def __str__(self) -> str:
        return f"{self.org}, {self.slug}"


def find_org(directory: Directory, key: str | None) -> Org:
    """The group that is meant; whoever has a role in only one group need not name it.

    Args:
        directory: Tells who is signed in, and of groups.
        key: Id, name or prefix; None where none was named.

    Raises:
        NotFoundError: Nothing goes by that name among one's groups. (An id is taken as it is.)
        BadInputError: None was named, and there are several; or several go by that name.
        CredentialsError: None was named, and there is none.
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
                f"{key!r} means several of your groups",
                hint="Give its id.",
                details=[str(org) for org in candidates],
            )
        if candidates:
            return candidates[0]
    raise _no_group(mine, key)


def find_both(directory: Directory, org: str | None, owner: str | None) -> tuple[Org, Org | None]:
    """The group in whose name is asked, and the group whose data are wanted; None means any.

    Args:
        directory: Tells who is signed in, and of groups.
        org: Id, name or prefix of the former; None means the latter, else one's only group.
        owner: The same of the latter. Of a group that only lets one's own see it, the id.
    """
    wanted = find_org(directory, owner) if owner is not None else None
    if org is None or org == owner:
        return wanted or find_org(directory, None), wanted
    return find_org(directory, org), wanted


def require_writer(me: Me, org: Org) -> None:
    """Make sure that one may change the data of a group, as far as one's roles there tell.

    Raises:
        CredentialsError: One may only look at them.
    """
    known = next((g for g in me["groups"] if g["id"] == org.id), None)
    if known is not None and set(known["roles"]) <= _LOOKS_ONLY:
        raise CredentialsError(
            f"you may look at the samples of group {org.id} ({known['name']}), not change them",
            hint="Ask an administrator of the group to make you a member.",
        )


def find_slugs(directory: Directory, slug: str | None) -> list[str]:
    """The slug of the pathogen that is meant; those of all where none is named.

    Raises:
        NotFoundError: There is none.
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
            "no group was named, and you have a role in several",
            hint="Add --org ID, or set CZGE_ORG.",
            details=_listed(mine),
        )
    raise CredentialsError(
        "no group was named, and you have a role in none",
        hint="Being system administrator opens no group's data; ask an administrator of the group "
        "to invite you.",
    )


def _named(mine: list[GroupRoles], key: str) -> list[GroupRoles]:
    exact = [group for group in mine if group["name"] == key]
    return exact or [group for group in mine if group["name"].lower() == key.lower()]


def _prefixed(groups: Groups, mine: list[GroupRoles], key: str) -> Iterator[GroupRoles]:
    for group in mine:
        try:
            prefix = groups.get(group["id"])["prefix"]
        except (NotFoundError, CredentialsError):  # viewers are not told
            continue
        if prefix.lower() == key.lower():
            yield group


def _no_group(mine: list[GroupRoles], key: str) -> NotFoundError:
    return NotFoundError(
        f"there is no group {key!r} in which you have a role",
        details=_listed(mine),
        hint="Give the id of one of them; a group that is not yours has no other name here."
        if mine
        else "You have a role in no group; a group that is not yours is named by its id.",
    )


def _listed(mine: Iterable[GroupRoles]) -> list[str]:
    return [f"{g['id']}  {g['name']} ({', '.join(g['roles'])})" for g in mine]
