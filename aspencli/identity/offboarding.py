"""Offboarding: everything that lets a person in is removed, on both sides; what they did stays.

Tokens that were issued before stay valid by themselves until they expire. The service accepts one
only if a user in the database has its account, so the user is detached from the account. From the
commit on, every request with such a token, cookie, or link is rejected.

A step that fails does not keep the others from being taken: what cannot be removed now is named,
and the same command removes it later.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from aspen.database.engine import Database
from aspen.database.roles import Right
from aspen.database.sessions import Reader
from aspen.database.tables import GROUPS, ROLES, SAMPLES, USER_ROLES, USERS
from aspen.identity.management import Account, Management, ManagementError, Organization
from aspen.identity.requests import ManagementUnavailableError
from aspencli.changes.step_log import StepLog, StepState
from aspencli.errors import AspenError, BadInputError, ConflictError, NotFoundError
from aspencli.identity.database import PersonTransaction, find_roles
from aspencli.identity.directory import OFFBOARDED, is_own
from aspencli.identity.people import StoredUser
from aspencli.remote.identity import IdentityProvider
from aspencli.text import as_id

RIGHTS = (Right("UPDATE", "aspen.users"), Right("DELETE", "aspen.user_roles"))
"""The rights that offboarding needs."""


class AccountFate(StrEnum):
    """The fate of the account."""

    STAY = "stay"
    BLOCK = "block"
    DELETE = "delete"


@dataclass(frozen=True)
class Membership:
    """A membership of the account in an organization, with the names of its roles there."""

    organization: Organization
    roles: tuple[str, ...]


@dataclass(frozen=True)
class OpenInvitation:
    """An invitation with which the person could come back."""

    organization: Organization
    id: str


@dataclass(frozen=True)
class OffboardingPlan:
    """The plan for offboarding one person.

    Attributes:
        email: The person's address, in lowercase.
        user: The user in the database; None if there is none.
        roles: The names of the roles by the group's name.
        samples: The number of samples that the user uploaded, which stay.
        last_admin_of: The names of the groups that have no other admin.
        account: The account; None if there is none, or the provider was not asked.
        has_sessions: True if the account is signed in somewhere, as far as the provider says.
        ends_sessions: False if the provider does not say that about browsers, because its plan has
            no such request; then it cannot end these sessions either.
        asked_provider: False without credentials for the provider.
    """

    email: str
    user: StoredUser | None
    roles: Mapping[str, tuple[str, ...]]
    samples: int
    last_admin_of: tuple[str, ...]
    fate: AccountFate
    account: Account | None = None
    has_sessions: bool = False
    ends_sessions: bool = True
    memberships: tuple[Membership, ...] = ()
    invitations: tuple[OpenInvitation, ...] = ()
    asked_provider: bool = True
    role_ids: Mapping[str, str] = field(default_factory=dict)

    @property
    def changes_user(self) -> bool:
        """Return True if the database is to change."""
        return self.user is not None and bool(self.roles or not self.user.is_offboarded)

    @property
    def changes_account(self) -> bool:
        """Return True if the account itself is to change."""
        if self.account is None or self.fate is AccountFate.STAY:
            return False
        return self.fate is AccountFate.DELETE or not self.account.is_blocked

    @property
    def is_empty(self) -> bool:
        """Return True if nothing lets the person in any more."""
        parts = (self.has_sessions, self.memberships, self.invitations)
        return not (any(parts) or self.changes_user or self.changes_account)


def read_offboarding(
    database: Database, provider: IdentityProvider | None, key: str, fate: AccountFate
) -> OffboardingPlan:
    """Return the plan for offboarding the person with this ID, e-mail address, or account ID.

    Raises:
        NotFoundError: Neither side knows the person.
        BadInputError: Several users match.
    """
    with database.connected(transaction=True) as reader:
        user = _find_user(reader, key)
        plan = _stored(reader, key.lower(), user, fate)
    if provider is None:
        plan = replace(plan, asked_provider=False)
    else:
        plan = provider.run(partial(_at_provider, plan, key))
    if not (plan.user or plan.account or plan.invitations):
        raise _unknown(key)
    return plan


def _unknown(key: str) -> NotFoundError:
    return NotFoundError(
        f"No such user: {key!r}",
        hint="Search by part of the name or e-mail address: aspencli users list --search TEXT",
    )


def _find_user(reader: Reader, key: str) -> StoredUser | None:
    columns = (USERS.c.id, USERS.c.name, USERS.c.email, USERS.c.auth0_user_id, USERS.c.system_admin)
    exact = sa.or_(
        USERS.c.id == as_id(key),
        USERS.c.email == key,
        USERS.c.auth0_user_id.in_([key, f"{OFFBOARDED}{key}"]),
    )
    for condition in (exact, sa.func.lower(USERS.c.email) == key.lower()):
        query = sa.select(*columns).where(condition).order_by(USERS.c.id)
        found = [StoredUser(*row) for row in reader.execute(query)]
        if len(found) > 1:
            raise BadInputError(
                f"Several users match {key!r}.",
                hint="Use the ID of one of them.",
                details=[f"{one.id}  {one.name} <{one.email}>" for one in found],
            )
        if found:
            return found[0]
    return None


def _stored(
    reader: Reader, email: str, user: StoredUser | None, fate: AccountFate
) -> OffboardingPlan:
    if user is None:
        return OffboardingPlan(email, None, {}, 0, (), fate)
    held = find_roles(reader, [user.id]).get(user.id, {})
    groups = reader.execute(sa.select(GROUPS.c.id, GROUPS.c.name).where(GROUPS.c.id.in_(held)))
    names = {row.id: str(row.name) for row in groups}
    uploaded = sa.select(sa.func.count()).where(SAMPLES.c.uploaded_by_id == user.id)
    others = (
        sa.select(USER_ROLES.c.group_id)
        .join(ROLES, ROLES.c.id == USER_ROLES.c.role_id)
        .where(ROLES.c.name == "admin", USER_ROLES.c.user_id != user.id)
    )
    with_others = set(reader.execute(others.where(USER_ROLES.c.group_id.in_(held))).scalars())
    alone = (
        names[group]
        for group, roles in held.items()
        if "admin" in roles
        if group not in with_others
    )
    roles = {names[group]: roles for group, roles in sorted(held.items())}
    samples = reader.execute(uploaded).scalar() or 0
    last = tuple(sorted(alone))
    return OffboardingPlan(user.email.lower(), user, roles, samples, last, fate)


async def _at_provider(plan: OffboardingPlan, key: str, management: Management) -> OffboardingPlan:
    account = await _find_account(management, plan.user, key)
    email = plan.user.email.lower() if plan.user else account.email if account else key.lower()
    organizations = {one.id: one for one in await management.organizations()}
    memberships: list[Membership] = []
    in_browsers: bool | None = False
    in_programs: bool | None = False
    if account is not None:
        memberships = await _memberships(management, account.id, organizations)
        in_browsers, in_programs = await asyncio.gather(
            management.has_sessions(account.id), management.has_refresh_tokens(account.id)
        )
    invitations = await _open_invitations(management, email, organizations)
    return replace(
        plan,
        email=email,
        account=account,
        has_sessions=bool(in_browsers or in_programs),
        ends_sessions=in_browsers is not None,
        memberships=tuple(memberships),
        invitations=tuple(invitations),
        role_ids=await management.role_ids(),
    )


async def _memberships(
    management: Management, account: str, organizations: Mapping[str, Organization]
) -> list[Membership]:
    there = await management.organizations_of(account)
    roles = await asyncio.gather(*(management.member_roles(one, account) for one in there))
    return [
        Membership(organizations.get(one) or Organization(one, one, one), tuple(sorted(names)))
        for one, names in zip(there, roles, strict=True)
    ]


async def _open_invitations(
    management: Management, email: str, organizations: Mapping[str, Organization]
) -> list[OpenInvitation]:
    now = dt.datetime.now(dt.UTC)
    found = await asyncio.gather(*map(management.invited, organizations))
    return [
        OpenInvitation(organizations[one.organization], one.id)
        for some in found
        for one in some
        if one.email == email and one.expires_at > now  # there may be several to the same one
    ]


async def _find_account(
    management: Management, user: StoredUser | None, key: str
) -> Account | None:
    if user is not None:
        account = await management.account(user.auth0_user_id.removeprefix(OFFBOARDED))
        if account is not None:
            return account
    email = user.email if user else key
    if "@" not in email:
        return await management.account(key) if "|" in key else None
    found = await management.accounts_with_email(email)
    return next((one for one in found if is_own(one.id)), None)


@dataclass
class OffboardingResult:
    """The result of offboarding a person.

    Attributes:
        failures: What failed, one sentence each, with the error.
        is_stored: True if the database no longer lets the person in.
        keeps_sessions: True if the provider cannot end sessions in browsers.
    """

    failures: list[tuple[str, Exception]] = field(default_factory=list)
    is_stored: bool = False
    keeps_sessions: bool = False


class OffboardingRun:
    """One run that carries out a plan.

    Args:
        database: The database, which may be written.
        provider: The identity provider; None without credentials for it.
        plan: The plan.
        log: The log of steps.
    """

    def __init__(
        self,
        database: Database,
        provider: IdentityProvider | None,
        plan: OffboardingPlan,
        log: StepLog,
    ):
        self.result = OffboardingResult()
        self._database, self._provider, self._plan, self._log = database, provider, plan, log

    def run(self) -> None:
        """Carry out the plan; the result says what failed.

        Raises:
            ConflictError: Another run is working on the person, or the user has changed.
        """
        transaction = PersonTransaction(self._database, self._plan.email)
        try:
            self._check(transaction)
            if self._provider is None:
                self._store(transaction)
            else:
                self._provider.run(partial(self._work, transaction))
        finally:
            transaction.close()

    def _check(self, transaction: PersonTransaction) -> None:
        user = self._plan.user
        if user is None:
            return
        now = [one for one in transaction.users(emails=[self._plan.email]) if one.id == user.id]
        roles = sorted(transaction.roles(user.id).values())
        if now != [user] or roles != sorted(self._plan.roles.values()):
            raise ConflictError(
                f"User {user.id} <{user.email}> changed after the plan was made; nothing was "
                "changed.",
                hint="Run the command again to see the current state.",
            )

    async def _work(self, transaction: PersonTransaction, management: Management) -> None:
        for what, step in self._provider_steps(management):
            await self._take(what, step)
        # Whatever the provider says, the service must not let the person in.
        self._store(transaction)
        plan, account = self._plan, self._plan.account
        if account is None or not plan.changes_account:
            return
        if plan.fate is AccountFate.DELETE:
            await self._take("delete account", partial(management.delete_account, account.id))
        else:
            await self._take("block account", partial(management.block_account, account.id))

    def _provider_steps(
        self, management: Management
    ) -> Sequence[tuple[str, Callable[[], Awaitable[None]]]]:
        plan, account = self._plan, self._plan.account
        steps: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        if account is not None and not plan.is_empty:
            steps += [
                ("end sessions", partial(self._end_sessions, management, account.id)),
                ("revoke refresh tokens", partial(management.revoke_refresh_tokens, account.id)),
            ]
            for one in plan.memberships:
                place = one.organization
                ids = [plan.role_ids[name] for name in one.roles if name in plan.role_ids]
                if ids:
                    remove = partial(management.remove_roles, place.id, account.id, ids)
                    steps.append((f"remove roles in {place.display_name}", remove))
                leave = partial(management.remove_member, place.id, account.id)
                steps.append((f"remove member of {place.display_name}", leave))
        for invitation in plan.invitations:
            place = invitation.organization
            what = f"delete invitation to {place.display_name}"
            steps.append((what, partial(management.delete_invitation, place.id, invitation.id)))
        return steps

    async def _end_sessions(self, management: Management, account: str) -> None:
        self.result.keeps_sessions = not await management.end_sessions(account)

    async def _take(self, what: str, step: Callable[[], Awaitable[None]]) -> None:
        self._log.begin(self._plan.email, what)
        try:
            await step()
        except (ManagementError, ManagementUnavailableError) as error:
            self._fail(what, error)
        else:
            self._log.end(self._plan.email, what, StepState.DONE)

    def _store(self, transaction: PersonTransaction) -> None:
        plan, what = self._plan, "remove roles and account in database"
        if plan.user is None or not plan.changes_user:
            self.result.is_stored = True
            return
        before = {"roles": plan.roles, "account": plan.user.auth0_user_id}
        self._log.begin(plan.email, what, before=before, system_admin=plan.user.system_admin)
        try:
            transaction.remove_roles(plan.user.id)
            transaction.unlink_user(plan.user)
            transaction.commit()
        except (DBAPIError, AspenError) as error:
            self._fail(what, error)
        else:
            self._log.end(plan.email, what, StepState.DONE)
            self.result.is_stored = True

    def _fail(self, what: str, error: Exception) -> None:
        if self._provider and isinstance(error, (ManagementError, ManagementUnavailableError)):
            error = self._provider.explained(error)
        reason = str(error.orig) if isinstance(error, DBAPIError) else str(error)
        reason = reason.strip().partition("\n")[0]
        self._log.end(self._plan.email, what, StepState.FAILED, reason=reason)
        self.result.failures.append((f"Failed to {what}: {reason}", error))
