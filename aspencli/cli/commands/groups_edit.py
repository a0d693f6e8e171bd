"""``aspencli groups update``, ``archive``, and ``delete``: changes of one group on both sides."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aspencli.cli import params
from aspencli.cli.app import examples, expanded
from aspencli.cli.changes.two_sided import (
    CHANGE_COLUMNS,
    DatabaseOnly,
    SideOptions,
    ViaDatabase,
    chosen_provider,
    group_key,
    left_over,
    require_database,
    run_change,
)
from aspencli.cli.context import current
from aspencli.cli.output.formats import prints
from aspencli.errors import BadInputError, NotFoundError

if TYPE_CHECKING:
    from aspen.database.sessions import Reader
    from aspencli.identity.apply import Planner

_DATABASE = "Use the database."
_UPDATE_EXAMPLES = examples(
    "aspencli --env staging groups update LAKE --name 'Lake County Public Health' --dry-run",
    "aspencli groups update LAKE --address '1 Shore Road, Lakeport' --clear division",
)
_ARCHIVE_EXAMPLES = examples("aspencli --env staging groups archive LAKE --dry-run")
_DELETE_EXAMPLES = examples("aspencli --env staging groups delete LAKE --dry-run")


class Clearable(StrEnum):
    """The fields of a group that can be empty."""

    ADDRESS = "address"
    DIVISION = "division"
    LOCATION = "location"
    SUBMITTING_LAB = "submitting-lab"


def register(app: typer.Typer) -> None:
    """Add the commands to the group ``groups``."""
    app.command(epilog=_UPDATE_EXAMPLES)(update)
    app.command(epilog=_ARCHIVE_EXAMPLES)(archive)
    app.command(epilog=_DELETE_EXAMPLES)(delete)


@dataclass(frozen=True, kw_only=True)
class GroupFields:
    """The options for the new values of a group, without its address."""

    name: Annotated[str | None, params.GROUP_NAME] = None
    prefix: Annotated[str | None, params.GROUP_PREFIX] = None
    default_tree_location: Annotated[str | None, params.DEFAULT_TREE_LOCATION] = None
    submitting_lab: Annotated[
        str | None,
        params.text_option("Laboratory that submits its samples: 3 to 128 characters."),
    ] = None

    def checked(self, address: params.AddressOptions) -> dict[str, Any]:
        """Return the changes by column, without the location of trees.

        Raises:
            BadInputError: A value is invalid.
        """
        from aspencli.users.bulk import GROUP_CHANGES

        given = {
            "name": self.name,
            "prefix": self.prefix,
            "submitting_lab": self.submitting_lab,
            **vars(address),
        }
        wanted: dict[str, Any] = {}
        for field, text in given.items():
            if text is None:
                continue
            value, flaw = GROUP_CHANGES.fields[field].understand(text.strip())
            if flaw:
                raise BadInputError(
                    f"--{field.replace('_', '-')} {flaw}", hint="Use a different value."
                )
            wanted[field] = value
        return wanted


@expanded
@prints(CHANGE_COLUMNS)
def update(
    ctx: typer.Context,
    key: Annotated[str, group_key()],
    *,
    given: GroupFields,
    address: params.AddressOptions,
    clear: Annotated[
        list[Clearable] | None,
        typer.Option("--clear", help="Field to empty. Can be repeated."),
    ] = None,
    sides: SideOptions,
) -> None:
    """Update a group. Fields that are not given stay unchanged.

    A new name also becomes the display name of the group's organization at the identity provider,
    and a new prefix part of the organization's name, if the target has credentials for it: both
    sides change, or neither. Identifiers and tree files that exist already keep the old prefix.

    An undo file with the old values is saved first; `groups undo` restores them on both sides. If
    the command is interrupted, run it again: it completes what is missing.
    """
    wanted = given.checked(address)
    params.clear_fields(wanted, clear)
    if not wanted and given.default_tree_location is None:
        raise BadInputError("Nothing to update.", hint="See: aspencli groups update --help")
    context = current(ctx)
    require_database(context, sides.via, "update groups", _DATABASE)
    provider = chosen_provider(context, database_only=sides.database_only)

    def make(reader: Reader) -> tuple[Planner, str]:
        from aspencli.identity.group_plans import GroupUpdate
        from aspencli.reference.database import find_group, find_location

        group = find_group(reader, key)
        if given.default_tree_location is not None:
            place = find_location(reader, given.default_tree_location)
            wanted["default_tree_location_id"] = place.id
        planner = GroupUpdate(group.id, provider, sides.database_only, wanted)
        return planner, f"group {group.name} ({', '.join(wanted)})"

    run_change(
        context,
        "groups",
        make,
        verb="update",
        past="Updated",
        dry_run=sides.dry_run,
        reason="the group already has these values",
        undo_file=sides.undo_file,
    )


@expanded
@prints(CHANGE_COLUMNS)
def archive(
    ctx: typer.Context,
    key: Annotated[str, group_key()],
    *,
    sides: SideOptions,
) -> None:
    """Take away all access to a group, and keep its samples and trees.

    Removes every role in the group, every membership in its organization at the identity provider,
    and every invitation to it. The group, its organization, its samples, runs, and trees stay, and
    so do the users and the roles of other groups. There is no mark for an archived group: it is a
    group without members. To use it again, undo this, or invite people.

    An undo file is saved first; `groups undo` restores roles and memberships, but no invitations.
    Without credentials for the provider, this is refused, because the next sign-in would undo it.
    """
    context = current(ctx)
    require_database(context, sides.via, "remove members", _DATABASE)
    provider = chosen_provider(context, database_only=sides.database_only)

    def make(reader: Reader) -> tuple[Planner, str]:
        from aspencli.identity.group_plans import GroupArchiving
        from aspencli.reference.database import find_group

        group = find_group(reader, key)
        return GroupArchiving(group.id, provider, sides.database_only), f"group {group.name}"

    run_change(
        context,
        "groups",
        make,
        verb="archive",
        past="Archived",
        dry_run=sides.dry_run,
        reason="the group has no members and no invitations",
        undo_file=sides.undo_file,
    )


@prints(CHANGE_COLUMNS)
def delete(
    ctx: typer.Context,
    key: Annotated[
        str,
        typer.Argument(
            metavar="ID|NAME|PREFIX|ORGANIZATION",
            help="Group id, name, or prefix; or the id of an organization that has no group.",
            callback=params.checked("the group"),
        ),
    ],
    database_only: DatabaseOnly = False,
    via: ViaDatabase = None,
    dry_run: params.DryRunOption = False,
) -> None:
    """Delete a group that has no data and no members, and its organization.

    A group with samples, runs, trees, members, or roles that other groups have in it (or it in
    them) is not deleted; everything that refers to it is listed. To take away all access and keep
    the data, use `groups archive`.

    The organization at the identity provider is deleted last, after the group, with its
    invitations. If that fails, run the command again. This cannot be undone.
    """
    context = current(ctx)
    require_database(context, via, "delete groups", _DATABASE)
    provider = chosen_provider(context, database_only=database_only)

    def make(reader: Reader) -> tuple[Planner, str]:
        from aspencli.identity.group_plans import GroupDeletion, OrganizationDeletion
        from aspencli.reference.database import find_group

        try:
            group = find_group(reader, key)
        except NotFoundError:
            there = left_over(context, "groups delete", key)
            if there is None or provider is None:
                raise
            what = f"organization {there}, which belongs to no group"
            return OrganizationDeletion(there, provider), what
        planner = GroupDeletion(group.id, provider, database_only)
        return planner, f"group {group.name}"

    run_change(context, "groups", make, verb="delete", past="Deleted", dry_run=dry_run)
