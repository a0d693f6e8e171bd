"""``aspencli users``: list, show, create, change, and delete users, and manage one's own account.

Users are created in the database or through the API; one's own account exists only in the API.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aspencli.cli import params
from aspencli.cli.app import examples, expanded
from aspencli.cli.app import group as command_group
from aspencli.cli.context import AppContext, Backend, current
from aspencli.cli.output.console import show_page
from aspencli.cli.output.formats import OUTCOME, Column, Row, prints
from aspencli.errors import BadInputError
from aspencli.text import clean_name

if TYPE_CHECKING:
    from aspencli.cli.changes.execute import ItemChange
    from aspencli.remote.types import MeChange
    from aspencli.users.remote import NewUser


app = command_group("List, show, create, change, and delete users, and manage your own account.")


def _group_roles() -> Any:
    from aspencli.remote.types import GroupRoles

    return list[GroupRoles]


LIST_COLUMNS = (
    Column("id", "Id", right=True, whole=True, of=int),
    Column("name", "Name", of=str),
    Column("email", "E-mail", whole=True, of=str),
    Column("auth0_user_id", "Auth0 id", secondary=True, whole=True, of=str),
    Column("system_admin", "System admin", secondary=True, of=bool),
    Column("groups", "Groups and roles", of=_group_roles),
)
SHOW_COLUMNS = (
    *LIST_COLUMNS,
    Column("agreed_to_tos", "Agreed to terms", of=bool),
    Column("acknowledged_policy_version", "Policy acknowledged", of=dt.date | None),
    Column("gisaid_submitter_id", "GISAID submitter id"),
    Column("created_at", "Created", of=dt.datetime | None),
    Column("samples", "Samples uploaded", of=int),
)
CREATE_COLUMNS = (
    Column("status", "Status", retired=True, of=str),
    replace(LIST_COLUMNS[0], of=int | None),  # a plan has no id yet
    *LIST_COLUMNS[1:],
    OUTCOME,
)
_NOT_MINE = {"email", "auth0_user_id", "system_admin", "created_at", "samples"}  # not in the API
ME_COLUMNS = tuple(column for column in SHOW_COLUMNS if column.key not in _NOT_MINE)
UPDATE_ME_COLUMNS = (*ME_COLUMNS, OUTCOME)
_CREATE_EXAMPLES = examples(
    "aspencli --env staging users create --name 'Ada Love' --email ada@lab.example.org "
    "--auth0-user-id 'auth0|5f7c8ec7' --group CZI --system-admin"
)


@app.command("list", epilog=examples("aspencli users list --group CZI --role admin"))
@prints(LIST_COLUMNS)
def list_(
    ctx: typer.Context,
    group: params.GroupOption = None,
    role: Annotated[
        str | None,
        params.text_option(
            "Only users with this role (in --group, if given): admin, member, or viewer.",
            metavar="NAME",
            what="the role",
        ),
    ] = None,
    system_admin: Annotated[
        bool | None,
        typer.Option(
            "--system-admin/--no-system-admin",
            help="Only system administrators, or only other users.",
        ),
    ] = None,
    search: Annotated[
        str | None,
        params.text_option(
            "Part of the name or e-mail address (case-insensitive).", what="the search text"
        ),
    ] = None,
    limit: params.LimitOption = None,
    everything: params.AllOption = False,
    after: params.AfterOption = None,
) -> None:
    """List users with their groups and roles."""
    context = current(ctx)
    database = context.database(early=True)
    from aspencli.users.listing import UserList, UserQuery

    query = UserQuery(
        group=params.chosen_group(context, group),
        role=role,
        system_admin=system_admin,
        search=search,
        after=after,
    )
    limit = params.chosen_limit(context.out, limit, everything)
    as_row = for_reading if context.out.chosen_form == "table" else None
    with database.connected() as reader:
        found = UserList(reader, query)
        seen = partial(context.remember, kinds=("users",))
        show_page(context.out, LIST_COLUMNS, found, limit, noun="users", as_row=as_row, seen=seen)


@app.command(epilog=examples("aspencli users show ada@lab.example.org"))
@prints(SHOW_COLUMNS)
def show(
    ctx: typer.Context,
    key: Annotated[
        str,
        typer.Argument(
            metavar="ID|EMAIL|AUTH0_ID",
            help="User id, e-mail address, or Auth0 id.",
            callback=params.checked("the user"),
        ),
    ],
) -> None:
    """Show a user with groups and roles."""
    context = current(ctx)
    database = context.database(early=True)
    from aspencli.users.database import show_user

    with database.observing() as session:
        found = show_user(session, key)
    context.out.records(SHOW_COLUMNS, [found])


@app.command(epilog=_CREATE_EXAMPLES)
@prints(CREATE_COLUMNS)
def create(
    ctx: typer.Context,
    name: Annotated[str, params.text_option("Display name.")],
    email: Annotated[
        str, params.text_option("E-mail address, unique among users.", metavar="ADDRESS")
    ],
    group: Annotated[
        str,
        typer.Option(
            "--group", "--group-id", metavar="ID|NAME|PREFIX", help="Group to add the user to."
        ),
    ],
    auth0_user_id: Annotated[
        str | None,
        params.text_option(
            "Auth0 user id; quote it in the shell, because it contains a |. Without it, the "
            "command shows what `users onboard` would do, and ends.",
            metavar="ID",
        ),
    ] = None,
    role: Annotated[
        str, typer.Option(metavar="NAME", help="Role in the group: admin, member, or viewer.")
    ] = "member",
    system_admin: Annotated[
        bool, typer.Option("--system-admin", help="Make the user a system administrator.")
    ] = False,
    via: Annotated[
        Backend | None,
        typer.Option(
            help="Backend: database or API. Default: the database, on every target. "
            "(env: ASPEN_VIA)",
        ),
    ] = None,
    dry_run: params.DryRunOption = False,
) -> None:
    """Create a user with a role in a group, in one transaction.

    This is for an account that exists in Auth0 already: pass its id as
    --auth0-user-id. To create the account as well, use `users onboard`.
    This command replaces the manual INSERT in the old runbook: use --system-admin
    for system_admin 't', --role admin for group_admin 't', and --role member (the
    default) for group_admin 'f'.

    If the same user already exists, nothing changes. If another user has the same
    e-mail address or Auth0 id, that is a conflict (exit code 7).

    With --via api, you must be a system administrator, the role is always member,
    and any existing user is a conflict, because the API cannot show whether it is
    the same user. The service as last published cannot create users.
    """
    from aspencli.cli.changes.execute import execute
    from aspencli.users.remote import NewUser

    context = current(ctx)
    if auth0_user_id is None:
        from aspencli.cli.commands.people import explain_onboarding

        return explain_onboarding(context, email=email, name=name, group=group, role=role)
    asked = {"name": name, "email": email, "auth0_user_id": auth0_user_id, "group": group}
    wanted = NewUser.checked(**asked, role=role, system_admin=system_admin)
    backend = context.backend(via, usual=Backend.DB)
    plan = _plan_in_api if backend is Backend.API else _plan_in_database
    return execute(plan(context, wanted), dry_run=dry_run)


def _plan_in_database(context: AppContext, wanted: NewUser) -> ItemChange:
    from aspen.database.roles import missing_rights
    from aspencli.changes.apply import require_rights
    from aspencli.users.database import RIGHTS, create_user, plan_user

    with context.database().reading() as session:
        plan = plan_user(session, wanted)

    def permitted() -> None:
        with context.database().reading() as session:
            require_rights(missing_rights(session.connection(), RIGHTS))

    def create() -> Iterator[Sequence[Row]]:
        done = create_user(context.database(writable=True), wanted)
        yield [_created_row("created" if done.created else "unchanged", done.user)]

    planned = _planned(plan.wanted, plan.group_id, plan.wanted.group)
    if plan.existing is not None:
        planned = _created_row("unchanged", plan.existing)
    return _creation(context, planned, create, permitted)


def _plan_in_api(context: AppContext, wanted: NewUser) -> ItemChange:
    from aspencli.users.remote import API_ROLE, create_asked, plan_asked

    api = context.api()
    org = plan_asked(api, wanted)

    def create() -> Iterator[Sequence[Row]]:
        yield [_created_row("created", create_asked(api, wanted, org))]

    planned = _planned(replace(wanted, role=API_ROLE), org.id, org.name or str(org.id))
    return _creation(context, planned, create, api.users.check_create)


def _planned(wanted: NewUser, group_id: int, group: str) -> Row:
    fields = {column.key: getattr(wanted, column.key, None) for column in LIST_COLUMNS}
    groups = [{"id": group_id, "name": group, "roles": [wanted.role]}]
    return _created_row("create", {**fields, "groups": groups})


def _created_row(outcome: str, user: Row) -> Row:
    return {"status": outcome, **user, "outcome": outcome}


def _creation(
    context: AppContext,
    planned: Row,
    create: Callable[[], Iterable[Sequence[Row]]],
    permitted: Callable[[], None],
) -> ItemChange:
    from aspencli.cli.changes.execute import ItemChange

    right = " (system administrator)" if planned["system_admin"] else ""
    email, (group, *_) = planned["email"], planned["groups"]
    return ItemChange(
        context,
        f"create user {email}{right} in group {group['name']} as {group['roles'][0]}",
        CREATE_COLUMNS,
        [planned],
        create,
        done=f"Created user {email}.",
        reason=f"user {email} already exists and matches",
        single=True,
        shown=(LIST_COLUMNS[1:], [for_reading(planned)]),
        permitted=permitted,
    )


@app.command(epilog=examples("aspencli --env staging users me"))
@prints(ME_COLUMNS, row="aspencli.remote.types:Me")
def me(ctx: typer.Context) -> None:
    """Show your own account in the API, with your groups and roles."""
    context = current(ctx)
    context.announce(Backend.API)
    context.out.records(ME_COLUMNS, [_shown(context, {**context.api().users.me()})])


@dataclass(frozen=True, kw_only=True)
class OwnFields:
    """The options for the new values of one's own account."""

    name: Annotated[str | None, params.text_option("Display name.")] = None
    gisaid_submitter_id: Annotated[
        str | None, params.text_option("Your GISAID submitter id.", metavar="ID")
    ] = None
    agreed_to_tos: Annotated[
        bool | None,
        typer.Option(
            "--agreed-to-tos/--not-agreed-to-tos", help="Accept the terms of service, or not."
        ),
    ] = None
    acknowledged_policy_version: Annotated[
        dt.date | None,
        typer.Option(
            metavar="DATE",
            parser=params.parse_typed_day,
            help="Date of the privacy policy to acknowledge.",
        ),
    ] = None

    def checked(self) -> MeChange:
        """Return the changes.

        Raises:
            BadInputError: A value is invalid, or none was given.
        """
        wanted: MeChange = {}
        if self.name is not None:
            wanted["name"] = clean_name(self.name, "the name")
        if self.gisaid_submitter_id is not None:
            wanted["gisaid_submitter_id"] = clean_name(self.gisaid_submitter_id, "the GISAID id")
        if self.agreed_to_tos is not None:
            wanted["agreed_to_tos"] = self.agreed_to_tos
        if (version := self.acknowledged_policy_version) is not None:
            wanted["acknowledged_policy_version"] = version.isoformat()
        if not wanted:
            raise BadInputError("Nothing to update.", hint="See: aspencli users update-me --help")
        return wanted


