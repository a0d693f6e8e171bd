"""``aspencli users``: list, show, and onboard users, and manage one's own account.

Columns and formatting of users.

``aspencli users create``: in the database, or through the API.

``aspencli users me`` and ``update-me``: one's own account, through the API.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from aspencli.cli import params
from aspencli.cli.app import examples
from aspencli.cli.app import group as command_group
from aspencli.cli.commands.accounts_bulk import register_users
from aspencli.cli.context import AppContext, current
from aspencli.cli.output.console import show_page
from aspencli.cli.output.formats import Column, Row
from aspencli.cli.params import Road
from aspencli.errors import BadInputError
from aspencli.remote.types import MeChange
from aspencli.stored_text import clean_name

if TYPE_CHECKING:
    from aspencli.users.models import NewUser


LIST_COLUMNS = (
    Column("id", "Id", right=True, whole=True),
    Column("name", "Name"),
    Column("email", "E-mail", whole=True),
    Column("auth0_user_id", "Auth0 id", secondary=True),
    Column("system_admin", "System admin", secondary=True),
    Column("groups", "Groups and roles"),
)


def for_reading(user: Row) -> Row:
    """Return the user with groups and roles as text, for a table."""
    groups = (f"{group['name']} ({', '.join(group['roles'])})" for group in user["groups"])
    return {**user, "groups": ", ".join(groups)}


CREATE_COLUMNS = (Column("status", "Status"), *LIST_COLUMNS)
_EXAMPLES = examples(
    "aspencli --env staging users create --name 'Ada Love' --email ada@lab.example.org "
    "--auth0-user-id 'auth0|5f7c8ec7' --group CZI --system-admin"
)
_MESSAGES = {
    "created": "user {email} was created",
    "unchanged": "user {email} is there already, just so; nothing was written",
    "planned": "user {email} would be created; nothing was written",
}


def register_creation(app: typer.Typer) -> None:
    """Add the command to the group ``users``."""
    app.command(epilog=_EXAMPLES)(create)


def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Option(metavar="TEXT", help="What colleagues call the user.")],
    email: Annotated[
        str, typer.Option(metavar="ADDRESS", help="One that no other user has, in any case.")
    ],
    auth0_user_id: Annotated[
        str, typer.Option(metavar="ID", help="The user's id in Auth0; quote it: it holds a |.")
    ],
    group: Annotated[
        str,
        typer.Option("--group", "--group-id", metavar="ID|NAME|PREFIX", help="The group to join."),
    ],
    role: Annotated[
        str, typer.Option(metavar="NAME", help="The role there: admin, member or viewer.")
    ] = "member",
    system_admin: Annotated[
        bool, typer.Option("--system-admin", help="Let the user administer the service.")
    ] = False,
    via: Annotated[
        Road | None,
        typer.Option(
            "--via",
            help="Straight in the database, or through the API. Default: the database, on every "
            "target. (env: ASPEN_VIA)",
        ),
    ] = None,
    dry_run: params.DryRunOption = False,
) -> None:
    """Create a user with a role in a group, in one transaction.

    First create the user in Auth0 and note the id that it gets there; then run
    this. It replaces the INSERT by hand of the old runbook: its system_admin 't'
    is --system-admin; its group_admin 't' is --role admin, and 'f' --role member,
    the default.

    Run again, it changes nothing and answers with the same user. A user who has
    the address or the Auth0 id already but differs otherwise is a conflict.

    Through the API, which takes a system administrator, the role is always member, and
    whoever is there already is a conflict: the API does not tell whether it is the same
    user. The service as it was last published cannot create users.
    """
    from aspencli.users.models import NewUser

    context = current(ctx)
    wanted = NewUser.checked(
        name=name,
        email=email,
        auth0_user_id=auth0_user_id,
        group=group,
        role=role,
        system_admin=system_admin,
    )
    road = params.chosen_road(context, via, usual=Road.DB)
    params.announce(context, road)
    by_road = _through_api if road is Road.API else _in_database
    by_road(context, wanted, dry_run=dry_run)


def _in_database(context: AppContext, wanted: NewUser, *, dry_run: bool) -> None:
    from aspen.database.rights import lacking
    from aspencli.changes.apply import require_rights
    from aspencli.users.database import RIGHTS, create_user, plan_user

    with context.database().reading() as session:
        plan = plan_user(session, wanted)
        lacks = lacking(session.connection(), RIGHTS) if dry_run else []
    if plan.existing is not None:
        return _answer(context, "unchanged", vars(plan.existing))
    planned = _planned(plan.wanted, plan.group_id, plan.wanted.group)
    if dry_run:
        require_rights(lacks)
        return _answer(context, "planned", planned)
    _ask(context, planned)
    done = create_user(context.database(writable=True), wanted)
    return _answer(context, "created" if done.created else "unchanged", vars(done.user))


def _through_api(context: AppContext, wanted: NewUser, *, dry_run: bool) -> None:
    from aspencli.users.remote import API_ROLE, create_asked, plan_asked

    api = context.api()
    org = plan_asked(api, wanted)
    planned = _planned(replace(wanted, role=API_ROLE), org.id, org.name or str(org.id))
    if dry_run:
        api.users.check_create()
        return _answer(context, "planned", planned)
    _ask(context, planned)
    return _answer(context, "created", create_asked(api, wanted, org))


def _planned(wanted: NewUser, group_id: int, group: str) -> Row:
    fields = {column.key: getattr(wanted, column.key, None) for column in LIST_COLUMNS}
    return {**fields, "groups": [{"id": group_id, "name": group, "roles": [wanted.role]}]}


def _ask(context: AppContext, planned: Row) -> None:
    context.out.preview(LIST_COLUMNS[1:], [for_reading(planned)])
    right = ", a system administrator," if planned["system_admin"] else ""
    (group,) = planned["groups"]
    context.authorise(
        f"create user {planned['email']}{right} in group {group['name']} as {group['roles'][0]}"
    )


def _answer(context: AppContext, status: str, user: Row) -> None:
    context.out.records(CREATE_COLUMNS, [{"status": status, **user}])
    say = context.out.done if status == "created" else context.out.info
    say(_MESSAGES[status].format(email=user["email"]))


ME_COLUMNS = (
    Column("id", "Id", right=True, whole=True),
    Column("name", "Name"),
    Column("groups", "Groups and roles"),
    Column("agreed_to_tos", "Agreed to terms"),
    Column("acknowledged_policy_version", "Policy acknowledged"),
    Column("gisaid_submitter_id", "GISAID submitter"),
)


def register_me(app: typer.Typer) -> None:
    """Add the commands to the group ``users``."""
    app.command(epilog=examples("aspencli --env staging users me"))(me)
    app.command("update-me", epilog=examples("aspencli users update-me --name 'Ada Love'"))(
        update_me
    )


def me(ctx: typer.Context) -> None:
    """Show who you are to the API, with your groups and roles."""
    context = current(ctx)
    params.announce(context, Road.API)
    _show(context, {**context.api().users.me()})


def update_me(
    ctx: typer.Context,
    name: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What colleagues call you.")
    ] = None,
    gisaid_submitter_id: Annotated[
        str | None, typer.Option(metavar="ID", help="Who you are to GISAID.")
    ] = None,
    agreed_to_tos: Annotated[
        bool | None,
        typer.Option(
            "--agreed-to-tos/--not-agreed-to-tos", help="Whether you agree to the terms of service."
        ),
    ] = None,
    acknowledged_policy_version: Annotated[
        dt.date | None,
        typer.Option(
            metavar="DATE",
            parser=params.spoken_day,
            help="The privacy policy that you acknowledge.",
        ),
    ] = None,
    dry_run: params.DryRunOption = False,
) -> None:
    """Change your own account; what you do not name stays. The identity provider learns the name.

    Where it is so already, nothing is sent.
    """
    wanted = MeChange()
    if name is not None:
        wanted["name"] = clean_name(name, "the name")
    if gisaid_submitter_id is not None:
        wanted["gisaid_submitter_id"] = clean_name(gisaid_submitter_id, "the GISAID id")
    if agreed_to_tos is not None:
        wanted["agreed_to_tos"] = agreed_to_tos
    if acknowledged_policy_version is not None:
        wanted["acknowledged_policy_version"] = acknowledged_policy_version.isoformat()
    if not wanted:
        raise BadInputError("nothing to change was named", hint="See: users update-me --help")
    context = current(ctx)
    params.announce(context, Road.API)
    _change(context, wanted, dry_run=dry_run)


def _change(context: AppContext, wanted: MeChange, *, dry_run: bool) -> None:
    users = context.api().users
    before: Row = {**users.me()}
    changes = {key: value for key, value in wanted.items() if before[key] != value}
    words = "; ".join(f"{key} from {before[key]} to {value}" for key, value in changes.items())
    if not changes:
        _show(context, before)
        return context.out.info("it is so already; nothing was sent")
    if dry_run:
        _show(context, {**before, **changes})
        return context.out.info(f"would change {words}; nothing was sent")
    context.authorise(f"change your own account ({words})")
    _show(context, {**users.update_me(wanted)})
    return context.out.done(f"changed {words}")


def _show(context: AppContext, found: Row) -> None:
    table = context.out.chosen_form == "table"
    context.out.records(ME_COLUMNS, [for_reading(found) if table else found])


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
    from aspencli.users.database import UserList, UserQuery

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
    from aspencli.users.database import show_user

    context = current(ctx)
    with context.database().reading() as session:
        found = show_user(session, key)
    context.out.records(SHOW_COLUMNS, [asdict(found)])


register_creation(app)
register_me(app)
register_users(app)
