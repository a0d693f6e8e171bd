"""Plans that revert changes on both sides, from their undo files."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from aspen.database.sessions import Reader
from aspen.database.tables import USERS
from aspencli.identity.apply import Plan, Planner
from aspencli.identity.sides import read_database, read_provider
from aspencli.identity.steps import (
    ABSENT,
    EXISTS,
    Absence,
    Kind,
    Slot,
    Step,
    Value,
    inverses,
    on_side,
)
from aspencli.identity.user_plans import lock_groups, lock_users, refuse_no_admin, refuse_taken
from aspencli.remote.identity import IdentityProvider


@dataclass
class Undo(Planner):
    """Planner of the steps that revert others.

    A value is restored if it still is as the run wrote it.

    Args:
        taken: The steps to revert.
        provider: The identity provider, or None if no step is there.
        force: True to restore values that were changed since, too.
    """

    taken: Sequence[Step]
    provider: IdentityProvider | None
    force: bool

    def lock(self, connection: sa.Connection) -> None:
        """Lock the groups and users."""
        groups, users = set(), set()
        for step in self.taken:
            if step.kind is Kind.GROUP:
                groups.add(int(step.key[0]))
            elif step.kind is Kind.USER:
                users.add(int(step.key[0]))
            elif step.kind is Kind.ROLE:
                users.add(int(step.key[0]))
                groups.add(int(step.key[1]))
        lock_groups(connection, groups)
        admins = USERS.c.system_admin.is_(True)
        lock_users(connection, sa.or_(USERS.c.id.in_(sorted(users)), admins))

    def plan(self, reader: Reader) -> Plan:
        """Return the plan; see `Planner.plan`."""
        wanted = [step for step in inverses(self.taken) if not step.inverse.is_final]
        finals = [step for step in self.taken if step.is_final]
        now = self._values(reader, wanted)
        missing = self._missing(reader, wanted, now)
        steps, skipped = self._possible(wanted, now, missing)
        steps = _with_verification(steps, wanted, now)
        for step in steps:
            email = _new_email(step)
            if email is not None:
                refuse_taken(reader, email, int(step.key[0]))
        if not self.force:
            refuse_no_admin(reader, steps)
        notes = tuple(f"Cannot be restored: {step.kind} {step.item}" for step in finals)
        return Plan(tuple(steps), skipped=tuple(skipped), notes=notes)

    def _values(self, reader: Reader, steps: Sequence[Step]) -> dict[Slot, Value | Absence]:
        found = read_database(reader, [step.slot for step in steps])
        slots = [step.slot for step in on_side(steps, database=False)]
        if slots and self.provider is not None:
            found |= self.provider.run(lambda management: read_provider(management, slots))
        return found

    def _missing(
        self, reader: Reader, steps: Sequence[Step], now: Mapping[Slot, Value | Absence]
    ) -> list[Step]:
        """Return the steps that give something to a user or an account that is gone."""
        given = [step for step in steps if step.after is not None and now[step.slot] is None]
        roles = [step for step in given if step.kind is Kind.ROLE]
        users = {int(step.key[0]) for step in roles}
        known = set(reader.scalars(sa.select(USERS.c.id).where(USERS.c.id.in_(sorted(users)))))
        known |= {int(s.key[0]) for s in given if s.kind is Kind.USER and s.field == EXISTS}
        missing = [step for step in roles if step.key[0] not in known]
        members = [step for step in given if step.kind in {Kind.MEMBERSHIP, Kind.MEMBER_ROLE}]
        if members and self.provider is not None:
            accounts = {str(step.key[1]) for step in members}
            found = self.provider.run(lambda management: management.existing_accounts(accounts))
            there = {account.id for account in found}
            missing += [step for step in members if step.key[1] not in there]
        return missing

    def _possible(
        self,
        wanted: Iterable[Step],
        now: Mapping[Slot, Value | Absence],
        missing: Collection[Step],
    ) -> tuple[list[Step], list[tuple[Step, str]]]:
        """Return the steps to take, and those to skip with the reasons."""
        steps: list[Step] = []
        skipped: list[tuple[Step, str]] = []
        for step in wanted:
            there = now[step.slot]
            if there == step.after:
                continue
            if there is ABSENT or step in missing:
                skipped.append((step, "no longer exists"))
            elif there == step.before or self.force:
                assert not isinstance(there, Absence)  # noqa: S101 - excluded above
                steps.append(replace(step, before=there))
            else:
                skipped.append((step, "changed since"))
        return steps, skipped


def _with_verification(
    steps: Sequence[Step], wanted: Sequence[Step], now: Mapping[Slot, Value | Absence]
) -> list[Step]:
    """Return the steps, with the verification of restored addresses.

    A new address counts as not verified at the provider, whatever the old one was. So it is set
    together with the address, also if it has not changed.
    """
    found = list(steps)
    verifications = {
        step.key: step
        for step in wanted
        if step.kind is Kind.ACCOUNT and step.field == "email_verified" and step.after is True
    }
    for step in steps:
        if step.kind is not Kind.ACCOUNT or step.field != "email":
            continue
        verified = verifications.get(step.key)
        if verified is None or any(one.slot == verified.slot for one in steps):
            continue
        there: Any = now[verified.slot]
        found.insert(found.index(step) + 1, replace(verified, before=there))
    return found


def _new_email(step: Step) -> str | None:
    """Return the address that a user gets back."""
    if step.kind is not Kind.USER:
        return None
    if step.field == "email":
        return str(step.after)
    return str(step.after["email"]) if isinstance(step.after, Mapping) else None
