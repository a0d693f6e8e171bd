"""``aspencli users update``, ``roles``, and ``delete``: changes of one user on both sides."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aspencli.cli import params
from aspencli.cli.app import examples, expanded
from aspencli.cli.app import group as command_group
from aspencli.cli.changes.two_sided import (
    CHANGE_COLUMNS,
    AllowNoAdmin,
    DatabaseOnly,
    SideOptions,
    ViaDatabase,
    chosen_provider,
    left_over,
    require_database,
    run_change,
    suggesting_database_only,
    user_key,
)
from aspencli.cli.context import current
from aspencli.cli.output.formats import Column, prints
from aspencli.errors import BadInputError, NotFoundError
from aspencli.text import clean_email, clean_name

if TYPE_CHECKING:
    from aspen.database.sessions import Reader
    from aspencli.identity.apply import Planner

roles_app = command_group("List, add, and remove the roles of a user in groups.")

ROLE_COLUMNS = (
    Column("group_id", "Group id", right=True, whole=True, of=int),
    Column("group", "Group", of=str),
    Column("prefix", "Prefix", secondary=True, of=str),
    Column("role", "Role", whole=True, of=str),
    Column("in_database", "In the database", of=bool),
    Column("at_provider", "At the identity provider", of=bool | None),
)
_ME = "Your own name and GISAID id: aspencli users update-me."
_MEMBERS = "It can only invite people: aspencli groups invite."
_UPDATE_EXAMPLES = examples(
    "aspencli --env staging users update ada@lab.example.org --email ada@example.org --dry-run",
    "aspencli --env prod users update 12 --system-admin --confirm prod",
)
_ADD_EXAMPLES = examples(
    "aspencli users roles add ada@lab.example.org --group CZI --role admin --replace"
)
_REMOVE_EXAMPLES = examples("aspencli users roles remove ada@lab.example.org --group CZI")
_DELETE_EXAMPLES = examples(
    "aspencli --env staging users delete ada@lab.example.org --account --dry-run"
)


class Clearable(StrEnum):
    """The fields of a user that can be empty."""

    GISAID = "gisaid-submitter-id"


def register(app: typer.Typer) -> None:
    """Add the commands to the group ``users``."""
    app.command(epilog=_UPDATE_EXAMPLES)(update)
    app.command(epilog=_DELETE_EXAMPLES)(delete)
    app.add_typer(roles_app, name="roles")


@dataclass(frozen=True, kw_only=True)
class UserFields:
    """The options for the new values of a user."""

    name: Annotated[str | None, params.text_option("Display name.")] = None
    email: Annotated[
        str | None,
        params.text_option("E-mail address, unique among users.", metavar="ADDRESS"),
    ] = None
    email_verified: Annotated[
        bool,
        typer.Option(
            "--email-verified",
            help="The address is known to be the user's: send no message to verify it.",
        ),
    ] = False
    system_admin: Annotated[
        bool | None,
        typer.Option(
            "--system-admin/--no-system-admin",
            help="Make the user a system administrator, or end that.",
        ),
    ] = None
    gisaid_submitter_id: Annotated[
        str | None, params.text_option("GISAID submitter id.", metavar="ID")
    ] = None
    clear: Annotated[
        list[Clearable] | None,
        typer.Option("--clear", help="Field to empty. Can be repeated."),
    ] = None

    def checked(self) -> dict[str, Any]:
        """Return the changes by column.

        Raises:
            BadInputError: A value is invalid, options contradict each other, or none was given.
        """
        wanted = self._values()
        params.clear_fields(wanted, self.clear)
        if self.email_verified and self.email is None:
            raise BadInputError(
                "--email-verified needs --email.", hint="Give the address that is verified."
            )
        if not wanted:
            raise BadInputError("Nothing to update.", hint="See: aspencli users update --help")
        return wanted

    def _values(self) -> dict[str, Any]:
        given = {"name": self.name, "gisaid_submitter_id": self.gisaid_submitter_id}
        labels = {"name": "the name", "gisaid_submitter_id": "the GISAID id"}
        wanted: dict[str, Any] = {
            field: clean_name(text, labels[field])
            for field, text in given.items()
            if text is not None
        }
        if self.email is not None:
            wanted["email"] = clean_email(self.email)
        if self.system_admin is not None:
            wanted["system_admin"] = self.system_admin
        return wanted


@expanded
@prints(CHANGE_COLUMNS)
def update(
    ctx: typer.Context,
    key: Annotated[str, user_key()],
    *,
    given: UserFields,
    allow_no_admin: AllowNoAdmin = False,
    sides: SideOptions,
) -> None:
    """Update a user. Fields that are not given stay unchanged.

    The name and the e-mail address also change at the identity provider, if the target has
    credentials for it: both sides change, or neither. The user signs in with the new address, and
    receives a message there to verify it. The last system administrator keeps that right.

    An undo file with the old values is saved first; `users undo` restores them on both sides. If
    the command is interrupted, run it again: it completes what is missing.
    """
    wanted = given.checked()
    context = current(ctx)
    require_database(context, sides.via, "update other users", _ME)
    provider = chosen_provider(context, database_only=sides.database_only)

    def make(reader: Reader) -> tuple[Planner, str]:
        from aspencli.identity.user_plans import UserUpdate
        from aspencli.users.database import find_user

        user = find_user(reader, key)
        planner = UserUpdate(
            user.id,
            provider,
            sides.database_only,
            allow_no_admin,
            wanted,
            given.email_verified,
        )
        return planner, f"user {user.email} ({', '.join(wanted)})"

    run_change(
        context,
        "users",
        make,
        verb="update",
        past="Updated",
        dry_run=sides.dry_run,
        reason="the user already has these values",
        undo_file=sides.undo_file,
    )


@roles_app.command("list", epilog=examples("aspencli users roles list ada@lab.example.org"))
@prints(ROLE_COLUMNS)
def list_roles(
    ctx: typer.Context,
    key: Annotated[str, user_key()],
    group: Annotated[str | None, params.group_option("Only this group.", "--group")] = None,
    database_only: Annotated[
        bool, typer.Option("--database-only", help="Do not ask the identity provider.")
    ] = False,
) -> None:
    """List the roles of a user, in the database and at the identity provider.

    Without credentials for the identity provider, its column is empty. At each sign-in the service
    makes the roles in the database equal to those at the provider.
    """
    context = current(ctx)
    from aspencli.identity.user_plans import list_user_roles
    from aspencli.reference.database import find_group
    from aspencli.users.database import find_user

    provider = chosen_provider(context, database_only=database_only)
    with suggesting_database_only(), context.database().connected(transaction=True) as reader:
        user = find_user(reader, key)
        only = None if group is None else find_group(reader, group).id
        rows = list_user_roles(reader, user, provider)
    rows = [row for row in rows if only in {None, row["group_id"]}]
    context.out.rows(ROLE_COLUMNS, rows, empty="No roles found.")


@roles_app.command("add", epilog=_ADD_EXAMPLES)
@expanded
@prints(CHANGE_COLUMNS)
def add_role(
    ctx: typer.Context,
    key: Annotated[str, user_key()],
    group: Annotated[str, params.group_option("Group.", "--group", "--group-id")],
    role: Annotated[
        str,
        params.text_option("Role: admin, member, or viewer.", metavar="NAME", what="the role"),
    ],
    replace: Annotated[
        bool, typer.Option("--replace", help="Take away the user's other roles in the group.")
    ] = False,
    allow_no_admin: AllowNoAdmin = False,
    *,
    sides: SideOptions,
) -> None:
    """Give a user a role in a group, in the database and at the identity provider.

    The user becomes a member of the group's organization at the provider. A user has one role in a
    group: to change it, add --replace.

    Without credentials for the provider, this is refused, because the next sign-in would undo it.
    `users undo` reverts this.
    """
    context = current(ctx)
    require_database(context, sides.via, "change the roles of a member", _MEMBERS)
    provider = chosen_provider(context, database_only=sides.database_only)

    def make(reader: Reader) -> tuple[Planner, str]:
        from aspencli.identity.user_plans import RoleAddition, group_refs
        from aspencli.reference.database import find_group, find_role
        from aspencli.users.database import find_user

        user, found = find_user(reader, key), find_group(reader, group)
        name = find_role(reader, role).name
        planner = RoleAddition(
            user.id,
            provider,
            sides.database_only,
            allow_no_admin,
            group_refs(reader, [found.id])[found.id],
            name,
            replace,
        )
        return planner, f"{user.email} the role {name} in group {found.name}"

    run_change(
        context,
        "users",
        make,
        verb="give",
        past="Gave",
        dry_run=sides.dry_run,
        reason="the user already has that role",
        undo_file=sides.undo_file,
    )


@roles_app.command("remove", epilog=_REMOVE_EXAMPLES)
@expanded
@prints(CHANGE_COLUMNS)
def remove_role(
    ctx: typer.Context,
    key: Annotated[str, user_key()],
    group: Annotated[str, params.group_option("Group.", "--group", "--group-id")],
    role: Annotated[
        str | None,
        params.text_option(
            "Role to remove. Default: every role in the group.", metavar="NAME", what="the role"
        ),
    ] = None,
    allow_no_admin: AllowNoAdmin = False,
    *,
    sides: SideOptions,
) -> None:
    """Remove a user's roles in a group, in the database and at the identity provider.

    With the last role, the user also leaves the group's organization at the provider, and open
    invitations to it are deleted. The last administrator of a group stays, unless --allow-no-admin
    is given.

    Without credentials for the provider, this is refused, because the next sign-in would undo it.
    `users undo` reverts this.
    """
    context = current(ctx)
    require_database(context, sides.via, "change the roles of a member", _MEMBERS)
    provider = chosen_provider(context, database_only=sides.database_only)

    def make(reader: Reader) -> tuple[Planner, str]:
        from aspencli.identity.user_plans import RoleRemoval, group_refs
        from aspencli.reference.database import find_group, find_role
        from aspencli.users.database import find_user

        user, found = find_user(reader, key), find_group(reader, group)
        name = None if role is None else find_role(reader, role).name
        planner = RoleRemoval(
            user.id,
            provider,
            sides.database_only,
            allow_no_admin,
            group_refs(reader, [found.id])[found.id],
            name,
        )
        what = "all roles" if name is None else f"the role {name}"
        return planner, f"{what} of {user.email} in group {found.name}"

    run_change(
        context,
        "users",
        make,
        verb="remove",
        past="Removed",
        dry_run=sides.dry_run,
        reason="the user has no such role there",
        undo_file=sides.undo_file,
    )


@prints(CHANGE_COLUMNS)
def delete(
    ctx: typer.Context,
    key: Annotated[str, user_key()],
    account: Annotated[
        bool,
        typer.Option(
            "--account", help="Also delete the account at the identity provider, permanently."
        ),
    ] = False,
    allow_no_admin: AllowNoAdmin = False,
    database_only: DatabaseOnly = False,
    via: ViaDatabase = None,
    dry_run: params.DryRunOption = False,
) -> None:
    """Delete a user with all roles, and memberships and invitations at the identity provider.

    A user who uploaded samples, started phylo runs, or is referenced otherwise is not deleted;
    everything that refers to the user is listed. To take away the access of such a user, use
    `users offboard`.

    The account at the identity provider stays, unless --account is given. `users undo` restores the
    user with roles and memberships. A deleted account cannot be restored, so with --account nothing
    can be undone.
    """
    context = current(ctx)
    require_database(context, via, "delete users", "Use the database.")
    if account and database_only:
        raise BadInputError(
            "--account and --database-only contradict each other.", hint="Pass one of them."
        )
    provider = chosen_provider(context, database_only=database_only)

    def make(reader: Reader) -> tuple[Planner, str]:
        from aspencli.identity.user_plans import AccountDeletion, UserDeletion
        from aspencli.users.database import find_user

        try:
            user = find_user(reader, key)
        except NotFoundError:
            there = left_over(context, "users delete", key)
            if not account or there is None or provider is None:
                raise
            return AccountDeletion(there, provider), f"account {there}, which belongs to no user"
        planner = UserDeletion(user.id, provider, database_only, allow_no_admin, account)
        more = " and the account at the identity provider" if account else ""
        return planner, f"user {user.email}{more}"

    run_change(context, "users", make, verb="delete", past="Deleted", dry_run=dry_run)
