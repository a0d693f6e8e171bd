"""People as they should be and as they are on both sides, and the steps from one to the other.

A person is complete in a group if the provider has an account, which is a member of the group's
organization with the role, and the database has a user with that account's ID and the role. Besides
that, the person needs a way in: the provider's invitation, or a link to set a password. Someone who
has signed in before needs none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

from aspen.identity.management import Account
from aspencli.errors import BadInputError
from aspencli.identity.directory import OFFBOARDED, is_own
from aspencli.text import clean_email, clean_name, clean_text

ROLES = ("admin", "member", "viewer")
"""The roles in a group, strongest first."""


NAME_MISSING = "the name is missing"
"""The problem of a new person without a name."""


class Access(StrEnum):
    """The way in that a person gets."""

    INVITATION = "invitation"
    LINK = "link"
    """A link to set a password, for the operator to pass on."""


class Step(StrEnum):
    """A step of onboarding; the names are those in the log of steps."""

    ACCOUNT = "create account"
    UNBLOCK = "unblock account"
    USER = "create user"
    RELINK = "link user to account"
    ROLE = "add role in database"
    MEMBER = "add member"
    MEMBER_ROLE = "add role at provider"
    INVITATION = "send invitation"
    COMMIT = "commit"
    LINK = "create password link"


DATABASE_STEPS = frozenset({Step.USER, Step.RELINK, Step.ROLE})
"""The steps that one transaction joins, which `Step.COMMIT` commits."""


@dataclass(frozen=True)
class WantedPerson:
    """A person to onboard; see `WantedPerson.checked`.

    Attributes:
        email: The address in lowercase, as the provider stores it.
        name: The display name; None to use the one that exists.
        group: The ID, name, or prefix of the group.
        role: The name of the role in it.
        line: The line of the file, or 0.
    """

    email: str
    name: str | None
    group: str
    role: str
    line: int = 0

    @classmethod
    def checked(cls, *, email: str, name: str | None, group: str, role: str) -> Self:
        """Validate every field and return the person.

        Raises:
            BadInputError: A field is blank, malformed, or contains invisible characters.
        """
        return cls(
            clean_email(email).lower(),
            None if name is None else clean_name(name, "the name"),
            clean_text(group, "the group"),
            checked_role(role),
        )


def checked_role(text: str) -> str:
    """Return the name of a role in lowercase.

    Raises:
        BadInputError: There is no such role.
    """
    role = clean_text(text, "the role").lower()
    if role not in ROLES:
        raise BadInputError(f"Invalid role: {text!r}", hint=f"Choose from {', '.join(ROLES)}.")
    return role


@dataclass(frozen=True)
class GroupPlace:
    """A group in the database, and its organization at the provider."""

    id: int
    name: str
    prefix: str
    organization: str  # its ID


@dataclass(frozen=True)
class StoredUser:
    """A user in the database."""

    id: int
    name: str
    email: str
    auth0_user_id: str
    system_admin: bool

    @property
    def is_offboarded(self) -> bool:
        """Return True if no account belongs to the user any more."""
        return self.auth0_user_id.startswith(OFFBOARDED)


@dataclass(frozen=True)
class FoundPerson:
    """A person as found on both sides, in one group.

    Attributes:
        accounts: The accounts with the e-mail address, and the user's own account.
        roles: The roles in the group's organization; None if the person is not a member.
        invitation: The ID of an invitation to it that is still open.
        users: The users with the e-mail address or with one of the accounts.
        held: The roles in the group in the database, of the user with the e-mail address.
    """

    accounts: tuple[Account, ...] = ()
    roles: tuple[str, ...] | None = None
    invitation: str | None = None
    users: tuple[StoredUser, ...] = ()
    held: tuple[str, ...] = ()


@dataclass(frozen=True)
class PersonPlan:
    """The plan for one person in one group.

    Attributes:
        name: The name of what is created.
        account: The existing account; None if it is to be created.
        user: The existing user; None if it is to be created.
        follows: True if an earlier plan has the same person, in another group.
        steps: What is to be done, in this order.
        problem: Why the person cannot be onboarded; empty if that is possible.
        hint: What to do about that.
        notes: What the operator should know.
    """

    wanted: WantedPerson
    group: GroupPlace
    found: FoundPerson
    name: str
    account: Account | None
    user: StoredUser | None
    follows: bool = False
    steps: tuple[Step, ...] = ()
    problem: str = ""
    hint: str = ""
    notes: tuple[str, ...] = ()

    @property
    def outcome(self) -> str:
        """Return the planned outcome of the whole."""
        if self.problem:
            return "skip"
        if not self.steps:
            return "unchanged"
        return "update" if self.account or self.user or self.follows else "create"

    @property
    def key(self) -> str:
        """Return the item's name in the log of steps."""
        return f"{self.wanted.email} in {self.group.name}"


class _ProblemError(Exception):
    """A reason why a person cannot be onboarded, and what to do about it."""

    def __init__(self, problem: str, hint: str):
        super().__init__(problem)
        self.problem, self.hint = problem, hint


def plan_people(
    wanted: Iterable[WantedPerson],
    groups: Mapping[str, GroupPlace],
    found: Mapping[tuple[str, int], FoundPerson],
    access: Access,
    *,
    unblock: bool = False,
) -> Iterator[PersonPlan]:
    """Yield the plan for each person, given the groups by key and what was found in each of them.

    A person may be in several groups. What the first of their plans creates, the others find.
    """
    before: dict[str, PersonPlan] = {}
    for one in wanted:
        group = groups[one.group]
        there = found[one.email, group.id]
        plan = _plan(one, group, there, access, before.get(one.email), unblock=unblock)
        if not plan.problem:
            before.setdefault(one.email, plan)
        yield plan


