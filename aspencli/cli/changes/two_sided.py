"""Changes of users and groups on both sides: in the database, and at the identity provider."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer._click.core import ParameterSource
from typer._click.globals import get_current_context

from aspen.database.errors import OutcomeUnknownError
from aspencli import files
from aspencli.changes.journal import Recording, open_journal, place_of
from aspencli.changes.report import new_undo_file
from aspencli.changes.runs import Outcome, Place, Subject
from aspencli.changes.undo import write_undo
from aspencli.cli import params
from aspencli.cli.changes.execute import ItemChange, execute, is_made_here
from aspencli.cli.changes.options import UndoFile
from aspencli.cli.context import AppContext, Backend
from aspencli.cli.output.formats import DONE, OUTCOME, PLANNED, Column, Row
from aspencli.config import command_for
from aspencli.errors import (
    AspenError,
    BadInputError,
    ConflictError,
    CredentialsError,
    UnreachableError,
)
from aspencli.signals import Shield

if TYPE_CHECKING:
    from aspen.database.engine import Database
    from aspen.database.sessions import Reader
    from aspencli.cli.changes.options import UndoOptions
    from aspencli.cli.output.console import Tick
    from aspencli.identity.apply import Plan, Planner
    from aspencli.identity.steps import Step
    from aspencli.identity.undo_file import StepsOrigin
    from aspencli.remote.identity import IdentityProvider

_RESULT_OF = dict(zip(PLANNED, DONE, strict=False))
CHANGE_COLUMNS = (
    Column("side", "Where", whole=True, of=str),
    Column("kind", "What", of=str),
    Column("item", "Item", of=str),
    Column("field", "Field", whole=True),
    Column("before", "Before", whole=True, of=Any),
    Column("after", "After", whole=True, of=Any),
    OUTCOME,
)

AllowNoAdmin = Annotated[
    bool,
    typer.Option(
        "--allow-no-admin",
        help="Also remove the last administrator of a group, or the last system administrator.",
    ),
]
DatabaseOnly = Annotated[
    bool,
    typer.Option(
        "--database-only",
        help="Change only the database, and leave the identity provider as it is.",
    ),
]
ViaDatabase = Annotated[
    Backend | None,
    typer.Option(help="Backend. Only the database supports this. (env: ASPEN_VIA)"),
]


@dataclass(frozen=True, kw_only=True)
class SideOptions:
    """The options of every command that changes both sides, and that can be undone."""

    database_only: DatabaseOnly = False
    undo_file: UndoFile = None
    via: ViaDatabase = None
    dry_run: params.DryRunOption = False


def user_key() -> Any:
    """Return the argument that names a user."""
    return typer.Argument(
        metavar="ID|EMAIL|AUTH0_ID",
        help="User id, e-mail address, or Auth0 id.",
        callback=params.checked("the user"),
    )


def group_key() -> Any:
    """Return the argument that names a group."""
    return typer.Argument(
        metavar="ID|NAME|PREFIX",
        help="Group id, name, or prefix.",
        callback=params.checked("the group"),
    )


def require_database(context: AppContext, via: Backend | None, cannot: str, instead: str) -> None:
    """Refuse the API, which does not support the change.

    Raises:
        BadInputError: The API was chosen.
    """
    if context.backend(via, usual=Backend.DB) is Backend.API:
        raise BadInputError(f"The API cannot {cannot}.", hint=f"{instead} Or add --via db.")


def chosen_provider(context: AppContext, *, database_only: bool) -> IdentityProvider | None:
    """Return the identity provider to change, or None to change only the database.

    Raises:
        AspenError: The credentials for it cannot be read.
    """
    if database_only:
        return None
    try:
        return context.identity
    except AspenError as error:
        _suggest_database_only(error)
        raise


@contextmanager
def suggesting_database_only() -> Iterator[None]:
    """Add to the error of a provider that cannot be used how to do without it."""
    try:
        yield
    except (CredentialsError, UnreachableError) as error:
        from aspen.identity.management import ManagementError, ManagementUnavailableError

        if isinstance(error.__cause__, (ManagementError, ManagementUnavailableError)):
            _suggest_database_only(error)
        raise


def _suggest_database_only(error: AspenError) -> None:
    more = "To do without the identity provider: --database-only"
    error.hint = f"{error.hint} {more}" if error.hint else more


def run_change(
    context: AppContext,
    noun: str,
    make: Callable[[Reader], tuple[Planner, str]],
    *,
    verb: str,
    past: str,
    dry_run: bool,
    reason: str = "",
    undo_file: Path | None = None,
) -> None:
    """Plan a change, and carry it out.

    Args:
        context: The context of the run.
        noun: The command group, ``users`` or ``groups``.
        make: Returns the planner, and what it changes: ``user ada@lab.example.org``.
        verb: The action, such as ``update``.
        past: The action once it is done, such as ``Updated``.
        dry_run: True to show the plan only.
        reason: The reason why there is nothing to change.
        undo_file: The path given for the undo file.
    """
    path = new_undo_file(undo_file)
    with suggesting_database_only():
        with context.database().connected(transaction=True) as reader:
            planner, what = make(reader)
            plan = planner.plan(reader)
        change = TwoSidedChange(context, noun, f"{verb} {what}", planner, plan, undo_path=path)
        change.done = f"{past} {what}."
        change.reason = reason
        execute(change, dry_run=dry_run)


def left_over(context: AppContext, command: str, key: str) -> str | None:
    """Return the account or organization that a deletion may have left at the provider, or None.

    The key is its ID, or what an interrupted deletion of this machine's history was given.
    """
    from aspencli.changes.runs import runs_of
    from aspencli.identity.undo_file import record_of

    if key.startswith(("auth0|", "org_")):
        return key
    for run in runs_of(open_journal().read().events):
        is_open = run.outcome in {Outcome.UNFINISHED, Outcome.UNKNOWN}
        if not is_open or run.command != command or run.target != context.target.label:
            continue
        found = record_of(run.saved_file) if run.saved_file else None
        if found is not None and key.lower() in found.names:
            return found.last
    return None


class TwoSidedChange(ItemChange):
    """A planned change on both sides.

    Args:
        context: The context of the run.
        noun: The command group that undoes it, ``users`` or ``groups``.
        what: The change as a verb phrase.
        planner: The planner that made the plan.
        approved: The plan.
        undo_path: The path given for the undo file.
        undoes: The run that it undoes.
    """

    def __init__(
        self,
        context: AppContext,
        noun: str,
        what: str,
        planner: Planner,
        approved: Plan,
        *,
        undo_path: Path | None = None,
        undoes: str | None = None,
    ):
        rows = [step.row() for step in approved.all_steps]
        rows += [{**step.row(), "outcome": "skip"} for step, _why in approved.skipped]
        super().__init__(context, what, CHANGE_COLUMNS, rows, lambda: (), permitted=self._permit)
        self.approved = approved
        self._noun, self._planner = noun, planner
        self._undo_path, self._undoes = undo_path, undoes

    @cached_property
    def _database(self) -> Database:
        return self.context.database(writable=True)

    @cached_property
    def place(self) -> Place:
        """Return the database that changes."""
        database = self.context.database()
        return place_of(database.url, database.identity(), self.context.api_address)

    def subject(self) -> Subject:
        """Return the facts to record in the history."""
        found = super().subject()
        return replace(found, place=self.place, via="db", single=False, undo_of=self._undoes)

    def explain(self) -> None:
        """Print the notes of the plan."""
        super().explain()
        is_provided = any(step.is_provided for step in self.approved.all_steps)
        if is_provided and "/" in self.context.target.label:
            self.context.out.warn(
                f"All stacks of {self.context.target.name} share one identity provider, so this "
                "also changes who can sign in to the others."
            )
        for note in self.approved.notes:
            self.context.out.warn(note)
        for step, why in self.approved.skipped:
            self.context.out.warn(f"Skipped {step.describe()}: {why}")

    def apply(self, recording: Recording) -> None:
        """Carry out the plan on both sides, report the result, and say how to undo it.

        Raises:
            AspenError: See `aspencli.identity.apply.apply`.
        """
        from aspencli.identity.apply import UnfinishedError, apply
        from aspencli.identity.steps import on_side

        context, out = self.context, self.context.out
        with Shield() as shield:
            saver = _Saver(self, recording, shield)
            provided = on_side(self.approved.steps, database=False)
            try:
                with out.progress("Writing", len(provided) or None) as tick:
                    apply(
                        self._database,
                        self._planner,
                        self.approved,
                        begun=recording.writing,
                        before_provider=saver.before_provider,
                        before_commit=saver.before_commit,
                        before_request=saver.watch(tick),
                        ask=context.command("history", "check", recording.id),
                        finish=same_command(context),
                        finish_last=self._finish_last(),
                    )
            except UnfinishedError as error:
                recording.ended(Outcome.UNFINISHED, error.message)
                if error.is_committed:
                    self._print(self._result(failed=len(self.approved.last)))
                saver.tell()
                raise
            except BaseException as error:
                if isinstance(error.__cause__, OutcomeUnknownError):
                    saver.tell()
                else:
                    saver.discard()
                raise
            recording.ended(Outcome.WRITTEN)
            self._print(self._result())
            out.done(str(self.done))
            saver.tell()
            if left := self.approved.left:
                out.hint(f"Left to do at the identity provider: {'; '.join(left)}.")
            if shield.late:
                out.warn("The interrupt came after the commit: all changes were written.")

    def _result(self, failed: int = 0) -> list[Row]:
        """Return the rows of the result, given how many of the last steps failed."""
        rows = [{**row, "outcome": _RESULT_OF[row["outcome"]]} for row in self.plan]
        for row in rows[len(self.approved.all_steps) - failed : len(self.approved.all_steps)]:
            row["outcome"] = "failed"
        return [*rows]

    def _permit(self) -> None:
        from aspen.database.roles import missing_rights
        from aspencli.changes.apply import require_rights
        from aspencli.identity.steps import rights_for

        with self.context.database().connected(transaction=True) as connection:
            rights = rights_for(self.approved.all_steps)
            require_rights(missing_rights(connection, rights))

    def _finish_last(self) -> str:
        """Return the command that completes what is done after the commit."""
        last = self.approved.last
        if not last:
            return ""
        words = ["--account"] if self._noun == "users" else []
        return self.context.command(self._noun, "delete", str(last[0].key[0]), *words)

    def save_steps(self, run: str, place: Place, before_naming: Callable[[], None]) -> Path:
        """Write the steps to an undo file, or to a record if they cannot be undone."""
        from aspencli.identity.undo_file import StepsOrigin, write_steps

        steps = self.approved.all_steps
        origin = StepsOrigin(
            target=self.context.target.label,
            of=self._noun,
            made=dt.datetime.now(dt.UTC).isoformat(),
            steps=len(steps),
            run=run,
            place=place,
        )
        folder = files.state_dir() / ("undo" if self.approved.can_be_undone else "deleted")
        return write_undo(
            folder, origin, partial(write_steps, steps), self._undo_path, before_naming
        )

    def undo_command(self, path: Path) -> str:
        """Return the command that undoes the run."""
        return self.context.command(self._noun, "undo", str(path.absolute()))


class _Saver:
    """The file with the old values of a run, which is on disk before anything changes."""

    def __init__(self, change: TwoSidedChange, recording: Recording, shield: Shield):
        self._change, self._recording, self._shield = change, recording, shield
        self._path: Path | None = None

    @property
    def _paths(self) -> tuple[Path | None, Path | None]:
        """Return the path of the undo file, or else that of the record."""
        can_be_undone = self._change.approved.can_be_undone
        return (self._path, None) if can_be_undone else (None, self._path)

    def before_provider(self) -> None:
        """Save the values, hold interrupts, and record that the provider is about to change."""
        from aspencli.identity.steps import on_side

        self._save()
        plan = self._change.approved
        self._recording.at_provider(
            *self._paths,
            before=bool(on_side(plan.steps, database=False)),
            after=bool(plan.last),
        )

    def watch(self, tick: Tick) -> Callable[[int], None]:
        """Return a function that obeys an interrupt, and shows how many steps are done."""

        def watch(done: int) -> None:
            self._shield.check()
            tick(done)

        return watch

    def before_commit(self) -> None:
        """Save the values if needed, obey an interrupt, and record that the commit is next."""
        if self._path is None:
            self._save()
        self._shield.check()
        self._recording.committing(self._paths[0])

    def _save(self) -> None:
        change, recording = self._change, self._recording
        self._path = change.save_steps(recording.id, recording.place, self._shield.raise_shield)

    def discard(self) -> None:
        """Remove the file: nothing was written."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def tell(self) -> None:
        """Tell the operator how to undo the run, or where the record is."""
        out, (undo, saved) = self._change.context.out, self._paths
        if undo is not None:
            out.hint(f"Undo it: {self._change.undo_command(undo)}")
        elif saved is not None:
            out.info(f"Record of what was deleted: {saved}")


