"""``aspencli users``: list, show, and onboard users, and manage one's own account."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from aspencli import params
from aspencli.cli import examples
from aspencli.cli import group as command_group
from aspencli.commands import users_creating, users_me
from aspencli.commands.accounts_bulk import register_users
from aspencli.commands.user_columns import LIST_COLUMNS, for_reading
from aspencli.context import current
from aspencli.output.paging import show_page
from aspencli.output.rendering import Column

app = command_group("List and onboard users, and see to your own account.")

SHOW_COLUMNS = (
    *LIST_COLUMNS,
    Column("agreed_to_tos", "Agreed to terms"),
    Column("acknowledged_policy_version", "Policy acknowledged"),
    Column("gisaid_submitter_id", "GISAID submitter"),
    Column("created_at", "Created"),
    Column("samples", "Samples uploaded"),
)


@app.command("list", epilog=examples("aspencli users list --group CZI --role admin"))
def list_(
    ctx: typer.Context,
    group: params.GroupOption = None,
    role: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Only with this role (in that group): admin, member or viewer.",
            callback=params.checked("the role"),
        ),
    ] = None,
    system_admin: Annotated[
        bool | None,
        typer.Option(
            "--system-admin/--no-system-admin", help="Only system administrators, or only others."
        ),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Part of the name or e-mail address, in any case.",
            callback=params.checked("the text to search"),
        ),
    ] = None,
    limit: params.LimitOption = None,
    everything: params.AllOption = False,
    after: params.AfterOption = None,
) -> None:
    """List users, with their groups and roles."""
    from aspencli.services.users import UserList, UserQuery

    context = current(ctx)
    query = UserQuery(
        group=params.chosen_group(context, group),
        role=role,
        system_admin=system_admin,
        search=search,
        after=after,
    )
    limit = params.chosen_limit(context.out, limit, everything)
    table = context.out.chosen_form == "table"
    with context.database().reading() as session:
        found = UserList(session, query)
        show_page(
            context.out,
            LIST_COLUMNS,
            found,
            limit,
            noun="users",
            as_row=for_reading if table else dict,
        )


@app.command(epilog=examples("aspencli users show ada@lab.example.org"))
def show(
    ctx: typer.Context,
    key: Annotated[
        str,
        typer.Argument(
            metavar="ID|EMAIL|AUTH0_ID",
            help="The user, by any of the three.",
            callback=params.checked("the user"),
        ),
    ],
) -> None:
    """Show a user, with the groups and roles."""
    from aspencli.services.users import show_user

    context = current(ctx)
    with context.database().reading() as session:
        found = show_user(session, key)
    context.out.records(SHOW_COLUMNS, [asdict(found)])


users_creating.register(app)
users_me.register(app)
register_users(app)
