"""``aspencli db setup``, ``create`` and ``drop``: creation and deletion of a database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from aspencli.cli import examples
from aspencli.commands.db_schema import STEP_COLUMNS, needs_consent
from aspencli.context import AppContext, current
from aspencli.errors import RefusedError
from aspencli.output.rendering import Column
from aspencli.output.text import size_text
from aspencli.params import DryRunOption
from aspencli.targets import Safety

if TYPE_CHECKING:
    from aspencli.services.databases import Holdings

SETUP_COLUMNS = (
    Column("database", "Database"),
    Column("created", "Made now"),
    Column("before", "Before"),
    Column("after", "Revision"),
    Column("applied", "Applied"),
)
CREATE_COLUMNS = (Column("database", "Database"), Column("created", "Made now"))
DROP_COLUMNS = (Column("database", "Database"), Column("dropped", "Dropped"))


def setup(ctx: typer.Context, dry_run: DryRunOption = False) -> None:
    """Make the database where it is missing, and bring its schema to the newest revision.

    It may be run again at any time: data is left alone, and so are roles. On the local target it
    does not ask.
    """
    from aspencli.services import schema

    context = current(ctx)
    database = context.database(writable=True, admin=True)
    plan = schema.plan_setup(database)
    if plan.create:
        context.out.info(f"{plan.database} is missing, and is to be made")
    steps = [vars(step) for step in plan.steps]
    if dry_run:
        return context.out.rows(STEP_COLUMNS, steps, empty="No revision is missing.")
    if plan.create or plan.steps:
        context.out.preview(STEP_COLUMNS, steps, limit=50)
        context.authorise(f"set {plan.database} up", default_yes=not needs_consent(context))
    with context.out.progress("Setting up"):
        result = schema.setup(database, plan)
        if context.is_on_laptop:
            context.laptop.prepare()
    row = {"database": plan.database, "created": result.created, **vars(result.migrated)}
    context.out.record(SETUP_COLUMNS, row)
    return context.out.done(f"{plan.database} is set up at revision {result.migrated.after}")


def create(ctx: typer.Context, dry_run: DryRunOption = False) -> None:
    """Make the target's database, empty; nothing to do where it is there."""
    from aspencli.services import databases

    context = current(ctx)
    database = context.database(writable=True, admin=True)
    name = databases.name_of(database)
    if databases.exists(database):
        context.out.info(f"{name} is there; nothing to do")
        return context.out.record(CREATE_COLUMNS, {"database": name, "created": False})
    if dry_run:
        return context.out.info(f"would make {name}; nothing was written")
    context.authorise(f"make the database {name}", default_yes=not needs_consent(context))
    created = databases.create(database)
    context.out.record(CREATE_COLUMNS, {"database": name, "created": created})
    context.out.done(f"made {name}")
    return context.out.hint("Give it the schema: aspencli db setup")


def drop(
    ctx: typer.Context,
    force: Annotated[
        bool, typer.Option("--force", help="End the sessions of others; else it is refused.")
    ] = False,
    dry_run: DryRunOption = False,
) -> None:
    """Drop the target's database with all that is in it; nothing brings it back.

    It asks first. On a shared target the target's name must be typed, or given with --confirm; on
    production --confirm is the only way.
    """
    from aspencli.services import databases

    context = current(ctx)
    database = context.database(writable=True, admin=True)
    name = databases.name_of(database)
    found = databases.holdings(database)
    if found is None:
        context.out.info(f"there is no database {name}; nothing to do")
        return context.out.record(DROP_COLUMNS, {"database": name, "dropped": False})
    if context.target.name == "local":
        context.require_laptop(database, f"drop {name}")
    context.out.info(f"{name} on {context.target.label}: {_described(found)}")
    if dry_run:
        return context.out.info("nothing was dropped")
    if not force:
        databases.require_alone(name, found.visitors)
    _authorise_drop(context, found)
    dropped = databases.drop(database, force=force)
    context.out.record(DROP_COLUMNS, {"database": name, "dropped": dropped})
    context.out.done(f"dropped {name}")
    return context.out.hint("Make it anew: aspencli db setup")


def _described(found: Holdings) -> str:
    samples = "no samples counted" if found.samples is None else f"{found.samples:,} samples"
    return f"{size_text(found.size)}, {samples}, {len(found.visitors)} other session(s)"


def _authorise_drop(context: AppContext, found: Holdings) -> None:
    target = context.target
    if target.is_production and context.options["confirm"] is None:
        raise RefusedError(
            f"{target.confirmed_by} is production: its database is dropped only with --confirm",
            hint=f"If you are certain, add --confirm {target.confirmed_by}.",
        )
    context.authorise(
        f"drop {found.name} ({_described(found)})",
        by_name=target.safety is not Safety.LOCAL,
    )


def register(app: typer.Typer) -> None:
    """Add the commands to their group."""
    app.command(epilog=examples("aspencli db setup"))(setup)
    app.command(epilog=examples("aspencli db create"))(create)
    app.command(
        epilog=examples("aspencli db drop", "aspencli --env staging db drop --confirm staging")
    )(drop)
