"""Reading people on both sides with few requests: lists instead of one request per person."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from aspen.database.engine import Database
from aspen.identity.management import Account, Management
from aspencli.errors import ConflictError, NotFoundError
from aspencli.identity.database import find_places, find_roles, find_users
from aspencli.identity.people import (
    Access,
    FoundPerson,
    GroupPlace,
    PersonPlan,
    StoredUser,
    WantedPerson,
    plan_people,
)
from aspencli.remote.identity import IdentityProvider

_FEW = 3
"""The number of people up to which each is asked for; for more, whole lists take fewer requests."""


@dataclass(frozen=True)
class _Members:
    """The members of an organization that matter, with their roles, and its open invitations."""

    roles: Mapping[str, tuple[str, ...]]  # by account
    invitations: Mapping[str, str]  # the ID of an invitation by address


@dataclass(frozen=True)
class OnboardingPlan:
    """The plan for some people, and what carrying it out needs to know.

    Attributes:
        people: The plan for each person in each group.
        role_ids: The ID of each role at the provider, by name.
    """

    people: tuple[PersonPlan, ...]
    role_ids: Mapping[str, str]

    @property
    def problems(self) -> list[PersonPlan]:
        """Return the people who cannot be onboarded."""
        return [plan for plan in self.people if plan.problem]


def read_plan(
    database: Database,
    provider: IdentityProvider,
    wanted: Sequence[WantedPerson],
    access: Access,
    *,
    unblock: bool = False,
    places: Mapping[str, GroupPlace] | None = None,
) -> OnboardingPlan:
    """Compare people with what exists on both sides, and return the plan.

    ``places`` are the groups, if they need not be looked up. A new group has no organization yet.

    Raises:
        NotFoundError: A group, a role, or an organization does not exist.
        AspenError: The provider cannot be reached, or refuses a request.
    """
    emails = list(dict.fromkeys(one.email for one in wanted))
    with database.connected(transaction=True) as reader:
        groups = places or find_places(reader, (one.group for one in wanted))
        users = find_users(reader, emails=emails)

    async def read(
        management: Management,
    ) -> tuple[list[Account], dict[int, _Members], dict[str, str]]:
        role_ids = await _role_ids(management, {one.role for one in wanted})
        accounts = await find_accounts(management, emails, users)
        members = await _members(management, wanted, groups, accounts, access)
        return accounts, members, role_ids

    accounts, members, role_ids = provider.run(read)
    with database.connected(transaction=True) as reader:
        users = find_users(reader, emails=emails, accounts=[one.id for one in accounts])
        held = find_roles(reader, [user.id for user in users])
    index = _Index.of(accounts, users)
    found = {
        (one.email, group.id): _found(one.email, group, index, members[group.id], held)
        for one in wanted
        for group in (groups[one.group],)
    }
    plans = plan_people(wanted, groups, found, access, unblock=unblock)
    return OnboardingPlan(tuple(plans), role_ids)


async def find_accounts(
    management: Management, emails: Collection[str], users: Iterable[StoredUser]
) -> list[Account]:
    """Return the accounts that have one of the addresses, or belong to one of the users."""
    if len(emails) <= _FEW:
        lists = await asyncio.gather(*(management.accounts_with_email(one) for one in emails))
        found = [account for some in lists for account in some]
    else:
        found = await management.find_accounts(emails)
    known = {account.id for account in found}
    lacking = [
        user.auth0_user_id
        for user in users
        if not user.is_offboarded and user.auth0_user_id not in known
    ]
    linked = await asyncio.gather(*(management.account(one) for one in lacking))
    return found + [account for account in linked if account is not None]


async def open_invitations(management: Management, organization: str) -> dict[str, str]:
    """Return the ID of an invitation that has not expired, by address in lowercase."""
    now = dt.datetime.now(dt.UTC)
    there = await management.invited(organization)
    return {one.email: one.id for one in there if one.expires_at > now}


async def _role_ids(management: Management, names: Iterable[str]) -> dict[str, str]:
    found = await management.role_ids()
    lacking = sorted(set(names) - found.keys())
    if lacking:
        raise NotFoundError(
            f"The identity provider has no role {' and no role '.join(lacking)}.",
            hint="Create the roles admin, member, and viewer at the identity provider.",
        )
    return found


async def _members(
    management: Management,
    wanted: Sequence[WantedPerson],
    groups: Mapping[str, GroupPlace],
    accounts: Iterable[Account],
    access: Access,
) -> dict[int, _Members]:
    """Return the members of each group's organization, by the group's ID."""
    by_email: dict[str, list[str]] = defaultdict(list)
    for account in accounts:
        by_email[account.email].append(account.id)
    sought: dict[int, list[str]] = defaultdict(list)  # accounts by group
    for one in wanted:
        sought[groups[one.group].id] += by_email[one.email]
    places = list({group.id: group for group in groups.values()}.values())
    read = await asyncio.gather(
        *(_members_of(management, place, sought[place.id], access) for place in places)
    )
    return {place.id: found for place, found in zip(places, read, strict=True)}


async def _members_of(
    management: Management, place: GroupPlace, sought: Sequence[str], access: Access
) -> _Members:
    if not place.organization:
        return _Members({}, {})
    if await management.organization(place.organization) is None:
        raise ConflictError(
            f"Group {place.name} belongs to organization {place.organization}, which does not "
            "exist at the identity provider.",
            hint=f"Create it first: aspencli groups onboard --prefix {place.prefix}",
        )
    roles = {}
    if len(sought) <= _FEW:
        for account in sought:
            if place.organization in await management.organizations_of(account):
                found = await management.member_roles(place.organization, account)
                roles[account] = tuple(sorted(found))
    else:
        roles = {one.id: one.roles for one in await management.members(place.organization)}
    invitations = {}
    if access is Access.INVITATION:
        invitations = await open_invitations(management, place.organization)
    return _Members(roles, invitations)


@dataclass(frozen=True)
class _Index:
    """Accounts and users by what they are looked up by."""

    accounts: Mapping[str, Sequence[Account]]  # by address
    account_ids: Mapping[str, Account]
    users: Mapping[str, Sequence[StoredUser]]  # by address
    linked: Mapping[str, StoredUser]  # by account

    @classmethod
    def of(cls, accounts: Iterable[Account], users: Iterable[StoredUser]) -> Self:
        by_address: dict[str, list[Account]] = defaultdict(list)
        users_by_address: dict[str, list[StoredUser]] = defaultdict(list)
        for account in accounts:
            by_address[account.email].append(account)
        for user in users:
            users_by_address[user.email.lower()].append(user)
        return cls(
            by_address,
            {account.id: account for account in accounts},
            users_by_address,
            {user.auth0_user_id: user for user in users},
        )

    def person(self, email: str) -> tuple[tuple[Account, ...], tuple[StoredUser, ...]]:
        """Return the accounts and the users of an address, and those linked to them."""
        own = list(self.users.get(email, ()))
        accounts = {account.id: account for account in self.accounts.get(email, ())}
        for user in own:
            if account := self.account_ids.get(user.auth0_user_id):
                accounts[account.id] = account
        linked = [self.linked[one] for one in accounts if one in self.linked]
        users = {user.id: user for user in (*own, *linked)}
        return tuple(accounts.values()), tuple(users.values())


def _found(
    email: str,
    group: GroupPlace,
    index: _Index,
    members: _Members,
    held: Mapping[int, Mapping[int, tuple[str, ...]]],
) -> FoundPerson:
    accounts, users = index.person(email)
    own = next((user for user in users if user.email.lower() == email), None)
    roles = (members.roles.get(account.id) for account in accounts)
    return FoundPerson(
        accounts=accounts,
        roles=next((one for one in roles if one is not None), None),
        invitation=members.invitations.get(email),
        users=users,
        held=held.get(own.id, {}).get(group.id, ()) if own else (),
    )
