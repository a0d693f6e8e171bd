"""The two sides as they are now, read with as few requests and queries as possible.

Requests to the provider: one per 100 organizations, one per 100 members of each organization that
has a group, and one per 50 users who are in none of those. With all accounts, one per 100 of the
tenant instead of the last; with invitations, one more per organization.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from aspen.identity.requests import REACH
from aspencli.errors import AspenError
from aspencli.identity.directory import Directory, Group, Person, is_own

if TYPE_CHECKING:
    from aspen.database.sessions import Reader
    from aspen.identity.management import Account, Management, Member

Tick = Callable[[int], None]


async def provider_side(
    management: Management,
    database: Directory,
    *,
    all_accounts: bool = False,
    invitations: bool = False,
    tick: Tick = lambda _: None,
) -> Directory:
    """Return what the provider has, as far as it concerns the groups and users of the database.

    Args:
        management: The client, which limits the number of requests in flight.
        database: The other side. Members are listed of organizations that have a group there.
        all_accounts: True to read every account of the tenant.
        invitations: True to read the invitations to organizations that have a group.
        tick: Called with the number of organizations read so far.
    """
    found = Directory(
        groups={
            one.id: Group(one.id, one.display_name, one.name, marks=one.metadata)
            for one in await management.organizations()
        }
    )
    shared = sorted(found.groups.keys() & database.groups.keys())
    done = 0

    async def read(organization: str) -> None:
        nonlocal done
        for member in await management.members(organization):
            found.roles[organization, member.id] = frozenset(member.roles)
            side = found.people if is_own(member.id) else found.outsiders
            side[member.id] = person_of(member)
        if invitations:
            found.invitations += await management.invited(organization)
        done += 1
        tick(done)

    await asyncio.gather(*map(read, shared))
    affiliated = set(found.people)
    if all_accounts:
        rest = [one for one in await _all_accounts(management) if is_own(one.id)]
    else:
        rest = await management.existing_accounts(database.people.keys() - affiliated)
    for account in rest:
        found.people.setdefault(account.id, person_of(account))
    found.unaffiliated = frozenset(found.people.keys() - affiliated)
    return found


def person_of(one: Account | Member) -> Person:
    """Return an account or a member as an entry of a directory."""
    return Person(one.id, one.name, one.email)


async def _all_accounts(management: Management) -> list[Account]:
    """Return all accounts of the tenant, of which each list has only a part.

    Raises:
        AspenError: More of them were created at the same moment than can be listed.
    """
    found: dict[str, Account] = {}
    since = ""
    while True:
        rows = await management.oldest_accounts(since)
        found |= {account.id: account for _at, account in rows}
        if len(rows) < REACH:
            return list(found.values())
        last = rows[-1][0]
        if last == since:
            raise AspenError(
                f"More than {REACH:,} accounts were created at {since}, which the identity "
                "provider cannot list.",
                hint="Leave out --all-accounts.",
            )
        since = last


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
