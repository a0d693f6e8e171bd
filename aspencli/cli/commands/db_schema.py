"""``aspencli db upgrade`` and related commands: the revisions of the schema."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aspencli.cli.app import examples
from aspencli.cli.context import AppContext, current
from aspencli.cli.output.formats import Column, Row
from aspencli.cli.params import DryRunOption
from aspencli.targets import Safety

if TYPE_CHECKING:
    from aspen.database.migrate import Revision

STEP_COLUMNS = (
    Column("revision", "Revision", whole=True),
    Column("created", "Written (UTC)", secondary=True),
    Column("message", "Message"),
)
HISTORY_COLUMNS = (
    *STEP_COLUMNS,
    Column("down_revision", "Follows", secondary=True),
    Column("is_current", "Current"),
    Column("is_head", "Newest"),
)
CURRENT_COLUMNS = (
    Column("revision", "Revision", whole=True),
    Column("head", "Newest"),
    Column("behind", "Behind"),
    Column("state", "State"),
)
UPGRADE_COLUMNS = (Column("before", "Before"), Column("after", "Now"), Column("applied", "Applied"))
DOWNGRADE_COLUMNS = (
    Column("before", "Before"),
    Column("after", "Now"),
    Column("reverted", "Taken back"),
)
REVISION_COLUMNS = (Column("path", "File"),)
DIFFERENCE_COLUMNS = (Column("difference", "Difference"),)

DirectoryOption = Annotated[
    Path | None,
    typer.Option(
        "--directory",
        metavar="DIR",
        file_okay=False,
        help="A folder of revisions beside the program's own.",
    ),
]
# Makes -1 an argument instead of an unknown option.
_STEPS_BACK = {"ignore_unknown_options": True}


def upgrade(
    ctx: typer.Context,
    revision: Annotated[
        str, typer.Argument(metavar="REVISION", help="An id or its beginning, head, or +N.")
    ] = "head",
    sql: Annotated[bool, typer.Option("--sql", help="Only print the SQL that it would run.")] = (
        False
    ),
    dry_run: DryRunOption = False,
    directory: DirectoryOption = None,
) -> None:
    """Bring the schema to a newer revision; each revision is one transaction.

    A table in use for longer than 5 s is given up (exit code 7), so that nobody queues behind it.
    On the local target it does not ask.
    """
    from aspencli.admin import schema

    context = current(ctx)
    database = context.database(writable=not (sql or dry_run), admin=True)
    steps = schema.pending(database, revision, directory=directory)
    if sql and steps:
        return context.out.text(schema.upgrade_sql(steps, directory=directory))
    if sql:
        return context.out.info("Nothing to do.")
    if dry_run:
        return context.out.rows(STEP_COLUMNS, _rows(steps), empty="Nothing to do.")
    if steps:
        _consent(context, f"apply {_count(steps)}", steps, asked=needs_consent(context))
    with context.out.progress("Migrating"):
        result = schema.upgrade(database, steps, directory=directory)
        if context.is_on_laptop and result.applied and steps[-1].is_head:
            context.laptop.prepare()  # gives its roles ownership of, or access to, the new objects
    context.out.record(UPGRADE_COLUMNS, vars(result))
    message = f"upgraded to {result.after}" if result.applied else "nothing to do"
    return context.out.done(message)


def downgrade(
    ctx: typer.Context,
    revision: Annotated[
        str,
        typer.Argument(metavar="REVISION", help="The one to go back to: an id, -N, or base."),
    ],
    dry_run: DryRunOption = False,
    directory: DirectoryOption = None,
) -> None:
    """Take revisions of the schema back; what they had added is lost, with its data."""
    from aspencli.admin import schema

    context = current(ctx)
    database = context.database(writable=not dry_run, admin=True)
    steps = schema.undone(database, revision, directory=directory)
    if dry_run:
        return context.out.rows(STEP_COLUMNS, _rows(steps), empty="Nothing to do.")
    if steps:
        _consent(context, f"take {_count(steps)} back, with their data", steps, asked=True)
    with context.out.progress("Migrating"):
        result = schema.downgrade(database, steps, directory=directory)
    context.out.record(DOWNGRADE_COLUMNS, vars(result))
    message = f"went back to {result.after or 'nothing'}" if result.reverted else "nothing to do"
    return context.out.done(message)


def show_current(ctx: typer.Context) -> None:
    """Show the revision that the database stands at, and how far behind the newest it is."""
    from aspencli.admin import schema

    context = current(ctx)
    state = schema.schema_state(context.database())
    context.out.record(CURRENT_COLUMNS, {**vars(state), "state": state.word})
    if state.older is not None:
        context.out.hint(state.older)


def history(ctx: typer.Context, directory: DirectoryOption = None) -> None:
    """List every revision, the newest first, with the database's own marked."""
    from aspencli.admin import schema

    context = current(ctx)
    revisions = schema.history(context.database(), directory=directory)
    context.out.rows(HISTORY_COLUMNS, _rows(revisions))


