"""Undo of changes that users make to their own account, through the API."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from aspencli import files
from aspencli.changes.journal import Recording
from aspencli.changes.runs import Subject, is_same_place
from aspencli.changes.undo import write_undo
from aspencli.cli.changes.execute import ItemChange, SavedFile, execute
from aspencli.cli.context import AppContext, Backend
from aspencli.cli.output.formats import Row
from aspencli.errors import ConflictError, RefusedError
from aspencli.identity.steps import Kind, Step, inverses
from aspencli.identity.undo_file import StepsOrigin, write_steps

if TYPE_CHECKING:
    from pathlib import Path

    from aspencli.remote.api import MeChange


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
    origin = StepsOrigin(
        target=context.target.label,
        of="users",
        made=dt.datetime.now(dt.UTC).isoformat(),
        steps=len(steps),
        run=recording.id,
        place=recording.place,
    )
    found = write_undo(files.state_dir() / "undo", origin, partial(write_steps, steps), path)
    undo = context.command("users", "undo", str(found.absolute()))
    return SavedFile(found, partial(context.out.hint, f"Undo it: {undo}"))


class _Restoration(ItemChange):
    """An undo through the API."""

    undoes: str

    def subject(self) -> Subject:
        """Return the facts to record in the history."""
        return replace(super().subject(), undo_of=self.undoes)


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
    from aspencli.cli.changes.two_sided import CHANGE_COLUMNS

    context.announce(Backend.API)
    users = context.api().users
    me: Row = {**users.me()}
    if any(step.key != (me["id"],) for step in steps):
        raise RefusedError(
            f"Run {origin.run} changed the account of user {steps[0].key[0]}, but you are signed "
            f"in as user {me['id']}; nothing was written.",
            hint="Sign in as that user: aspencli auth login",
        )
    wanted, skipped = _plan(inverses(steps), me, force=force)
    for step, why in skipped:
        context.out.warn(f"Skipped {step.describe()}: {why}")
    values: MeChange = {step.field: step.after for step in wanted}  # type: ignore[assignment] # fields of the type

    def restore() -> Iterator[Sequence[Row]]:
        users.update_me(values)
        yield [{**step.row(), "outcome": "updated"} for step in wanted]
        yield [{**step.row(), "outcome": "skipped"} for step, _why in skipped]

    change = _Restoration(
        context,
        f"undo run {origin.run} ({len(wanted):,} of {len(steps):,} values)",
        CHANGE_COLUMNS,
        [
            *(step.row() for step in wanted),
            *({**step.row(), "outcome": "skip"} for step, _why in skipped),
        ],
        restore,
        done=f"Undid run {origin.run}: {len(wanted):,} values restored.",
        reason="" if skipped else "the old values are in place",
        save=partial(save_own, context, me, {step.field: step.after for step in wanted}, path=path),
    )
    change.undoes = origin.run
    place = change.subject().place
    if not is_same_place(origin.place, place, f"run {origin.run}"):
        change.by_name = True
        context.out.warn(
            f"Cannot tell whether run {origin.run} was made on {place}. Check before you confirm."
        )
    execute(change, dry_run=dry_run)
    if skipped:
        raise ConflictError(
            f"{len(skipped):,} of {len(steps):,} values skipped (listed above).",
            hint="Check each one; or add --force to include those changed since.",
        )


def _plan(
    steps: Sequence[Step], me: Row, *, force: bool
) -> tuple[list[Step], list[tuple[Step, str]]]:
    """Return the steps to take, and those to skip with the reason."""
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
    return wanted, skipped