def same_command(context: AppContext) -> str:
    """Return the running command as it was given, without ``--dry-run`` and the global options."""
    running = get_current_context()
    words, options = [], []
    for param in running.command.params:
        name = param.name or ""
        if running.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = running.params.get(name)
        if name == "dry_run" or value is None:
            continue
        values = value if isinstance(value, (list, tuple)) else [value]
        if param.param_type_name == "argument":
            words += [str(each) for each in values]
        elif isinstance(value, bool):
            options.append(param.opts[0] if value else param.secondary_opts[0])
        else:
            options += [
                word
                for each in values
                for word in (param.opts[0], str(getattr(each, "value", each)))
            ]
    return context.command(*_names_of(running), *words, *options)


def _names_of(running: Any) -> list[str]:
    """Return the names of the command groups and the command, without the program's."""
    names: list[str] = []
    while running.parent is not None:
        names.insert(0, running.command.name or "")
        running = running.parent
    return names


def undo_steps(context: AppContext, noun: str, given: UndoOptions, file: str) -> None:
    """Revert a change on both sides, where the values are still those that it wrote.

    Raises:
        BadInputError: The change was made on another target, or changed something else.
        ConflictError: Some values could not be restored.
    """
    from aspencli.identity.undo_file import read_steps

    path = new_undo_file(given.undo_file)
    origin, steps = read_steps(file)
    _check_undo(context, noun, given, file, origin)
    if origin.place.api:
        from aspencli.cli.changes.own_account import undo_own

        return undo_own(context, origin, steps, path, force=given.force, dry_run=given.dry_run)
    return _undo_both(context, given, origin, steps, path)


