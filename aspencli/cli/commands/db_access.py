"""``aspencli db access``: the roles of a database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import typer

from aspencli.cli.app import examples, group
from aspencli.cli.context import current
from aspencli.cli.output.formats import OUTCOME, Column, Row, prints
from aspencli.cli.params import DryRunOption

app = group("Manage the roles of the target's database.")

STEP_COLUMNS = (
    Column("step", "Step", of=str),
    Column("statement", "Statement", whole=True, of=str),
    OUTCOME,
)


@app.command(
    "ensure-readonly",
    epilog=examples(
        "aspencli --env staging db access ensure-readonly --dry-run",
        "aspencli --env prod db access ensure-readonly --confirm prod",
    ),
)
@prints(STEP_COLUMNS)
def ensure_readonly(ctx: typer.Context, dry_run: DryRunOption = False) -> None:
    """Create a role that can read every table and write none, for reading sessions to switch to.

    Its name is the target's read_only_role, by default aspen_readonly. Does nothing if it already
    exists and is complete.
    """
    from aspencli.admin import readonly
    from aspencli.cli.changes.execute import ItemChange, execute

    context = current(ctx)
    role = context.target.read_only_role or readonly.DEFAULT_ROLE
    reader = context.database().url.username or ""
    database = context.database(writable=True, admin=True)
    steps = readonly.missing_steps(database, role, reader)

    def rows(outcome: str) -> list[Row]:
        return [
            {"step": step.what, "statement": step.statement, "outcome": outcome} for step in steps
        ]

    def carry_out() -> Iterator[Sequence[Row]]:
        readonly.carry_out(database, steps)
        yield rows("created")

    name = context.target.name
    change = ItemChange(
        context,
        f"make {role} a role that can only read, for {reader} to switch to",
        STEP_COLUMNS,
        rows("create"),
        carry_out,
        done=f"{reader} can switch to {role}, which can only read",
        next=""
        if context.target.read_only_role
        else f'Use it: set read_only_role = "{role}" under [targets.{name}] in the config file.',
        reason=f"{reader} can already switch to {role}, which can only read",
    )
    execute(change, dry_run=dry_run)
