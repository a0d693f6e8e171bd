"""``aspencli users``: look at users and onboard new ones, straight in the database."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from aspencli import params
from aspencli.cli import examples
from aspencli.cli import group as command_group
from aspencli.commands.accounts_bulk import register_users
from aspencli.context import current
from aspencli.output.paging import show_page
from aspencli.output.rendering import Column, Row

if TYPE_CHECKING:
    from aspencli.context import AppContext
    from aspencli.services.onboarding import UserPlan

app = command_group("List and onboard users.")

LIST_COLUMNS = (
    Column("id", "Id", right=True, whole=True),
    Column("name", "Name"),
    Column("email", "E-mail", whole=True),
    Column("auth0_user_id", "Auth0 id", secondary=True),
    Column("system_admin", "System admin", secondary=True),
    Column("groups", "Groups and roles"),
)
SHOW_COLUMNS = (
    *LIST_COLUMNS,
    Column("agreed_to_tos", "Agreed to terms"),
    Column("acknowledged_policy_version", "Policy acknowledged"),
    Column("gisaid_submitter_id", "GISAID submitter"),
    Column("created_at", "Created"),
    Column("samples", "Samples uploaded"),
)
CREATE_COLUMNS = (Column("status", "Status"), *LIST_COLUMNS)


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
            as_row=_for_reading if table else dict,
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


@app.command(
    epilog=examples(
        "aspencli --env staging users create --name 'Ada Love' --email ada@lab.example.org "
        "--auth0-user-id 'auth0|5f7c8ec7' --group CZI --system-admin"
    ),
)
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Option(metavar="TEXT", help="What colleagues call the user.")],
    email: Annotated[
        str, typer.Option(metavar="ADDRESS", help="One that no other user has, in any case.")
    ],
    auth0_user_id: Annotated[
        str, typer.Option(metavar="ID", help="The user's id in Auth0; quote it: it holds a |.")
    ],
    group: Annotated[str, typer.Option(metavar="ID|NAME|PREFIX", help="The group to join.")],
    role: Annotated[
        str, typer.Option(metavar="NAME", help="The role there: admin, member or viewer.")
    ] = "member",
    system_admin: Annotated[
        bool, typer.Option("--system-admin", help="Let the user administer the service.")
    ] = False,
    dry_run: params.DryRunOption = False,
) -> None:
    """Create a user with a role in a group, in one transaction.

    First create the user in Auth0 and note the id that it gets there; then run
    this. It replaces the INSERT by hand of the old runbook: its system_admin 't'
    is --system-admin; its group_admin 't' is --role admin, and 'f' --role member,
    the default.

    Run again, it changes nothing and answers with the same user. A user who has
    the address or the Auth0 id already but differs otherwise is a conflict.
    """
    from aspencli.services.onboarding import NewUser, create_user, plan_user

    context = current(ctx)
    wanted = NewUser.checked(
        name=name,
        email=email,
        auth0_user_id=auth0_user_id,
        group=group,
        role=role,
        system_admin=system_admin,
    )
    with context.database().reading() as session:
        plan = plan_user(session, wanted)
    if plan.existing is not None:
        return _answer(context, "unchanged", vars(plan.existing))
    if dry_run:
        return _answer(context, "planned", _planned(plan))
    context.out.preview(LIST_COLUMNS[1:], [_for_reading(_planned(plan))])
    context.authorise(_sentence(plan))
    done = create_user(context.database(writable=True), wanted)
    return _answer(context, "created" if done.created else "unchanged", vars(done.user))


_MESSAGES = {
    "created": "user {email} was created",
    "unchanged": "user {email} is there already, just so; nothing was written",
    "planned": "user {email} would be created; nothing was written",
}


def _answer(context: AppContext, status: str, user: Row) -> None:
    context.out.records(CREATE_COLUMNS, [{"status": status, **user}])
    say = context.out.done if status == "created" else context.out.info
    say(_MESSAGES[status].format(email=user["email"]))


def _sentence(plan: UserPlan) -> str:
    user = plan.wanted
    right = ", a system administrator," if user.system_admin else ""
    return f"create user {user.email}{right} in group {user.group} as {user.role}"


def _planned(plan: UserPlan) -> Row:
    user = plan.wanted
    group = {"id": plan.group_id, "name": user.group, "roles": [user.role]}
    return {**vars(user), "id": None, "groups": [group]}


def _for_reading(user: Row) -> Row:
    groups = (f"{group['name']} ({', '.join(group['roles'])})" for group in user["groups"])
    return {**user, "groups": ", ".join(groups)}


register_users(app)
