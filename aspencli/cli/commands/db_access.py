"""``aspencli db access``: the roles of a database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import typer

from aspencli.cli.app import examples, group
from aspencli.cli.context import AppContext, current
from aspencli.cli.output.formats import OUTCOME, Column, Row, prints
from aspencli.cli.params import DryRunOption

if TYPE_CHECKING:
    from aspencli.admin.readonly import RoleStep
    from aspencli.cli.changes.execute import ItemChange
    from aspencli.config import Target

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
    from aspencli.cli.changes.execute import execute

    execute(_creation(current(ctx)), dry_run=dry_run)


def _creation(context: AppContext) -> ItemChange:
    from aspencli.admin import readonly
    from aspencli.cli.changes.execute import ItemChange

    role = context.target.read_only_role or readonly.DEFAULT_ROLE
    reader = context.database().url.username or ""
    database = context.database(writable=True, admin=True)
    steps = readonly.missing_steps(database, role, reader)

    def carry_out() -> Iterator[Sequence[Row]]:
        readonly.carry_out(database, steps)
        yield [_row(step, "created") for step in steps]

    return ItemChange(
        context,
        f"make {role} a role that can only read, for {reader} to switch to",
        STEP_COLUMNS,
        [_row(step, "create") for step in steps],
        carry_out,
        done=f"{reader} can switch to {role}, which can only read",
        next=_how_to_use(context.target, role),
        reason=f"{reader} can already switch to {role}, which can only read",
    )


def _row(step: RoleStep, outcome: str) -> Row:
    return {"step": step.what, "statement": step.statement, "outcome": outcome}


def _how_to_use(target: Target, role: str) -> str:
    if target.read_only_role:
        return ""
    return (
        f'Use it: set read_only_role = "{role}" under [targets.{target.name}] in the config file.'
    )
