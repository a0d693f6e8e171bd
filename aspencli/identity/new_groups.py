"""Onboarding of a group: its organization at the provider, its row, and its first admin.

The row is inserted first, in a transaction that waits for the organization: what the database
rejects never reaches the provider. If the admin cannot be onboarded, the group is deleted again,
unless someone has used it since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError

from aspen.database.engine import Database
from aspen.database.errors import lost_at_commit
from aspen.database.roles import Right
from aspen.database.sessions import Reader
from aspen.database.tables import GROUPS
from aspen.identity.management import (
    Management,
    Organization,
    organization_name,
)
from aspencli.changes.step_log import StepLog, StepState
from aspencli.errors import AspenError, BadInputError, ConflictError, UncertainError
from aspencli.groups.remote import checked_group
from aspencli.identity.database import RIGHTS as PERSON_RIGHTS
from aspencli.identity.database import GroupTransaction
from aspencli.identity.people import Access, GroupPlace, WantedPerson
from aspencli.identity.reading import OnboardingPlan, read_plan
from aspencli.reference.database import list_locations
from aspencli.reference.remote import Gazetteer
from aspencli.remote.identity import IdentityProvider
from aspencli.remote.types import Location

RIGHTS = (*PERSON_RIGHTS, Right("INSERT", "aspen.groups"), Right("UPDATE", "aspen.groups"))
"""The rights that onboarding a group needs."""
_NAME_LENGTHS, _PREFIX_LENGTHS = (3, 128), (2, 25)  # as in the API
_ORGANIZATION, _GROUP, _LINK = "create organization", "create group", "link group to organization"


@dataclass(frozen=True)
class NewGroupPlan:
    """The plan for onboarding a group.

    Attributes:
        fields: The columns of the group, such as ``name`` and ``prefix``.
        group: The ID of the group, if it exists.
        organization: The organization, if it exists.
        is_linked: True if the existing group has that organization.
        admin: The plan for the first admin.
    """

    fields: Mapping[str, Any]
    group: int | None
    organization: Organization | None
    is_linked: bool
    admin: OnboardingPlan

    @property
    def outcome(self) -> str:
        """Return the planned outcome of the whole."""
        if self.group is None and self.organization is None:
            return "create"
        if not (self.group and self.is_linked) or any(one.steps for one in self.admin.people):
            return "update"
        return "unchanged"


def checked_fields(
    database: Database, *, name: str, prefix: str, default_tree_location: str, **others: str | None
) -> dict[str, Any]:
    """Validate the fields of a new group, and return its columns.

    Raises:
        BadInputError: A text is blank, too long or too short, or has an invisible character.
        NotFoundError: The location does not exist.
    """
    with database.connected(transaction=True) as reader:
        place = Gazetteer(_Places(reader)).find(default_tree_location)
    given = checked_group(name=name, prefix=prefix, default_tree_location=place["id"], **others)
    for what, text, (shortest, longest) in (
        ("name", given["name"], _NAME_LENGTHS),
        ("prefix", given["prefix"], _PREFIX_LENGTHS),
    ):
        if not shortest <= len(text) <= longest:
            raise BadInputError(
                f"The {what} has {len(text)} characters.",
                hint=f"Use {shortest} to {longest} characters.",
            )
    return {"submitting_lab": given["name"], **given}


@dataclass(frozen=True)
class _Places:
    """The locations in the database."""

    reader: Reader

    def all(self) -> Iterable[Location]:
        """Return every location."""
        return [cast("Location", row) for row in list_locations(self.reader, "location")]


def read_group_plan(
    database: Database,
    provider: IdentityProvider,
    fields: Mapping[str, Any],
    admin: WantedPerson,
    access: Access,
) -> NewGroupPlan:
    """Compare a group and its first admin with what exists on both sides; return the plan.

    Raises:
        ConflictError: Another group or organization has the name or the prefix.
    """
    name, prefix = fields["name"], fields["prefix"]
    with database.connected(transaction=True) as reader:
        row = _find_group(reader, name, prefix)
        linked = row.auth0_org_id if row else None
        organization = provider.run(partial(_find_organization, linked, prefix))
        if organization is not None:
            owners = sa.select(GROUPS.c.id).where(GROUPS.c.auth0_org_id == organization.id)
            owner = reader.scalar(owners)
            _check_organization(organization, name, owner, row.id if row else None)
    is_linked = bool(row and organization and row.auth0_org_id == organization.id)
    place = GroupPlace(row.id if row else 0, name, prefix, organization.id if organization else "")
    people = read_plan(database, provider, [admin], access, places={admin.group: place})
    return NewGroupPlan(fields, row.id if row else None, organization, is_linked, people)


def _find_group(reader: Reader, name: str, prefix: str) -> sa.Row[Any, Any, Any, Any] | None:
    """Return the group if it exists.

    Raises:
        ConflictError: Another group has the name or the prefix.
    """
    columns = (GROUPS.c.id, GROUPS.c.name, GROUPS.c.prefix, GROUPS.c.auth0_org_id)
    query = sa.select(*columns).where(sa.or_(GROUPS.c.name == name, GROUPS.c.prefix == prefix))
    rows = reader.execute(query.order_by(GROUPS.c.id)).all()
    others = [row for row in rows if (row.name, row.prefix) != (name, prefix)]
    if others:
        raise ConflictError(
            f"Group {others[0].id} ({others[0].name}, prefix {others[0].prefix}) has this name "
            "or prefix already; nothing was written.",
            hint="Choose another name and prefix; see: aspencli groups list",
        )
    return rows[0] if rows else None


async def _find_organization(
    organization: str | None, prefix: str, management: Management
) -> Organization | None:
    found = await management.organization(organization) if organization else None
    return found or await management.organization_named(organization_name(prefix))


def _check_organization(
    organization: Organization, name: str, owner: int | None, group: int | None
) -> None:
    if owner not in {None, group}:
        raise ConflictError(
            f"Organization {organization.name} belongs to group {owner}; nothing was written.",
            hint="Choose another prefix.",
        )
    if owner is None and organization.display_name != name:
        raise ConflictError(
            f"Organization {organization.name} exists at the identity provider with another "
            f"display name, {organization.display_name!r}; nothing was written.",
            hint="If it is meant for this group, change its display name; otherwise choose another "
            "prefix.",
        )


class NewGroupRun:
    """One run that creates what a group lacks, apart from its admin.

    Args:
        database: The database, which may be written.
        provider: The identity provider.
        plan: The plan.
        log: The log of steps.

    Attributes:
        left: What could not be reverted, one sentence each.
    """

    def __init__(
        self, database: Database, provider: IdentityProvider, plan: NewGroupPlan, log: StepLog
    ):
        self.left: list[str] = []
        self._database, self._provider, self._plan, self._log = database, provider, plan, log
        self._item = f"group {plan.fields['name']}"
        self._made_organization: str | None = None
        self._made_group: int | None = None

    def create(self) -> GroupPlace:
        """Create the group and its organization, or what is missing of them; return the group.

        Raises:
            ConflictError: Another run is at it, or was faster; nothing was left behind.
            AspenError: A step failed; `left` names what could not be reverted.
        """
        plan, fields = self._plan, self._plan.fields
        name, prefix = fields["name"], fields["prefix"]
        if plan.group and plan.organization and plan.is_linked:
            return GroupPlace(plan.group, name, prefix, plan.organization.id)
        transaction = GroupTransaction(self._database, prefix)
        try:
            group = plan.group
            if group is None:
                create = partial(transaction.create_group, fields)
                group = self._made_group = self._logged(_GROUP, create, "group")
            organization = plan.organization.id if plan.organization else None
            if organization is None:
                create_organization = partial(self._provider.run, self._new_organization)
                organization = self._logged(_ORGANIZATION, create_organization, "organization")
                self._made_organization = organization
            self._logged(_LINK, partial(transaction.link_group, group, organization), "")
            self._commit(transaction, group, organization)
        except UncertainError:
            self.left.append(f"It is unknown if the organization of {name} exists.")
            raise
        except BaseException:
            transaction.close()
            self._made_group = None  # it was rolled back
            self._revert_organization()
            raise
        finally:
            transaction.close()
        return GroupPlace(group, name, prefix, organization)

    def revert(self) -> None:
        """Delete again what this run created, unless someone has used it since."""
        if self._made_group is None:
            return self._revert_organization()
        transaction: GroupTransaction | None = None
        try:
            transaction = GroupTransaction(self._database, self._plan.fields["prefix"])
            transaction.delete_group(self._made_group)
            transaction.commit()
        except IntegrityError:
            self._keep(_GROUP, f"Group {self._made_group} remains: someone uses it.")
            return None
        except (DBAPIError, AspenError) as error:
            self._keep(_GROUP, f"Group {self._made_group} remains: {_words(error)}")
            return None
        finally:
            if transaction is not None:
                transaction.close()
        self._log.end(self._item, _GROUP, StepState.REVERTED)
        return self._revert_organization()

    def _logged(self, step: str, work: Callable[[], Any], named: str) -> Any:
        self._log.begin(self._item, step)
        try:
            made = work()
        except BaseException as error:
            self._log.end(self._item, step, StepState.FAILED, reason=_words(error))
            raise
        self._log.end(self._item, step, StepState.DONE, **({named: made} if named else {}))
        return made

    async def _new_organization(self, management: Management) -> str:
        name, display_name = (
            organization_name(self._plan.fields["prefix"]),
            self._plan.fields["name"],
        )
        return await management.create_organization(name, display_name)

    def _commit(self, transaction: GroupTransaction, group: int, organization: str) -> None:
        try:
            transaction.commit()
        except DBAPIError as error:
            if not lost_at_commit(error):
                raise
            query = sa.select(GROUPS.c.auth0_org_id).where(GROUPS.c.id == group)
            try:
                with self._database.connected(transaction=True) as reader:
                    found = reader.scalar(query)
            except DBAPIError as again:
                raise UncertainError(
                    "The connection to the database was lost during the commit.",
                    hint="Run the command again: it finds out, and adds what is missing.",
                ) from again
            if found != organization:
                raise

    def _revert_organization(self) -> None:
        organization, self._made_organization = self._made_organization, None
        if organization is None:
            return
        try:
            delete = partial(_delete_unused, organization)
            reverted = self._provider.run(delete, is_known=True)
        except AspenError as error:
            self._keep(_ORGANIZATION, f"Organization {organization} remains: {error.message}")
            return
        if reverted:
            self._log.end(self._item, _ORGANIZATION, StepState.REVERTED)
        else:
            self._keep(_ORGANIZATION, f"Organization {organization} remains: it has members.")

    def _keep(self, step: str, sentence: str) -> None:
        self._log.end(self._item, step, StepState.KEPT, reason=sentence)
        self.left.append(sentence)


async def _delete_unused(organization: str, management: Management) -> bool:
    """Delete an organization unless it has members; return True if it is gone."""
    if await management.members(organization):
        return False
    await management.delete_organization(organization)
    return True


def _words(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
