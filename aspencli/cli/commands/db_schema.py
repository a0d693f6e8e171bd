"""``aspencli db setup``, ``create``, ``drop``, ``upgrade`` etc.: databases and their schema."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aspencli.cli import params
from aspencli.cli.context import AppContext, current
from aspencli.cli.output.formats import OUTCOME, Column, Row, prints
from aspencli.cli.params import DryRunOption
from aspencli.config import Safety, Target
from aspencli.copies.choices import Trees
from aspencli.errors import BadInputError, RefusedError
from aspencli.text import counted, size_text

if TYPE_CHECKING:
    from aspen.database.engine import Database
    from aspen.database.migrate import Revision
    from aspencli.admin.databases import Holdings
    from aspencli.cli.changes.execute import ItemChange

STEP_COLUMNS = (
    Column("revision", "Revision", whole=True, of=str),
    Column("created", "Created (UTC)", secondary=True, whole=True, of=dt.datetime | None),
    Column("message", "Message", of=str),
)
PLAN_COLUMNS = (*STEP_COLUMNS, OUTCOME)
HISTORY_COLUMNS = (
    *STEP_COLUMNS,
    Column("down_revision", "Previous revision", secondary=True),
    Column("is_current", "Current", of=bool),
    Column("is_head", "Newest", of=bool),
)
CURRENT_COLUMNS = (
    Column("revision", "Revision", whole=True),
    Column("head", "Newest", of=str),
    Column("behind", "Behind", of=int | None),
    Column("state", "State", of=str),
)
UPGRADE_COLUMNS = (
    Column("before", "Before"),
    Column("after", "After"),
    Column("applied", "Applied", of=list[str]),
    OUTCOME,
)
DOWNGRADE_COLUMNS = (
    Column("before", "Before"),
    Column("after", "After"),
    Column("reverted", "Reverted", of=list[str]),
    OUTCOME,
)
SETUP_COLUMNS = (
    Column("database", "Database", of=str),
    Column("created", "Created", of=bool),
    Column("before", "Revision before"),
    Column("after", "Revision after"),
    Column("applied", "Applied", of=list[str]),
    OUTCOME,
)
CREATE_COLUMNS = (
    Column("database", "Database", of=str),
    Column("created", "Created", of=bool),
    OUTCOME,
)
DROP_COLUMNS = (
    Column("database", "Database", of=str),
    Column("dropped", "Dropped", of=bool),
    OUTCOME,
)
REVISION_COLUMNS = (Column("path", "File", of=str),)
DIFFERENCE_COLUMNS = (Column("difference", "Difference", of=str),)

DirectoryOption = Annotated[
    Path | None,
    typer.Option(
        "--directory",
        metavar="DIR",
        file_okay=False,
        help="Folder with revisions to use in addition to the built-in ones.",
    ),
]
LoadOption = Annotated[
    str | None,
    typer.Option(
        "--load-data",
        metavar="PLACE",
        help="Also load a dump or plain SQL (a folder, a file, or s3://...). Refused if the "
        "database has a schema.",
    ),
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Terminate other sessions of the database first.")
]


@prints(UPGRADE_COLUMNS, PLAN_COLUMNS)
def upgrade(
    ctx: typer.Context,
    revision: Annotated[
        str, typer.Argument(metavar="REVISION", help="A revision ID or prefix, head, or +N.")
    ] = "head",
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL instead of running it.")] = (
        False
    ),
    dry_run: DryRunOption = False,
    directory: DirectoryOption = None,
) -> None:
    """Upgrade the schema to a newer revision; each revision is one transaction.

    Fails with exit code 7 if a table stays locked for more than 5 s, so that other sessions do not
    queue behind it. On the local target it does not ask for confirmation.
    """
    from aspencli.admin import databases
    from aspencli.cli.changes.execute import execute

    context = current(ctx)
    database = context.database(writable=not (sql or dry_run), admin=True)
    steps = databases.pending(database, revision, directory=directory)
    if sql:
        return _print_sql(context, steps, directory)
    return execute(_upgrade(context, database, steps, directory), dry_run=dry_run)


def _print_sql(context: AppContext, steps: Sequence[Revision], directory: Path | None) -> None:
    from aspencli.admin import databases

    if not steps:
        return context.out.nothing()
    return context.out.text(databases.upgrade_sql(steps, directory=directory))


def _upgrade(
    context: AppContext, database: Database, steps: Sequence[Revision], directory: Path | None
) -> ItemChange:
    from aspencli.admin import databases

    def apply() -> Iterator[Sequence[Row]]:
        result = databases.upgrade(database, steps, directory=directory)
        if context.is_on_laptop and result.applied and steps[-1].is_head:
            # This gives its roles ownership of, or access to, the new objects.
            context.laptop.deployment.prepare()
        yield [{**vars(result), "outcome": "updated" if result.applied else "unchanged"}]

    change = migration(
        context,
        f"apply {counted(len(steps), 'revision')}",
        UPGRADE_COLUMNS,
        steps,
        apply,
        asked=needs_consent(context),
    )
    change.done = lambda rows: f"Upgraded to {rows[0]['after']}"
    return change


@prints(DOWNGRADE_COLUMNS, PLAN_COLUMNS)
def downgrade(
    ctx: typer.Context,
    revision: Annotated[
        str,
        typer.Argument(metavar="REVISION", help="The revision to revert to: an ID, -N, or base."),
    ],
    dry_run: DryRunOption = False,
    directory: DirectoryOption = None,
) -> None:
    """Revert schema revisions; everything they added is deleted, including its data."""
    from aspencli.admin import databases
    from aspencli.cli.changes.execute import execute

    context = current(ctx)
    database = context.database(writable=not dry_run, admin=True)
    steps = databases.undone(database, revision, directory=directory)

    def revert() -> Iterator[Sequence[Row]]:
        result = databases.downgrade(database, steps, directory=directory)
        yield [{**vars(result), "outcome": "updated" if result.reverted else "unchanged"}]

    what = f"revert {counted(len(steps), 'revision')} and delete their data"
    change = migration(context, what, DOWNGRADE_COLUMNS, steps, revert, asked=True)
    change.done = lambda rows: f"Downgraded to {rows[0]['after'] or 'base'}"
    execute(change, dry_run=dry_run)


@prints(CURRENT_COLUMNS)
def show_current(ctx: typer.Context) -> None:
    """Show the database's schema revision, and how far behind the newest it is."""
    from aspencli.admin import databases

    context = current(ctx)
    state = databases.schema_state(context.database())
    context.out.record(CURRENT_COLUMNS, {**vars(state), "state": state.word})
    if state.older is not None:
        context.out.hint(state.older)