def _plan(
    wanted: WantedPerson,
    group: GroupPlace,
    found: FoundPerson,
    access: Access,
    before: PersonPlan | None,
    *,
    unblock: bool,
) -> PersonPlan:
    plan = PersonPlan(wanted, group, found, wanted.name or "", None, None)
    try:
        user = _user_of(wanted, found.users)
        account = _account_of(wanted, found.accounts, user)
        _check_account(account, user, unblock=unblock)
        _check_roles(wanted, group, found)
        name = _name_of(wanted, account, user, before)
    except _ProblemError as error:
        return replace(plan, problem=error.problem, hint=error.hint)
    notes: tuple[str, ...] = ()
    if wanted.name and wanted.name != name:
        notes = (f"{wanted.email} keeps the name {name!r}.",)
    plan = replace(
        plan, name=name, account=account, user=user, follows=before is not None, notes=notes
    )
    done = frozenset(before.steps) if before else frozenset()
    return replace(plan, steps=tuple(_steps(plan, access, done)))


def _user_of(wanted: WantedPerson, users: Sequence[StoredUser]) -> StoredUser | None:
    own = [user for user in users if user.email.lower() == wanted.email]
    others = [user for user in users if user.email.lower() != wanted.email]
    if len(own) > 1:
        ids = " and ".join(str(user.id) for user in own)
        raise _ProblemError(
            f"users {ids} have this e-mail address",
            "Change the address of one of them: aspencli users import",
        )
    if others:
        raise _ProblemError(
            f"the account with this address belongs to user {others[0].id} <{others[0].email}>",
            f"Change the address of that user first: aspencli users show {others[0].id}",
        )
    return own[0] if own else None


def _account_of(
    wanted: WantedPerson, accounts: Sequence[Account], user: StoredUser | None
) -> Account | None:
    linked = next((a for a in accounts if user and a.id == user.auth0_user_id), None)
    if linked is not None:
        if linked.email != wanted.email:
            raise _ProblemError(
                f"the account {linked.id} of user {user.id if user else ''} has the address "
                f"{linked.email} at the identity provider",
                "Make the addresses equal first: aspencli users import",
            )
        return linked
    own = [a for a in accounts if is_own(a.id) and a.email == wanted.email]
    if len(own) > 1:
        raise _ProblemError(
            f"there are {len(own)} accounts with this address: {', '.join(a.id for a in own)}",
            "Delete all but one of them at the identity provider.",
        )
    if user and own and not user.is_offboarded and own[0].id != user.auth0_user_id:
        raise _ProblemError(
            f"user {user.id} belongs to account {user.auth0_user_id}, which does not exist, and "
            f"account {own[0].id} has this address",
            "If it is the same person, link them first: aspencli users import, with the column "
            "new_auth0_user_id",
        )
    return own[0] if own else None


def _check_account(account: Account | None, user: StoredUser | None, *, unblock: bool) -> None:
    if account is None:
        return
    is_known = user is not None and user.auth0_user_id == account.id
    if not (account.is_verified or is_known):
        raise _ProblemError(
            f"the account {account.id} with this address was never verified, so whoever created it "
            "may not own the address",
            "Verify or delete the account at the identity provider, then run the command again.",
        )
    if account.is_blocked and not unblock:
        raise _ProblemError(
            f"the account {account.id} is blocked", "To unblock it, add --unblock-account."
        )


def _check_roles(wanted: WantedPerson, group: GroupPlace, found: FoundPerson) -> None:
    for side, roles in (("in the database", found.held), ("at the provider", found.roles or ())):
        others = [role for role in roles if role != wanted.role]
        if others:
            raise _ProblemError(
                f"the role in {group.name} is {' and '.join(others)} {side}, not {wanted.role}",
                "Onboarding does not change roles. Use the existing role, or change it: aspencli "
                f"users roles add {wanted.email} --group {group.prefix} --role {wanted.role} "
                "--replace",
            )


def _name_of(
    wanted: WantedPerson,
    account: Account | None,
    user: StoredUser | None,
    before: PersonPlan | None,
) -> str:
    """Return the name that a person has or gets; an existing one is kept."""
    if user is not None:
        return user.name
    if account is not None and account.name and account.name.lower() != account.email:
        return account.name
    name = (before.name if before else None) or wanted.name
    if not name:
        raise _ProblemError(NAME_MISSING, "Pass --name, or fill the column name.")
    return name


def _steps(plan: PersonPlan, access: Access, done: frozenset[Step]) -> Iterator[Step]:
    """Yield what is to be done, except for what an earlier plan for the person does."""
    found, role, account = plan.found, plan.wanted.role, plan.account
    if account is None and Step.ACCOUNT not in done:
        yield Step.ACCOUNT
    if account and account.is_blocked and Step.UNBLOCK not in done:
        yield Step.UNBLOCK
    if plan.user is None:
        if Step.USER not in done:
            yield Step.USER
    elif (account is None or plan.user.auth0_user_id != account.id) and Step.RELINK not in done:
        yield Step.RELINK
    is_new = role not in found.held
    if is_new:
        yield Step.ROLE
    if found.roles is None:
        yield Step.MEMBER
    if role not in (found.roles or ()):
        yield Step.MEMBER_ROLE
    has_signed_in = account is not None and account.has_signed_in
    if access is Access.LINK:
        if not has_signed_in and Step.LINK not in done:
            yield Step.LINK
    elif found.invitation is None and (is_new or not has_signed_in):
        yield Step.INVITATION