def _check_undo(
    context: AppContext, noun: str, given: UndoOptions, file: str, origin: StepsOrigin
) -> None:
    words = (origin.of, "undo", given.what)
    if origin.target != context.target.label or origin.of != noun:
        raise BadInputError(
            f"{file} was written by a change of {origin.of} on {origin.target}, not of {noun} on "
            f"{context.target.label}.",
            hint=f"Run: {command_for(origin.target, *words)}",
        )
    if given.report:
        raise BadInputError(
            "This undo file supports no --report.",
            hint="The result has a row for each value: add --output csv",
        )


def _undo_both(
    context: AppContext,
    given: UndoOptions,
    origin: StepsOrigin,
    steps: Sequence[Step],
    path: Path | None,
) -> None:
    from aspencli.identity.undo import Undo

    context.announce(Backend.DB)
    planner = Undo(steps, _provider_for(context, origin, steps), given.force)
    with context.database().connected(transaction=True) as reader:
        plan = planner.plan(reader)
    what = f"undo run {origin.run} ({len(plan.steps):,} of {len(steps):,} values)"
    change = TwoSidedChange(
        context, origin.of, what, planner, plan, undo_path=path, undoes=origin.run
    )
    change.done = f"Undid run {origin.run}: {len(plan.steps):,} values restored."
    change.reason = "the old values are in place" if not plan.skipped else ""
    execute_undo(change, origin, change.place, len(plan.skipped), dry_run=given.dry_run)