@prints(HISTORY_COLUMNS)
def history(ctx: typer.Context, directory: DirectoryOption = None) -> None:
    """List all revisions, newest first, and mark the database's current one."""
    from aspencli.admin import databases

    context = current(ctx)
    revisions = databases.history(context.database(), directory=directory)
    context.out.rows(HISTORY_COLUMNS, map(vars, revisions))


@prints(DIFFERENCE_COLUMNS)
def check(ctx: typer.Context) -> None:
    """Compare the models with the database; the exit code is 1 if they differ.

    Compares tables, columns (with lengths, defaults, and generated values), keys, indexes,
    constraints, triggers, rules, policies, views, functions, types, and sequences of the schema
    aspen. Rows, privileges, comments, and storage parameters are not.
    """
    from aspencli.admin import databases

    context = current(ctx)
    found = databases.differences(context.database())
    context.out.rows(DIFFERENCE_COLUMNS, ({"difference": line} for line in found))
    if found:
        context.out.warn(f"The models and the database differ in {counted(len(found), 'place')}.")
        context.out.hint(
            "Upgrade it (aspencli db upgrade), or create a revision (aspencli db revision -m ...)."
        )
        raise typer.Exit(1)
    context.out.done("The models and the database match.")
    context.out.info("Not compared: rows, privileges, comments, and storage parameters.")


@prints(REVISION_COLUMNS)
def revision(
    ctx: typer.Context,
    message: Annotated[
        str, typer.Option("--message", "-m", metavar="TEXT", help="One-line summary of the change.")
    ],
    empty: Annotated[
        bool,
        typer.Option("--empty", help="Create an empty revision instead of comparing the models."),
    ] = False,
    directory: DirectoryOption = None,
) -> None:
    """Create a revision file with the changes that the target's database needs to match the models.

    The database is only read. Review the file before you apply it.
    """
    from aspencli.admin import databases

    context = current(ctx)
    path = databases.write_revision(context.database(), message, empty=empty, directory=directory)
    context.out.record(REVISION_COLUMNS, {"path": path})
    context.out.hint("Review it, then apply it: aspencli db upgrade")


@prints(SETUP_COLUMNS, PLAN_COLUMNS, "aspencli.cli.changes.copies:RESTORE_COLUMNS")
def setup(
    ctx: typer.Context,
    load_data: LoadOption = None,
    trees: params.TreesOption = Trees.KEEP,
    dry_run: DryRunOption = False,
) -> None:
    """Create the database if it does not exist, and upgrade its schema to the newest revision.

    Safe to run again at any time: existing data and roles are not changed. On the local target it
    does not ask for confirmation.
    """
    from aspencli.cli.changes.execute import execute

    context = current(ctx)
    database = context.database(writable=True, admin=True)
    if load_data is not None:
        from aspencli.cli.changes.copies import setting_up

        return execute(setting_up(context, database, load_data, trees), dry_run=dry_run)
    if trees is Trees.DROP:
        raise BadInputError("--trees needs --load-data.", hint="Remove --trees, or add a dump.")
    return execute(_setup(context, database), dry_run=dry_run)


