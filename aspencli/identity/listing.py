"""The two sides as they are now, read with as few requests and queries as possible.

Requests to the provider: one per 100 organizations, one per 100 members of each organization that
has a group, and one per 50 users who are in none of those. With all accounts, one per 100 of the
tenant instead of the last; with invitations, one more per organization. Numbered pages end after
1,000 items, so longer lists are read from a checkpoint, or in parts.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from aspencli.errors import AspenError
from aspencli.identity.directory import Directory, Group, Invitation, Person, is_own

if TYPE_CHECKING:
    from aspen.database.sessions import Reader
    from aspen.identity.management import Management

PAGE = 100  # the maximum of every list
_SOUGHT = 50  # accounts looked up at once: a longer address may be refused
_REACH = 1_000  # items that numbered pages can show
_AT_ONCE = 4  # requests under way
_PERSON = "user_id,name,email"

Tick = Callable[[int], None]


class ProviderReader:
    """Reads lists from the provider, and counts the requests.

    Attributes:
        requests: The number of requests so far.
    """

    def __init__(self, management: Management):
        self._management = management
        self._places = asyncio.Semaphore(_AT_ONCE)
        self.requests = 0

    async def organizations(self) -> list[Group]:
        """Return all organizations."""
        return [
            Group(one["id"], str(one["display_name"]), one["name"], marks=one.get("metadata") or {})
            async for one in self._from_checkpoints("organizations")
        ]

    async def members(self, organization: str) -> list[tuple[Person, frozenset[str]]]:
        """Return the members of an organization with the names of their roles."""
        found = self._from_checkpoints(
            *("organizations", organization, "members"), fields=f"{_PERSON},roles"
        )
        return [
            (_person(one), frozenset(str(role["name"]) for role in one.get("roles") or ()))
            async for one in found
        ]

    async def has_members(self, organization: str) -> bool:
        """Return True if an organization has any members."""
        return bool(await self._get("organizations", organization, "members", per_page=1, page=0))

    async def accounts(self, keys: Iterable[str]) -> list[Person]:
        """Return those of the accounts with these IDs that exist."""
        parts = await asyncio.gather(
            *(self._accounts(some) for some in _batches(sorted(keys), _SOUGHT))
        )
        return [person for part in parts for person in part]

    async def _accounts(self, keys: Sequence[str]) -> list[Person]:
        query = " OR ".join(f'user_id:"{_escaped(key)}"' for key in keys)
        found = await self._get("users", q=query, fields=_PERSON, per_page=_SOUGHT)
        return [_person(one) for one in found]

    async def all_accounts(self) -> list[Person]:
        """Return all accounts of the tenant.

        Raises:
            AspenError: More of them were created at the same moment than can be listed.
        """
        found: dict[str, Person] = {}
        since = ""
        while True:
            rows = await self._oldest_accounts(since)
            fresh = {one["user_id"]: _person(one) for one in rows if one["user_id"] not in found}
            found |= fresh
            if len(rows) < _REACH:
                return list(found.values())
            if rows[-1]["created_at"] == since and not fresh:
                raise AspenError(
                    f"More than {_REACH:,} accounts were created at {since}, which the identity "
                    "provider cannot list.",
                    hint="Leave out --all-accounts.",
                )
            since = rows[-1]["created_at"]

    async def _oldest_accounts(self, since: str) -> list[dict[str, Any]]:
        """Return the first accounts that were created at a time or later, as many as possible."""
        rows: list[dict[str, Any]] = []
        query = {"q": f"created_at:[{since} TO *]"} if since else {}
        for page in range(_REACH // PAGE):
            part = await self._get(
                *("users",),
                fields=f"{_PERSON},created_at",
                sort="created_at:1",
                page=page,
                per_page=PAGE,
                **query,
            )
            rows += part
            if len(part) < PAGE:
                break
        return rows

    async def invitations(self, organization: str) -> list[Invitation]:
        """Return the invitations to an organization, including expired ones."""
        rows: list[dict[str, Any]] = []
        for page in range(_REACH // PAGE):
            part = await self._get(
                "organizations",
                organization,
                "invitations",
                fields="id,invitee,expires_at",
                page=page,
                per_page=PAGE,
            )
            rows += part
            if len(part) < PAGE:
                break
        return [
            Invitation(
                one["id"],
                organization,
                one["invitee"]["email"],
                dt.datetime.fromisoformat(one["expires_at"]),
            )
            for one in rows
        ]

    async def _from_checkpoints(self, *parts: str, **query: Any) -> AsyncIterator[dict[str, Any]]:
        after: dict[str, str] = {}
        while True:
            answer = await self._get(*parts, take=PAGE, **query, **after)
            for row in answer[parts[-1]]:
                yield row
            if not answer.get("next"):
                return
            after = {"from": answer["next"]}

    async def _get(self, *parts: str, **query: Any) -> Any:
        async with self._places:
            self.requests += 1
            return await self._management.request("GET", *parts, params=query)


def _batches(keys: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (keys[start : start + size] for start in range(0, len(keys), size))


def _person(row: dict[str, Any]) -> Person:
    return Person(str(row["user_id"]), str(row.get("name") or ""), str(row.get("email") or ""))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


async def provider_side(
    reader: ProviderReader,
    database: Directory,
    *,
    all_accounts: bool = False,
    invitations: bool = False,
    tick: Tick = lambda _: None,
) -> Directory:
    """Return what the provider has, as far as it concerns the groups and users of the database.

    Args:
        reader: Reads the lists.
        database: The other side. Members are listed of organizations that have a group there.
        all_accounts: True to read every account of the tenant.
        invitations: True to read the invitations to organizations that have a group.
        tick: Called with the number of organizations read so far.
    """
    found = Directory(groups={one.key: one for one in await reader.organizations()})
    shared = sorted(found.groups.keys() & database.groups.keys())
    done = 0

    async def read(organization: str) -> None:
        nonlocal done
        for person, roles in await reader.members(organization):
            found.roles[organization, person.key] = roles
            side = found.people if is_own(person.key) else found.outsiders
            side[person.key] = person
        if invitations:
            found.invitations += await reader.invitations(organization)
        done += 1
        tick(done)

    await asyncio.gather(*map(read, shared))
    affiliated = set(found.people)
    if all_accounts:
        rest = [one for one in await reader.all_accounts() if is_own(one.key)]
    else:
        rest = await reader.accounts(database.people.keys() - affiliated)
    for person in rest:
        found.people.setdefault(person.key, person)
    found.unaffiliated = frozenset(found.people.keys() - affiliated)
    return found


def database_side(reader: Reader) -> Directory:
    """Return the users, groups, and roles of the database, with three queries."""
    import sqlalchemy as sa

    from aspen.database.tables import GROUPS, ROLES, USER_ROLES, USERS

    found, user, group = Directory(), USERS.c, GROUPS.c
    query = sa.select(group.id, group.name, group.prefix, group.auth0_org_id)
    for row in reader.execute(query):
        found.groups[row.auth0_org_id] = Group(row.auth0_org_id, row.name, row.prefix, row.id)
    for row in reader.execute(sa.select(user.id, user.name, user.email, user.auth0_user_id)):
        person = Person(row.auth0_user_id, row.name, row.email, row.id)
        side = found.people if is_own(person.key) else found.outsiders
        side[person.key] = person
    has = (
        sa.select(group.auth0_org_id, user.auth0_user_id, sa.func.array_agg(ROLES.c.name))
        .select_from(USER_ROLES)
        .join(GROUPS, group.id == USER_ROLES.c.group_id)
        .join(USERS, user.id == USER_ROLES.c.user_id)
        .join(ROLES, ROLES.c.id == USER_ROLES.c.role_id)
        .group_by(group.auth0_org_id, user.auth0_user_id)
    )
    for organization, account, roles in reader.execute(has):
        found.roles[organization, account] = frozenset(roles)
    return found
