"""Changes to the identity provider that make it equal to the database.

Each object is read again before it is changed, and skipped if it is no longer as planned. Every
step can be repeated: what a run that was killed has done is found by the next comparison.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from aspen.identity.management import (
    CONNECTION,
    ManagementError,
    organization_name,
)
from aspencli.identity.comparison import Kind, shown
from aspencli.identity.directory import Directory, Group, Person, Place
from aspencli.identity.limits import EMPTIED, UNLED
from aspencli.identity.listing import person_of
from aspencli.identity.sync import (
    ADMIN,
    CHANGED_SINCE,
    CREATE,
    CREATED,
    DELETED,
    FAILED,
    KNOWN,
    MARK,
    SKIP,
    SKIPPED,
    UNCHANGED,
    UPDATED,
    WORK,
    LateError,
    LeftAsItIsError,
    Result,
    Sides,
    Step,
    in_order,
    turn,
)

if TYPE_CHECKING:
    from aspen.identity.management import Management

_AT_ONCE = 8  # steps of a batch
_BAD, _REJECTED, _FORBIDDEN, _NOT_FOUND = 400, 401, 403, 404
_GONE = frozenset({_BAD, _NOT_FOUND})  # 400 if an account is not a member of an organization


@dataclass(frozen=True)
class Hooks:
    """The parts of the sync that concern the database.

    Attributes:
        link: Stores the ID of a new organization with its group, given the group and the ID.
        now: Returns the database as it is now.
    """

    link: Callable[[Group, str], None]
    now: Callable[[], Directory]


class ProviderSync:
    """Carries out a plan at the provider.

    Args:
        management: The client.
        sides: Both sides as they were when the plan was made.
        hooks: The parts that concern the database.
        verification_mail: True to let the provider mail new accounts a link that verifies their
            address; otherwise the address counts as verified, and no mail is sent.
    """

    def __init__(
        self, management: Management, sides: Sides, hooks: Hooks, *, verification_mail: bool
    ):
        self._management, self._sides, self._hooks = management, sides, hooks
        self._mails = verification_mail
        self._keys: dict[str, str] = {}  # of new organizations, by the key that the group had
        self._rosters: dict[str, dict[str, frozenset[str]]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._role_ids: dict[str, str] = {}
        self._work: Mapping[Kind, Callable[[Step], Awaitable[Result]]] = {
            Kind.GROUP: self._new_organization,
            Kind.GROUP_NAME: self._rename_organization,
            Kind.ORGANIZATION: self._delete_organization,
            Kind.USER: self._new_account,
            Kind.ACCOUNT: self._delete_account,
            Kind.NAME: self._change_account,
            Kind.EMAIL: self._change_account,
            Kind.MEMBERSHIP: self._change_membership,
            Kind.ROLE: self._change_roles,
            Kind.INVITATION: self._delete_invitation,
        }

    async def carry_out(self, steps: Sequence[Step]) -> AsyncIterator[list[Result]]:
        """Carry out the steps, and yield the results of some at a time.

        Raises:
            ManagementError: The provider does not accept the client.
            ManagementUnavailableError: The provider did not respond.
        """
        work = [step for step in steps if step.outcome in WORK]
        self._role_ids = await self._management.role_ids()
        fresh = self._hooks.now()
        for _turn, some in groupby(in_order(work, self._sides), key=self._turn):
            rest = list(some)
            # Addresses may have to be given up one after the other.
            size = 1 if rest[0].difference.kind is Kind.EMAIL else _AT_ONCE
            for start in range(0, len(rest), size):
                batch = rest[start : start + size]
                done = await asyncio.gather(
                    *(self._result(step, fresh) for step in batch), return_exceptions=True
                )
                yield [one for one in done if isinstance(one, Result)]
                for one in done:
                    if isinstance(one, BaseException):
                        raise one
        yield [Result(step, SKIPPED, step.reason) for step in steps if step.outcome == SKIP]

    def _turn(self, step: Step) -> tuple[int, bool]:
        return turn(step, self._sides)

    async def _result(self, step: Step, fresh: Directory) -> Result:
        try:
            self._check_source(step, fresh)
            return await self._work[step.difference.kind](step)
        except LeftAsItIsError as left:
            return Result(step, SKIPPED, str(left), is_late=isinstance(left, LateError))
        except ManagementError as error:
            if error.status in {_REJECTED, _FORBIDDEN}:
                raise
            return Result(step, FAILED, error.message)

    def _check_source(self, step: Step, fresh: Directory) -> None:
        """Check that the database is still as it was when the plan was made."""
        then, one = self._sides.database, step.difference
        places = set(step.places)
        if one.kind in {Kind.MEMBERSHIP, Kind.ROLE}:
            places.add(one.place)
        person = one.person.key if one.person else ""
        group = one.group.key if one.group else ""
        same = (
            then.people.get(person) == fresh.people.get(person)
            and then.groups.get(group) == fresh.groups.get(group)
            and all(then.roles.get(place) == fresh.roles.get(place) for place in places)
        )
        if not same:
            raise LateError(f"the database has {CHANGED_SINCE}")

    # Organizations

    async def _new_organization(self, step: Step) -> Result:
        group = step.difference.group
        assert group  # noqa: S101 - it is about one
        key = step.adopts or await self._create_organization(group)
        self._hooks.link(group, key)
        self._keys[group.key] = key
        for place in step.places:
            await self._add(place)
        return Result(step, UPDATED if step.adopts else CREATED)

    async def _create_organization(self, group: Group) -> str:
        # The mark is also how another run that has just created it is recognized.
        return await self._management.create_organization(
            organization_name(group.slug), group.name, {MARK: str(group.id)}
        )

    async def _rename_organization(self, step: Step) -> Result:
        one = step.difference
        assert one.group  # noqa: S101 - it is about one
        assert one.database  # noqa: S101 - same
        found = await self._management.organization(one.group.key)
        if found is None:
            raise LateError("the organization no longer exists")
        if found.display_name == one.database:
            return Result(step, UNCHANGED)
        if found.display_name != one.provider:
            raise LateError(f"the name has {CHANGED_SINCE}")
        await self._management.update_organization(one.group.key, display_name=one.database)
        return Result(step, UPDATED)

    async def _delete_organization(self, step: Step) -> Result:
        one = step.difference
        assert one.group  # noqa: S101 - it is about one
        key = one.group.key
        found = await self._management.organization(key)
        if found is None:
            return Result(step, UNCHANGED, "it no longer exists")
        if found.display_name != one.provider:
            raise LateError(f"the name has {CHANGED_SINCE}")
        if await self._management.has_members(key):
            raise LeftAsItIsError("it has members")
        await self._management.delete_organization(key)
        return Result(step, DELETED)

    # Accounts

    async def _new_account(self, step: Step) -> Result:
        person = step.difference.person
        assert person  # noqa: S101 - it is about one
        is_new = await self._create_account(person)
        for place in step.places:
            await self._add(place)
        return Result(step, CREATED if is_new else UNCHANGED)

    async def _create_account(self, person: Person) -> bool:
        """Create an account with the ID that the database has; return False if it exists."""
        try:
            await self._management.create_account(
                person.email, person.name, account=person.key, mails=self._mails
            )
        except ManagementError as error:
            if not error.taken:
                raise
            if await self._account(person.key) is None:
                taken = f"another account has the address {person.email}"
                raise ManagementError(error.status, taken) from error
            return False
        return True

    async def _change_account(self, step: Step) -> Result:
        one = step.difference
        assert one.person  # noqa: S101 - it is about one
        assert one.database  # noqa: S101 - same
        found = await self._account(one.person.key)
        if found is None:
            raise LateError("the account no longer exists")
        is_name = one.kind is Kind.NAME
        now = found.name if is_name else found.email
        if now == one.database or (not is_name and now.lower() == one.database.lower()):
            return Result(step, UNCHANGED)
        if now != one.provider:
            raise LateError(f"the account has {CHANGED_SINCE}")
        changes: dict[str, str | bool] = {"name": one.database}
        if not is_name:
            changes = {
                "email": one.database,
                "email_verified": not self._mails,
                "verify_email": self._mails,
                "connection": CONNECTION,
            }
        await self._management.update_account(one.person.key, **changes)
        return Result(step, UPDATED)

    async def _delete_account(self, step: Step) -> Result:
        one = step.difference
        assert one.person  # noqa: S101 - it is about one
        person = one.person
        found = await self._account(person.key)
        if found is None:
            return Result(step, UNCHANGED, "it no longer exists")
        if found != person:
            raise LateError(f"the account has {CHANGED_SINCE}")
        groups = set(await self._management.organizations_of(person.key))
        if foreign := sorted(groups - self._sides.shared):
            raise LeftAsItIsError(
                f"it also belongs to organization {foreign[0]}, which has no group"
            )
        if groups != {place[0] for place in self._sides.provider.by_person.get(person.key, ())}:
            raise LateError(f"its memberships have {CHANGED_SINCE}")
        for group in sorted(groups):
            await self._take(group, person.key)
        await self._management.delete_account(person.key)
        return Result(step, DELETED)

    async def _account(self, key: str) -> Person | None:
        found = await self._management.account(key)
        return None if found is None else person_of(found)

    # Memberships and roles

    async def _add(self, place: Place) -> bool:
        """Make an account a member with its roles; return False if it is one already."""
        wanted = self._sides.roles(place)
        group, person = self._keys.get(place[0], place[0]), place[1]
        now = await self._roles_now(group, person)
        if now is not None and now & KNOWN == wanted:
            return False
        if now:
            raise LateError(f"is now a member, with {shown(now)}")
        await self._management.add_member(group, person, self._ids(wanted))
        self._put(group, person, wanted)
        return True

    async def _change_membership(self, step: Step) -> Result:
        group, person = step.difference.place
        if step.outcome == CREATE:
            is_new = await self._add(step.difference.place)
            return Result(step, CREATED if is_new else UNCHANGED)
        now = await self._roles_now(group, person)
        if now is None:
            return Result(step, UNCHANGED, "is no longer a member")
        if now != self._sides.provider.roles[group, person]:
            raise LateError(f"the roles have {CHANGED_SINCE}: {shown(now)}")
        await self._take(group, person)
        await self._management.remove_member(group, person)
        return Result(step, DELETED)

    async def _change_roles(self, step: Step) -> Result:
        group, person = place = step.difference.place
        wanted, now = self._sides.roles(place), await self._roles_now(group, person)
        if now is None:
            raise LateError("is no longer a member")
        if now & KNOWN == wanted:
            return Result(step, UNCHANGED)
        if now != self._sides.provider.roles[place]:
            raise LateError(f"the roles have {CHANGED_SINCE}: {shown(now)}")
        if added := wanted - now:
            await self._management.add_roles(group, person, self._ids(added))
            self._put(group, person, now | added)
        if removed := (now & KNOWN) - wanted:
            if ADMIN in removed:
                await self._take(group, person, wanted | (now - KNOWN))
            await self._management.remove_roles(group, person, self._ids(removed))
        return Result(step, UPDATED)

    async def _roles_now(self, group: str, person: str) -> frozenset[str] | None:
        """Return the roles of an account in an organization; None if it is not a member."""
        try:
            return frozenset(await self._management.member_roles(group, person))
        except ManagementError as error:
            if error.status not in _GONE:
                raise
            return None

    def _ids(self, roles: frozenset[str]) -> list[str]:
        if missing := sorted(roles - self._role_ids.keys()):
            raise ManagementError(_NOT_FOUND, f"the provider has no role {missing[0]}")
        return [self._role_ids[role] for role in sorted(roles)]

    async def _take(self, group: str, person: str, left: frozenset[str] | None = None) -> None:
        """Check that an organization keeps a member and an administrator without this account.

        Args:
            group: The organization, whose members are read once.
            person: The account that leaves, or loses roles.
            left: The roles that it keeps; None if it leaves.
        """
        async with self._locks.setdefault(group, asyncio.Lock()):
            if group not in self._rosters:
                members = await self._management.members(group)
                self._rosters[group] = {each.id: frozenset(each.roles) for each in members}
            roster = self._rosters[group]
            rest = {key: roles for key, roles in roster.items() if key != person}
            if left is not None:
                rest[person] = left
            if not rest:
                raise LateError(f"the organization {EMPTIED}")
            led = [any(ADMIN in roles for roles in each.values()) for each in (roster, rest)]
            if led == [True, False]:
                raise LateError(f"the organization {UNLED}")
            self._rosters[group] = rest

    def _put(self, group: str, person: str, roles: frozenset[str]) -> None:
        if group in self._rosters:
            self._rosters[group][person] = roles

    # Invitations

    async def _delete_invitation(self, step: Step) -> Result:
        one = step.difference
        assert one.group  # noqa: S101 - it is about one
        assert one.invitation  # noqa: S101 - same
        place = one.group.key
        if not await self._management.has_invitation(place, one.invitation):
            return Result(step, UNCHANGED, "it no longer exists")
        await self._management.delete_invitation(place, one.invitation)
        return Result(step, DELETED)


async def occupied(management: Management, organizations: Sequence[str]) -> Mapping[str, str]:
    """Return why organizations cannot be deleted: those that have members, by key."""
    found = await asyncio.gather(*map(management.has_members, organizations))
    reason = "the organization has members; remove them first"
    return {key: reason for key, has in zip(organizations, found, strict=True) if has}