def _setup(context: AppContext, database: Database) -> ItemChange:
    from aspencli.admin import databases

    plan = databases.plan_setup(database)
    if plan.create:
        context.out.info(f"Database {plan.database} does not exist and will be created.")

    def set_up() -> Iterator[Sequence[Row]]:
        created, migrated = databases.setup(database, plan)
        if context.is_on_laptop:
            context.laptop.deployment.prepare()
        outcome = "updated" if migrated.applied else "unchanged"
        row = {"database": plan.database, "created": created, **vars(migrated)}
        yield [{**row, "outcome": "created" if created else outcome}]

    asked = needs_consent(context)
    change = migration(
        context, f"set up {plan.database}", SETUP_COLUMNS, plan.steps, set_up, asked=asked
    )
    change.done = lambda rows: f"{plan.database} is at revision {rows[0]['after']}"
    return change


@prints(CREATE_COLUMNS)
def create(ctx: typer.Context, dry_run: DryRunOption = False) -> None:
    """Create the target's database, empty. Does nothing if it already exists."""
    from aspencli.cli.changes.execute import execute

    execute(_creation(current(ctx)), dry_run=dry_run)


def _creation(context: AppContext) -> ItemChange:
    from aspencli.admin import databases
    from aspencli.cli.changes.execute import ItemChange

    database = context.database(writable=True, admin=True)
    name = databases.name_of(database)

    def create_it() -> Iterator[Sequence[Row]]:
        created = databases.create(database)
        outcome = "created" if created else "unchanged"
        yield [{"database": name, "created": created, "outcome": outcome}]

    outcome = "unchanged" if databases.exists(database) else "create"
    return ItemChange(
        context,
        f"create the database {name}",
        CREATE_COLUMNS,
        [{"database": name, "created": False, "outcome": outcome}],
        create_it,
        done=f"Created database {name}",
        next="Next, create its schema: aspencli db setup",
        reason=f"database {name} already exists",
        single=True,
        default_yes=not needs_consent(context),
    )


@prints(DROP_COLUMNS)
def drop(
    ctx: typer.Context,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Drop the target's database and everything in it. This cannot be undone.

    Refused while other sessions are connected, unless --force is given. Asks for confirmation: on
    a shared target, type the target's name or pass it with --confirm; on production, --confirm is
    required.
    """
    from aspencli.admin import databases
    from aspencli.cli.changes.execute import execute

    context = current(ctx)
    database = context.database(writable=True, admin=True)
    name = databases.name_of(database)
    found = databases.holdings(database)
    if found and context.target.name == "local":
        context.require_laptop(database, f"drop {name}")
    if found:
        context.out.info(f"{name} on {context.target.label}: {_described(found)}")
    if found and not dry_run:
        _require_droppable(context, name, found, force=force)
    execute(_dropping(context, database, found, force=force), dry_run=dry_run)


def _require_droppable(context: AppContext, name: str, found: Holdings, *, force: bool) -> None:
    from aspencli.admin import databases

    if not force:
        databases.require_alone(name, found.visitors)
    _require_name(context.target, context.options["confirm"])


def _dropping(
    context: AppContext, database: Database, found: Holdings | None, *, force: bool
) -> ItemChange:
    from aspencli.admin import databases
    from aspencli.cli.changes.execute import ItemChange

    name = databases.name_of(database)

    def drop_it() -> Iterator[Sequence[Row]]:
        dropped = databases.drop(database, force=force)
        outcome = "deleted" if dropped else "unchanged"
        yield [{"database": name, "dropped": dropped, "outcome": outcome}]

    return ItemChange(
        context,
        f"drop {name} ({_described(found)})" if found else "",
        DROP_COLUMNS,
        [{"database": name, "dropped": False, "outcome": "delete" if found else "unchanged"}],
        drop_it,
        done=f"Dropped database {name}",
        next="Create it again: aspencli db setup",
        reason=f"database {name} does not exist",
        single=True,
        by_name=context.target.safety is not Safety.LOCAL,
    )


def _described(found: Holdings) -> str:
    samples = "sample count unknown" if found.samples is None else f"{found.samples:,} samples"
    return f"{size_text(found.size)}, {samples}, {counted(len(found.visitors), 'other session')}"


def _require_name(target: Target, given: str | None) -> None:
    if target.is_production and given is None:
        raise RefusedError(
            f"{target.confirmed_by} is production: dropping its database requires --confirm",
            hint=f"If you are sure, add --confirm {target.confirmed_by}.",
        )


def migration(
    context: AppContext,
    what: str,
    columns: tuple[Column, ...],
    steps: Sequence[Revision],
    apply: Callable[[], Iterable[Sequence[Row]]],
    *,
    asked: bool,
) -> ItemChange:
    """Return the change that a migration makes; its plan has a row for each revision."""
    from aspencli.cli.changes.execute import ItemChange

    return ItemChange(
        context,
        what,
        columns,
        [{**vars(step), "outcome": "update"} for step in steps],
        apply,
        single=True,
        plan_columns=PLAN_COLUMNS,
        shows=50,
        label="Migrating",
        default_yes=not asked,
        is_idempotent=True,
    )


def needs_consent(context: AppContext) -> bool:
    """Return True if an upgrade needs confirmation, as on all targets that are not local."""
    return context.target.safety is not Safety.LOCAL