def _provider_for(
    context: AppContext, origin: StepsOrigin, steps: Sequence[Step]
) -> IdentityProvider | None:
    """Return the identity provider if steps change it.

    Raises:
        CredentialsError: There are no credentials for it.
    """
    from aspencli.identity.steps import on_side

    if not on_side(steps, database=False):
        return None
    provider = context.identity
    if provider is None:
        raise CredentialsError(
            f"Run {origin.run} also changed the identity provider, and there are no "
            "credentials for it; nothing was written.",
            hint="Set AUTH0_MANAGEMENT_DOMAIN, AUTH0_MANAGEMENT_CLIENT_ID, and "
            "AUTH0_MANAGEMENT_CLIENT_SECRET.",
        )
    return provider


def execute_undo(
    change: ItemChange, origin: StepsOrigin, place: Place, skipped: int, *, dry_run: bool
) -> None:
    """Carry out the undo of a run at a place, given the number of values that are skipped.

    Raises:
        ConflictError: Some values were skipped.
    """
    if not is_made_here(change.context.out, origin.place, place, f"run {origin.run}"):
        change.by_name = True
    execute(change, dry_run=dry_run)
    if skipped:
        raise ConflictError(
            f"{skipped:,} of {origin.steps:,} values skipped (listed above).",
            hint="Check each one; or add --force to include those changed since.",
        )