@app.command("update-me", epilog=examples("aspencli users update-me --name 'Ada Love'"))
@expanded
@prints(UPDATE_ME_COLUMNS, row="aspencli.remote.types:Me")
def update_me(
    ctx: typer.Context,
    *,
    given: OwnFields,
    dry_run: params.DryRunOption = False,
) -> None:
    """Update your own account. Fields that are not given stay unchanged.

    A new name is also sent to the identity provider. If nothing changes, no request is sent.

    An undo file with the old values is saved first; `users undo` restores them through the API,
    which cannot empty a field again.
    """
    wanted = given.checked()
    context = current(ctx)
    context.announce(Backend.API)
    _change(context, wanted, dry_run=dry_run)


def _change(context: AppContext, wanted: MeChange, *, dry_run: bool) -> None:
    from aspencli.cli.changes.execute import ItemChange, execute
    from aspencli.cli.changes.own_account import save_own

    users = context.api().users
    before: Row = {**users.me()}
    changes = {key: value for key, value in wanted.items() if before[key] != value}
    words = "; ".join(f"{key} from {before[key]} to {value}" for key, value in changes.items())

    def update() -> Iterator[Sequence[Row]]:
        yield [_shown(context, {**users.update_me(wanted), "outcome": "updated"})]

    outcome = "update" if changes else "unchanged"
    change = ItemChange(
        context,
        f"update your own account ({words})",
        UPDATE_ME_COLUMNS,
        [_shown(context, {**before, **changes, "outcome": outcome})],
        update,
        done=f"Updated {words}.",
        single=True,
        save=partial(save_own, context, before, changes),
    )
    execute(change, dry_run=dry_run)


def _shown(context: AppContext, found: Row) -> Row:
    return for_reading(found) if context.out.chosen_form == "table" else found


def for_reading(user: Row) -> Row:
    """Return the user with groups and roles as text, for a table."""
    groups = (f"{group['name']} ({', '.join(group['roles'])})" for group in user["groups"])
    return {**user, "groups": ", ".join(groups)}


# What a list need not wait for, in the order of the help.

app.later_from("people:register_users", "onboard", "offboard")
app.later_from("bulk:register_users", "import", "undo")
app.later_from("users_edit:register", "update", "delete", "roles")
