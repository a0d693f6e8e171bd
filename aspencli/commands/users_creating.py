"""``aspencli users create``: in the database, or through the API."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from aspencli import params
from aspencli.cli import examples
from aspencli.commands.user_columns import LIST_COLUMNS, for_reading
from aspencli.context import AppContext, current
from aspencli.output.rendering import Column, Row
from aspencli.params import Road

if TYPE_CHECKING:
    from aspencli.services.new_user import NewUser

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


def register(app: typer.Typer) -> None:
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
    from aspencli.services.new_user import NewUser

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
    from aspencli.services.bulk import require_rights
    from aspencli.services.onboarding import RIGHTS, create_user, plan_user
    from db.rights import lacking

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
    from aspencli.services.onboarding_asked import API_ROLE, create_asked, plan_asked

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
