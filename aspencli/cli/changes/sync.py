"""The write of a sync: its plan, its question, and how each side is written and undone."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aspencli import files
from aspencli.changes.journal import Recording, place_of
from aspencli.changes.runs import Outcome, Subject
from aspencli.cli.changes.execute import ItemChange, SavedFile
from aspencli.cli.changes.sync_rows import (
    PREVIEW_COLUMNS,
    SYNC_COLUMNS,
    result_row,
    step_row,
)
from aspencli.cli.context import AppContext
from aspencli.cli.output.formats import DONE, PLANNED, Row
from aspencli.errors import AspenError, ConflictError
from aspencli.identity.sync import FAILED, SKIPPED, WORK, Sides, Source, Step
from aspencli.signals import Brake, Shield
from aspencli.text import counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aspen.database.engine import Database
    from aspen.identity.management import Management
    from aspencli.identity.directory import Directory
    from aspencli.identity.sync import Result
    from aspencli.identity.sync_database import Written
    from aspencli.remote.identity import IdentityProvider

_STATEMENT_MS, _LOCK_MS = 600_000, 10_000
_SHOWN = 10  # rows before the question, and reasons after the result


@dataclass(frozen=True)
class SyncJob:
    """A planned sync.

    Attributes:
        context: The context of the run.
        provider: The identity provider.
        sides: Both sides as they were compared.
        steps: The plan.
        verification_mail: True to let the provider mail new accounts a link.
    """

    context: AppContext
    provider: IdentityProvider
    sides: Sides
    steps: Sequence[Step]
    verification_mail: bool

    def change(self) -> ItemChange:
        """Return the write of the target."""
        is_provider = self.sides.source is Source.DB
        kind = ItemChange if is_provider else partial(_DatabaseChange, job=self)
        rows = [step_row(step, self.sides.source) for step in self.steps]
        self._tell_plan()
        return kind(
            self.context,
            f"make {self._named(is_provider)} equal to {self._named(not is_provider)} "
            f"({self._prospect(PLANNED[:3])})",
            SYNC_COLUMNS,
            rows,
            self._write_provider,
            done=self._done,
            next=self._next,
            reason=self._reason(),
            by_name=any(step.outcome == "delete" for step in self.steps),
            shown=(PREVIEW_COLUMNS, [row for row in rows if row["outcome"] in WORK]),
            shows=_SHOWN,
            label="Syncing",
            partial="objects were processed",
            permitted=None if is_provider else self._check_rights,
            save=self._save_plan if is_provider else None,
            ended=_require_all,
        )

    def _named(self, is_provider: bool) -> str:
        return f"the identity provider {self.provider.host}" if is_provider else "the database"

    def _tell_plan(self) -> None:
        """Print the totals of the plan, and how to see all of it if the preview does not."""
        if not self.steps:
            return
        more = sum(step.outcome in WORK for step in self.steps) > _SHOWN
        rest = " See all rows with --dry-run." if more else ""
        self.context.out.info(f"Plan: {self._prospect(PLANNED)}.{rest}")

    def _prospect(self, outcomes: Sequence[str]) -> str:
        numbers = {
            outcome: sum(step.writes or 1 for step in self.steps if step.outcome == outcome)
            for outcome in outcomes
        }
        return ", ".join(f"{outcome} {number:,}" for outcome, number in numbers.items() if number)

    def _reason(self) -> str:
        number = len(self.steps)
        verb = "is" if number == 1 else "are"
        skipped = f"{counted(number, 'difference')} {verb} skipped (listed above)"
        return skipped if number else "both sides are equal"

    def _done(self, rows: Sequence[Row]) -> str:
        if self.context.out.chosen_form == "table":  # which cuts long reasons
            reasons = Counter(row["reason"] for row in rows if row["reason"])
            for reason, number in reasons.most_common(_SHOWN):
                self.context.out.info(f"{number:,}: {reason}")
            if len(reasons) > _SHOWN:
                self.context.out.info(f"{len(reasons) - _SHOWN:,} more reasons: see -o json.")
        return _summary(rows)

    def _next(self, rows: Sequence[Row]) -> str:
        is_new = any(row["object"] == "account" and row["outcome"] == "created" for row in rows)
        if not is_new or self.verification_mail:
            return ""
        return (
            "New accounts have a random password, and no mail was sent. People set their own with "
            "the link on the sign-in page for a forgotten password."
        )

    @cached_property
    def writable(self) -> Database:
        """Return the database, with sessions that may write."""
        from aspen.database.settings import Limits

        limits = Limits(statement_ms=_STATEMENT_MS, lock_ms=_LOCK_MS)
        return self.context.database(writable=True, limits=limits)

    def _check_rights(self) -> None:
        from aspen.database.roles import missing_rights
        from aspencli.changes.apply import require_rights
        from aspencli.identity.sync_database import rights

        with self.context.database().reading() as session:
            require_rights(missing_rights(session.connection(), rights(self.steps)))

    def _write_provider(self) -> Iterator[Sequence[Row]]:
        """Carry out the plan at the provider, and yield the rows of some objects at a time."""
        from aspencli.identity.listing import database_side
        from aspencli.identity.sync_database import link_organization
        from aspencli.identity.sync_provider import Hooks, ProviderSync

        database = self.context.database()

        def now() -> Directory:
            with database.connected(transaction=True) as reader:
                return database_side(reader)

        hooks = Hooks(lambda group, key: link_organization(self.writable, group, key), now)

        def work(management: Management) -> AsyncIterator[list[Result]]:
            mails = self.verification_mail
            sync = ProviderSync(management, self.sides, hooks, verification_mail=mails)
            return sync.carry_out(self.steps)

        stopping = "Stopping once the objects in progress are done."
        with Brake(lambda: self.context.out.info(stopping)) as brake:
            for results in self.provider.stream(work):
                yield [result_row(result, self.sides.source) for result in results]
                if brake.pulled:
                    brake.obey()

    def _save_plan(self, recording: Recording) -> SavedFile:
        """Save the plan, which has the values that the provider has now."""
        rows = [step_row(step, self.sides.source) for step in self.steps if step.outcome in WORK]
        path = _save(self.context, recording, rows)
        return SavedFile(path, lambda: _tell_saved(self.context, path), undoes=False)


@dataclass
class _DatabaseChange(ItemChange):
    """A sync of the database: one transaction, with an undo file."""

    job: SyncJob | None = None

    def subject(self) -> Subject:
        """Return the facts to record in the history."""
        assert self.job  # noqa: S101 - always given
        database = self.job.writable
        place = place_of(database.url, database.identity(), self.context.api_address)
        return replace(super().subject(), via="db", api=None, place=place, single=False)

    def _carry_out(self, recording: Recording, saved: SavedFile | None) -> Sequence[Row]:
        from aspen.database.engine import CURRENT
        from aspencli.identity.sync_database import DatabaseSync

        assert self.job  # noqa: S101 - always given
        assert saved is None  # noqa: S101 - what to save is known within the transaction
        import sqlalchemy as sa

        paths: list[Path | None] = []
        with Shield() as shield:
            try:
                with self.job.writable.begin() as session, self.context.out.progress("Syncing"):
                    recording.writing(int(session.scalar(sa.text(CURRENT)) or 0))
                    written = DatabaseSync(session, self.job.sides).carry_out(self.job.steps)
                    paths.append(self._save_undo(recording, written))
                    paths.append(self._save_rest(recording, written))
                    shield.raise_shield()
                    shield.check()
                    recording.committing(*paths)
            except ConflictError:
                _remove(paths)
                raise
            recording.ended(Outcome.WRITTEN)
            rows = [result_row(result, self.job.sides.source) for result in written.results]
            self._report(rows, paths, shield)
        return rows

    def _report(self, rows: Sequence[Row], paths: Sequence[Path | None], shield: Shield) -> None:
        self._print(rows)
        is_late = any(row["late"] for row in rows)
        undo, saved = paths
        self._tell(undo, saved, now=is_late)
        if shield.late:
            self.context.out.warn("The interrupt came after the commit: all changes were written.")

    def _save_undo(self, recording: Recording, written: Written) -> Path | None:
        """Write the undo file; None if there is nothing that it can hold."""
        from aspencli.changes.undo import origin_of, write_undo, write_undo_rows
        from aspencli.identity.sync_database import UNDO_SPEC

        if not written.undo:
            return None
        origin = origin_of(
            UNDO_SPEC,
            self.context.target.label,
            None,
            dt.datetime.now(dt.UTC).isoformat(),
            len(written.undo),
            recording.id,
            recording.place,
        )
        rows = partial(write_undo_rows, UNDO_SPEC, written.undo)
        return write_undo(files.state_dir() / "undo", origin, rows)

    def _save_rest(self, recording: Recording, written: Written) -> Path | None:
        return _save(self.context, recording, written.saved) if written.saved else None

    def _tell(self, undo: Path | None, saved: Path | None, *, now: bool) -> None:
        """Say how to undo the change, ``now`` because an error is about to end it."""
        if saved:
            _tell_saved(self.context, saved)
        if undo:
            command = self.context.command("users", "undo", str(undo.absolute()))
            self.next = f"Undo it: {command}"
            if now:
                self.context.out.hint(self.next)


def _save(context: AppContext, recording: Recording, rows: Sequence[Row]) -> Path:
    """Write old values to a file of the run.

    Raises:
        AspenError: The file cannot be written; nothing was changed.
    """
    path = files.state_dir() / "deleted" / f"{recording.id}.json"
    facts: dict[str, Any] = {
        "run": recording.id,
        "target": context.target.label,
        "saved": dt.datetime.now(dt.UTC).isoformat(),
        "objects": rows,
    }
    try:
        files.write_private(path, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        reason = files.write_failure(path, error)
        raise AspenError(
            f"Cannot save the old values to {path}: {reason}; nothing was changed.",
            hint="Free disk space or fix the permissions, or set ASPEN_HOME to another directory.",
        ) from error
    return path


def _tell_saved(context: AppContext, path: Path) -> None:
    context.out.info(f"Old values of what cannot be undone by command: {path}")


def _remove(paths: Sequence[Path | None]) -> None:
    for path in paths:
        if path:
            path.unlink(missing_ok=True)


def _summary(rows: Sequence[Row]) -> str:
    numbers = {outcome: sum(row["outcome"] == outcome for row in rows) for outcome in DONE}
    return ", ".join(f"{number:,} {outcome}" for outcome, number in numbers.items() if number) + "."


def _require_all(rows: Sequence[Row]) -> None:
    """Check that everything was done as planned.

    Raises:
        AspenError: Some changes failed.
        ConflictError: Some objects have changed since the plan was made.
    """
    failed = sum(row["outcome"] == FAILED for row in rows)
    late = sum(row["outcome"] == SKIPPED and row["late"] for row in rows)
    if failed:
        raise AspenError(
            f"{failed:,} of {counted(len(rows), 'change')} failed (listed above).",
            hint="Fix the reasons listed, then run the command again.",
        )
    if late:
        raise ConflictError(
            f"{late:,} of {counted(len(rows), 'change')} skipped, because something changed since "
            "the plan was made (listed above).",
            hint="Run the command again to make a new plan.",
        )
