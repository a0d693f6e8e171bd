"""One person in one group: the steps to get there, and how to revert them if one fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from aspen.database.engine import Database
from aspen.database.errors import lost_at_commit
from aspen.identity.management import Account, Management, ManagementError
from aspen.identity.requests import ManagementUnavailableError
from aspencli.changes.step_log import StepLog, StepState
from aspencli.errors import AspenError, ConflictError, UncertainError
from aspencli.identity.database import PersonTransaction
from aspencli.identity.people import DATABASE_STEPS, PersonPlan, Step
from aspencli.identity.reading import open_invitations

LOOKS_S = (0.0, 1.0, 3.0)
"""The pauses before looking for what a request without a response may have created."""

Facts = dict[str, object]


@dataclass
class PersonResult:
    """The result for one person in one group.

    Attributes:
        outcome: ``created``, ``updated``, ``unchanged``, ``skipped``, or ``failed``.
        account: The ID of the account.
        user: The ID of the user.
        done: The steps that were carried out and not reverted.
        reason: Why the person was skipped or failed.
        left: What a failure left behind, one sentence each.
        link: The link to set a password, which must not be stored.
        error: The error, if the person failed.
    """

    plan: PersonPlan
    outcome: str
    account: str | None = None
    user: int | None = None
    done: set[Step] = field(default_factory=set)
    reason: str = ""
    left: list[str] = field(default_factory=list)
    link: str | None = field(default=None, repr=False)
    error: Exception | None = None


@dataclass(frozen=True)
class Means:
    """The means to carry out steps.

    Attributes:
        database: The database, which may be written.
        explain: Returns an error of the provider with a message for the operator.
        role_ids: The ID of each role at the provider, by name.
        inviter: The name in invitations.
        log: The log of steps.
    """

    database: Database
    management: Management
    explain: Callable[[ManagementError | ManagementUnavailableError], AspenError]
    role_ids: Mapping[str, str]
    inviter: str
    log: StepLog


@dataclass
class Carried:
    """The account and user of a person, which the first group hands on to the others."""

    account: str | None = None
    user: int | None = None
    failed: bool = False


class _InUseError(Exception):
    """The result of a step that somebody has used since, so that it must stay."""


@dataclass
class _Created:
    """A thing that a step created, in words, and how to revert it."""

    step: Step
    what: str
    revert: Callable[[], Awaitable[None]]


class Placement:
    """The steps of one person in one group."""

    def __init__(self, means: Means, plan: PersonPlan, carried: Carried):
        self._means, self._plan, self._carried = means, plan, carried
        self._email, self._group = plan.wanted.email, plan.group
        self._account = plan.account.id if plan.account else carried.account
        self._user = plan.user.id if plan.user else carried.user
        self._created: list[_Created] = []
        self._result = PersonResult(plan, "updated" if plan.outcome == "update" else "created")
        self._transaction: PersonTransaction | None = None
        self._is_committed = self._is_unknown = False

    async def carry_out(self) -> PersonResult:
        """Take all steps, or revert those that were taken; return the result."""
        try:
            await self._take_all()
            self._carried.account, self._carried.user = self._account, self._user
        except Exception as error:  # noqa: BLE001 - any error leaves steps to revert and to report
            self._carried.failed = True
            await self._fail(error)
        finally:
            # An interrupt that comes twice ends the process, and the server then rolls back.
            if self._transaction:
                self._transaction.close()
        self._result.account, self._result.user = self._account, self._user
        return self._result

    async def _take_all(self) -> None:
        steps = self._plan.steps
        self._transaction = await asyncio.to_thread(
            PersonTransaction, self._means.database, self._email
        )
        await asyncio.to_thread(self._check_database, self._transaction)
        if not DATABASE_STEPS.intersection(steps):
            await self._check_provider()
        await asyncio.to_thread(self._transaction.mark)
        for step in steps:
            if step is not Step.LINK:
                await self._take(step)
        await self._take(Step.COMMIT)
        if Step.LINK in steps:
            await self._take(Step.LINK)

    async def _take(self, step: Step) -> None:
        log, key = self._means.log, self._plan.key
        log.begin(key, step)
        try:
            facts = await self._methods[step](self)
        except Exception as error:
            log.end(key, step, StepState.FAILED, reason=self._explained(error)[0])
            raise
        log.end(key, step, StepState.DONE, **(facts or {}))
        self._result.done.add(step)

    # The state

    def _check_database(self, transaction: PersonTransaction) -> None:
        """Check that the database is still as it was when the plan was made.

        Raises:
            ConflictError: It is not.
        """
        found = self._plan.found
        accounts = [account.id for account in found.accounts]
        now = transaction.users(
            emails=[self._email], accounts=[*accounts, *([self._account] if self._account else [])]
        )
        held: tuple[str, ...] = ()
        if self._user is not None:
            held = transaction.roles(self._user).get(self._group.id, ())
        own = self._carried.user
        if {one for one in now if one.id != own} != {one for one in found.users if one.id != own}:
            raise self._moved()
        if held != found.held:
            raise self._moved()

    async def _check_provider(self) -> None:
        """Check the same of the provider, for a plan that leaves the database as it is.

        Another run of this program would otherwise have changed the database.

        Raises:
            ConflictError: It is not.
        """
        management, organization = self._means.management, self._group.organization
        roles = None
        if self._account and organization in await management.organizations_of(self._account):
            found = await management.member_roles(organization, self._account)
            roles = tuple(sorted(found))
        if roles != self._plan.found.roles:
            raise self._moved()
        if Step.INVITATION in self._plan.steps:
            there = (await open_invitations(management, organization)).get(self._email)
            if there != self._plan.found.invitation:
                raise self._moved()

    def _moved(self) -> ConflictError:
        return ConflictError(
            f"{self._email} changed after the plan was made. Another operator may be onboarding "
            "the same person.",
            hint="Run the command again to see the current state.",
        )

    # The steps

    async def _create_account(self) -> Facts:
        account = await self._new_account()
        self._account = account.id
        return {"account": account.id}

    async def _new_account(self) -> Account:
        management = self._means.management
        try:
            made = await management.create_account(self._email, self._plan.name)
        except ManagementError as error:
            if not error.taken:
                raise
            # It was created a moment ago, and the search that the plan is based on is behind.
            there = await management.accounts_with_email(self._email)
            usable = [one for one in there if one.is_verified and not one.is_blocked]
            if len(there) != 1 or not usable:
                raise
            return usable[0]
        except ManagementUnavailableError as error:
            if not error.is_uncertain or (found := await self._appeared()) is None:
                raise
            made = found
        what = f"account {made.id} at the identity provider"
        self._add(Step.ACCOUNT, what, lambda: self._delete_account(made.id))
        return made

    async def _appeared(self) -> Account | None:
        """Return the account that a lost request has created after all, or None."""
        for pause in LOOKS_S:
            await asyncio.sleep(pause)
            for one in await self._means.management.accounts_with_email(self._email):
                if one.is_verified and one.name == self._plan.name and not one.has_signed_in:
                    return one
        return None

    async def _delete_account(self, account: str) -> None:
        management = self._means.management
        found = await management.account(account)
        if found is None:
            return
        if found.has_signed_in or await management.organizations_of(account):
            raise _InUseError
        await management.delete_account(account)

    async def _unblock(self) -> None:
        account, management = self._known_account, self._means.management
        what = f"account {account} stays unblocked"
        await self._surely(
            Step.UNBLOCK,
            what,
            management.block_account(account, blocked=False),
            lambda: management.block_account(account),
        )

    async def _create_user(self) -> Facts:
        transaction = self._open
        self._user = await asyncio.to_thread(
            transaction.create_user, self._plan.name, self._email, self._known_account
        )
        return {"user": self._user}

    async def _relink(self) -> Facts:
        before = self._plan.user.auth0_user_id if self._plan.user else None
        await asyncio.to_thread(self._open.link_user, self._known_user, self._known_account)
        return {"user": self._user, "before": before}

    async def _add_role(self) -> None:
        await asyncio.to_thread(
            self._open.add_role, self._known_user, self._group.id, self._plan.wanted.role
        )

    async def _add_member(self) -> None:
        account, management = self._known_account, self._means.management
        organization = self._group.organization
        await self._surely(
            Step.MEMBER,
            f"membership of account {account} in the organization of {self._group.name}",
            management.add_member(organization, account, []),
            lambda: management.remove_member(organization, account),
        )

    async def _add_member_role(self) -> None:
        account, management = self._known_account, self._means.management
        organization = self._group.organization
        roles = [self._means.role_ids[self._plan.wanted.role]]
        await self._surely(
            Step.MEMBER_ROLE,
            f"role {self._plan.wanted.role} of account {account} in the organization of "
            f"{self._group.name}",
            management.add_roles(organization, account, roles),
            lambda: management.remove_roles(organization, account, roles),
        )

    async def _send_invitation(self) -> Facts:
        # An e-mail cannot be unsent, so the rest must still be able to follow.
        await asyncio.to_thread(self._open.check)
        management, organization = self._means.management, self._group.organization
        role = self._means.role_ids[self._plan.wanted.role]
        try:
            made = await management.invite(organization, self._email, self._means.inviter, role)
        except ManagementUnavailableError as error:
            found = await self._sent() if error.is_uncertain else None
            if found is None:
                if error.is_uncertain:
                    self._add(Step.INVITATION, "invitation", self._take_back_unseen)
                raise
            made = found
        what = f"invitation e-mail to {self._email} for {self._group.name}"
        self._add(Step.INVITATION, what, lambda: self._take_back(made))
        return {"invitation": made}

    async def _sent(self) -> str | None:
        """Return the ID of an invitation that a lost request has created after all, or None."""
        for pause in LOOKS_S:
            await asyncio.sleep(pause)
            there = await open_invitations(self._means.management, self._group.organization)
            if self._email in there:
                return there[self._email]
        return None

    async def _take_back(self, invitation: str) -> None:
        management, organization = self._means.management, self._group.organization
        if not await management.has_invitation(organization, invitation):
            raise _InUseError  # the service deletes an invitation when it is accepted
        await management.delete_invitation(organization, invitation)
        self._result.left.append(
            f"An invitation e-mail was sent to {self._email}. Its link no longer works."
        )

    async def _take_back_unseen(self) -> None:
        management, organization = self._means.management, self._group.organization
        there = (await open_invitations(management, organization)).get(self._email)
        if there is not None:
            await management.delete_invitation(organization, there)
        self._result.left.append(
            f"It is unknown if an invitation e-mail was sent to {self._email}. If so, its link "
            "may not work."
        )

    async def _commit(self) -> None:
        transaction = self._open
        try:
            await asyncio.to_thread(transaction.commit)
        except DBAPIError as error:
            if not lost_at_commit(error):
                raise
            if not await self._was_committed():
                raise
        self._is_committed = True

    async def _was_committed(self) -> bool:
        """Return True if the user is complete in the database, although no response said so.

        Raises:
            UncertainError: The database cannot be reached.
        """
        for pause in LOOKS_S:
            await asyncio.sleep(pause)
            try:
                return await asyncio.to_thread(self._look)
            except (DBAPIError, ConflictError):
                continue  # The server may still work on the commit, which then holds the lock.
        self._is_unknown = True
        raise UncertainError(
            f"The connection to the database was lost during the commit for {self._email}.",
            hint="Run the command again: it finds out, and adds what is missing.",
        )

    def _look(self) -> bool:
        transaction = PersonTransaction(self._means.database, self._email)
        try:
            users = transaction.users(emails=[self._email])
            linked = [one for one in users if one.auth0_user_id == self._account]
            if not linked:
                return False
            return self._plan.wanted.role in transaction.roles(linked[0].id).get(self._group.id, ())
        finally:
            transaction.close()

    async def _create_link(self) -> None:
        self._result.link = await self._means.management.password_ticket(self._known_account)

    _methods: Mapping[Step, Callable[[Placement], Awaitable[Facts | None]]] = {
        Step.ACCOUNT: _create_account,
        Step.UNBLOCK: _unblock,
        Step.USER: _create_user,
        Step.RELINK: _relink,
        Step.ROLE: _add_role,
        Step.MEMBER: _add_member,
        Step.MEMBER_ROLE: _add_member_role,
        Step.INVITATION: _send_invitation,
        Step.COMMIT: _commit,
        Step.LINK: _create_link,
    }

    @property
    def _open(self) -> PersonTransaction:
        if self._transaction is None:
            raise RuntimeError("no transaction")
        return self._transaction

    @property
    def _known_account(self) -> str:
        if self._account is None:
            raise RuntimeError("no account")
        return self._account

    @property
    def _known_user(self) -> int:
        if self._user is None:
            raise RuntimeError("no user")
        return self._user

    def _add(self, step: Step, what: str, revert: Callable[[], Awaitable[None]]) -> None:
        self._created.append(_Created(step, what, revert))

    async def _surely(
        self,
        step: Step,
        what: str,
        work: Awaitable[None],
        revert: Callable[[], Awaitable[None]],
    ) -> None:
        """Do something that can be reverted even if it is unknown whether it was done."""
        try:
            await work
        except ManagementUnavailableError as error:
            if error.is_uncertain:
                self._add(step, what, revert)
            raise
        self._add(step, what, revert)

    # Failures

    async def _fail(self, error: Exception) -> None:
        result = self._result
        result.outcome = "failed"
        result.reason, result.error = self._explained(error)
        if self._is_committed:
            result.left.append(f"{self._email} is complete except for the link.")
        elif self._is_unknown:
            result.left += [f"{one.what[:1].upper()}{one.what[1:]}." for one in self._created]
        else:
            await self._revert()
        if not (self._is_committed or self._is_unknown):
            result.done.clear()

    async def _revert(self) -> None:
        try:
            await asyncio.to_thread(self._lock_again)
        except (DBAPIError, AspenError) as error:
            why = self._explained(error)[0]
            for one in reversed(self._created):
                self._keep(one, f"it could not be checked if someone uses it: {why}")
            return
        stopped = ""
        for one in reversed(self._created):
            if stopped:
                self._keep(one, stopped)
            else:
                stopped = await self._revert_one(one)
        if not stopped:
            self._account = self._plan.account.id if self._plan.account else self._carried.account
        self._user = self._plan.user.id if self._plan.user else self._carried.user

    async def _revert_one(self, one: _Created) -> str:
        """Revert it if possible; return the reason if what was created before has to remain."""
        stopped = ""
        try:
            await one.revert()
        except _InUseError:
            stopped = "someone has used it since"
            self._keep(one, stopped)
        except ManagementError as error:
            self._keep(one, self._explained(error)[0])
        except ManagementUnavailableError as error:
            stopped = self._explained(error)[0]
            self._keep(one, stopped)
        else:
            self._means.log.end(self._plan.key, one.step, StepState.REVERTED)
        return stopped

    def _lock_again(self) -> None:
        """Make sure that this run holds the lock, and that no one else has written the user.

        Raises:
            DBAPIError: The database cannot be reached.
            ConflictError: Another run is working on the person, or has done so.
        """
        if not self._created:
            return
        self._user = self._plan.user.id if self._plan.user else self._carried.user
        if self._transaction is not None:
            try:
                self._transaction.undo()
                self._check_database(self._transaction)
            except SQLAlchemyError:  # the connection is lost, and the lock with it
                self._transaction.close()
                self._transaction = None
        if self._transaction is None:
            self._transaction = PersonTransaction(self._means.database, self._email)
            self._check_database(self._transaction)

    def _keep(self, one: _Created, why: str) -> None:
        self._means.log.end(self._plan.key, one.step, StepState.KEPT, reason=why)
        self._result.left.append(f"{one.what[:1].upper()}{one.what[1:]} remains: {why}")

    def _explained(self, error: Exception) -> tuple[str, Exception]:
        """Return an error in one line, and with a message for the operator."""
        if isinstance(error, (ManagementError, ManagementUnavailableError)):
            error = self._means.explain(error)
        if isinstance(error, DBAPIError):
            return str(error.orig).strip().partition("\n")[0], error
        return str(error).partition("\n")[0] or type(error).__name__, error
