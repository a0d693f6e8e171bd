"""Undo of changes that users make to their own account, through the API."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from aspencli import files
from aspencli.changes.journal import Recording
from aspencli.changes.runs import Subject
from aspencli.changes.undo import write_undo
from aspencli.cli.changes.execute import ItemChange, SavedFile
from aspencli.cli.context import AppContext, Backend
from aspencli.cli.output.formats import Row
from aspencli.errors import RefusedError
from aspencli.identity.steps import Kind, Step, inverses
from aspencli.identity.undo_file import StepsOrigin, write_steps

if TYPE_CHECKING:
    from pathlib import Path

    from aspencli.remote.api import Users
    from aspencli.remote.types import MeChange


def save_own(
    context: AppContext,
    before: Row,
    changes: Mapping[str, Any],
    recording: Recording,
    path: Path | None = None,
) -> SavedFile:
    """Write an undo file for changes of one's own account.

    Raises:
        AspenError: The file cannot be written; nothing was changed.
    """
    item = str(before["name"])
    steps = [
        Step(Kind.USER, (before["id"],), field, before[field], value, item)
        for field, value in changes.items()
    ]
    origin = _origin(context, recording, len(steps))
    found = write_undo(files.state_dir() / "undo", origin, partial(write_steps, steps), path)
    undo = context.command("users", "undo", str(found.absolute()))
    return SavedFile(found, partial(context.out.hint, f"Undo it: {undo}"))


def _origin(context: AppContext, recording: Recording, steps: int) -> StepsOrigin:
    return StepsOrigin(
        target=context.target.label,
        of="users",
        made=dt.datetime.now(dt.UTC).isoformat(),
        steps=steps,
        run=recording.id,
        place=recording.place,
    )


class _Restoration(ItemChange):
    """An undo through the API."""

    undoes: str

    def subject(self) -> Subject:
        """Return the facts to record in the history."""
        return replace(super().subject(), undo_of=self.undoes)


class _Plan(NamedTuple):
    wanted: list[Step]
    skipped: list[tuple[Step, str]]  # with the reasons


def undo_own(
    context: AppContext,
    origin: StepsOrigin,
    steps: Sequence[Step],
    path: Path | None,
    *,
    force: bool,
    dry_run: bool,
) -> None:
    """Revert a change of one's own account, where the values are still those that it wrote.

    Raises:
        RefusedError: The change was made by another user.
        ConflictError: Some values could not be restored.
    """
    from aspencli.cli.changes.two_sided import execute_undo

    context.announce(Backend.API)
    users = context.api().users
    me: Row = {**users.me()}
    _refuse_other_user(origin, steps, me)
    plan = _plan(inverses(steps), me, force=force)
    for step, why in plan.skipped:
        context.out.warn(f"Skipped {step.describe()}: {why}")
    change = _restoration(context, users, origin, me, plan, path)
    execute_undo(change, origin, change.subject().place, len(plan.skipped), dry_run=dry_run)


def _refuse_other_user(origin: StepsOrigin, steps: Sequence[Step], me: Row) -> None:
    if any(step.key != (me["id"],) for step in steps):
        raise RefusedError(
            f"Run {origin.run} changed the account of user {steps[0].key[0]}, but you are signed "
            f"in as user {me['id']}; nothing was written.",
            hint="Sign in as that user: aspencli auth login",
        )


def _restoration(
    context: AppContext,
    users: Users,
    origin: StepsOrigin,
    me: Row,
    plan: _Plan,
    path: Path | None,
) -> _Restoration:
    from aspencli.cli.changes.two_sided import CHANGE_COLUMNS

    wanted = plan.wanted
    change = _Restoration(
        context,
        f"undo run {origin.run} ({len(wanted):,} of {origin.steps:,} values)",
        CHANGE_COLUMNS,
        _rows(plan),
        partial(_restore, users, plan),
        done=f"Undid run {origin.run}: {len(wanted):,} values restored.",
        reason="" if plan.skipped else "the old values are in place",
        save=partial(save_own, context, me, {step.field: step.after for step in wanted}, path=path),
    )
    change.undoes = origin.run
    return change


def _rows(plan: _Plan) -> list[Row]:
    return [
        *(step.row() for step in plan.wanted),
        *({**step.row(), "outcome": "skip"} for step, _why in plan.skipped),
    ]


def _restore(users: Users, plan: _Plan) -> Iterator[Sequence[Row]]:
    values: MeChange = {step.field: step.after for step in plan.wanted}  # type: ignore[assignment] # fields of the type
    users.update_me(values)
    yield [{**step.row(), "outcome": "updated"} for step in plan.wanted]
    yield [{**step.row(), "outcome": "skipped"} for step, _why in plan.skipped]


def _plan(steps: Sequence[Step], me: Row, *, force: bool) -> _Plan:
    wanted, skipped = [], []
    for step in steps:
        there = me.get(step.field)
        if there == step.after:
            continue
        if step.after is None:  # the API takes null for "unchanged"
            skipped.append((step, "the API cannot clear it"))
        elif there == step.before or force:
            wanted.append(replace(step, before=there))
        else:
            skipped.append((step, "changed since"))
    return _Plan(wanted, skipped)