def check(ctx: typer.Context) -> None:
    """Compare the models with the database; exit code 1 where they differ.

    Compared are tables, columns (with lengths, defaults, and generated values), keys, indexes,
    constraints, triggers, rules, policies, views, functions, types, and sequences of the schema
    aspen. Rows, privileges, comments, and storage parameters are not.
    """
    from aspencli.admin import schema

    context = current(ctx)
    found = schema.differences(context.database())
    context.out.rows(DIFFERENCE_COLUMNS, ({"difference": line} for line in found))
    if found:
        context.out.warn(f"models and database differ in {len(found)} place(s)")
        context.out.hint("Upgrade (aspencli db upgrade), or write a revision (db revision -m ...).")
        raise typer.Exit(1)
    context.out.done("models and database agree")
    context.out.info("Not compared: rows, privileges, comments, and storage parameters.")


def revision(
    ctx: typer.Context,
    message: Annotated[
        str, typer.Option("--message", "-m", metavar="TEXT", help="What it changes, in a line.")
    ],
    empty: Annotated[
        bool, typer.Option("--empty", help="Leave it empty, instead of comparing models.")
    ] = False,
    directory: DirectoryOption = None,
) -> None:
    """Write a new revision: what the models have and the target's database has not.

    The database is only read. Look the file over before it is applied.
    """
    from aspencli.admin import schema

    context = current(ctx)
    path = schema.write_revision(context.database(), message, empty=empty, directory=directory)
    context.out.record(REVISION_COLUMNS, {"path": path})
    context.out.hint("Look it over; then apply it: aspencli db upgrade")


def _consent(context: AppContext, what: str, steps: Sequence[Revision], *, asked: bool) -> None:
    context.out.preview(STEP_COLUMNS, _rows(steps), limit=50)
    context.authorise(what, default_yes=not asked)


def needs_consent(context: AppContext) -> bool:
    """Return True if an upgrade needs confirmation, as on all targets that are not local."""
    return context.target.safety is not Safety.LOCAL


def _count(steps: Sequence[Revision]) -> str:
    return "1 revision" if len(steps) == 1 else f"{len(steps)} revisions"


def _rows(revisions: Iterable[Revision]) -> Iterable[Row]:
    return (vars(revision) for revision in revisions)


def register(app: typer.Typer) -> None:
    """Add the commands to their group."""
    app.command(
        epilog=examples("aspencli db upgrade", "aspencli --env staging db upgrade --dry-run")
    )(upgrade)
    app.command(epilog=examples("aspencli db downgrade -1"), context_settings=_STEPS_BACK)(
        downgrade
    )
    app.command("current", epilog=examples("aspencli db current"))(show_current)
    app.command(epilog=examples("aspencli db history"))(history)
    app.command(epilog=examples("aspencli db check"))(check)
    app.command(epilog=examples('aspencli db revision -m "add samples.collection_site"'))(revision)
