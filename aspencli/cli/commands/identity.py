"""``aspencli identity``: compare and sync the identity provider with the database."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from aspencli.cli import params
from aspencli.cli.app import examples, expanded
from aspencli.cli.app import group as command_group
from aspencli.cli.changes.sync_rows import DIFF_COLUMNS, SYNC_COLUMNS, difference_row
from aspencli.cli.context import AppContext, current
from aspencli.cli.output.formats import prints
from aspencli.errors import AspenError, ConflictError, CredentialsError, RefusedError
from aspencli.identity.comparison import TITLES, Difference, Kind
from aspencli.identity.directory import OFFBOARDED
from aspencli.identity.limits import USUAL
from aspencli.identity.sync import PART_OF, Part, Source, blocked_by
from aspencli.text import counted

if TYPE_CHECKING:
    from aspen.identity.management import Management
    from aspencli.identity.directory import Directory
    from aspencli.identity.sync import Sides, Step
    from aspencli.remote.identity import IdentityProvider


app = command_group("Compare and sync people and groups with the identity provider.")

_DIFF_EXAMPLES = examples(
    "aspencli --env staging identity diff",
    "aspencli --env prod identity diff --only account --only user -o csv",
)
_SYNC_EXAMPLES = examples(
    "aspencli --env staging identity sync --source db --dry-run",
    "aspencli --env prod identity sync --source auth0 --no-sync-groups --confirm prod",
    "aspencli --env prod identity sync --source db --delete --max-changes 300 --confirm prod",
)


@app.command(epilog=_DIFF_EXAMPLES)
@prints(DIFF_COLUMNS)
def diff(
    ctx: typer.Context,
    only: Annotated[
        list[Kind] | None,
        typer.Option(
            "--only", metavar="KIND", help=f"Only this kind: {', '.join(Kind)}. Repeatable."
        ),
    ] = None,
    all_accounts: Annotated[
        bool,
        typer.Option(
            "--all-accounts", help="Also list accounts that belong to no organization of a group."
        ),
    ] = False,
    invitations: Annotated[
        bool, typer.Option("--invitations", help="Also list expired invitations.")
    ] = False,
) -> None:
    """Show the differences between the identity provider and the database.

    Compares organizations with groups, accounts with users, memberships, roles, names, and e-mail
    addresses. Everything is matched by the provider's ids, never by name. If there are differences,
    the exit code is 7.

    Takes one request for each 100 organizations, one for each organization with a group (more if it
    has over 100 members), and one for each 50 users who are in none of them. --all-accounts takes
    one for each 100 accounts of the tenant instead of the last, and --invitations one more for each
    organization.
    """
    context = current(ctx)
    wanted = frozenset(only or Kind)
    found = _compared(
        context,
        all_accounts=all_accounts,
        invitations=invitations or Kind.INVITATION in (only or ()),
    )
    differences = [one for one in found.differences if one.kind in wanted]
    _show(context, differences)
    found.tell(context)
    if not differences:
        return context.out.done("No differences.")
    numbers = _counts(one.kind for one in differences)
    context.out.info(f"{counted(len(differences), 'difference')}: {_listed(numbers)}.")
    raise typer.Exit(ConflictError.exit_code)


@dataclass(frozen=True, kw_only=True)
class PartOptions:
    """The options for the parts to sync."""

    sync_groups: Annotated[
        bool, typer.Option(help="Sync groups with organizations, and their names.")
    ] = True
    sync_users: Annotated[bool, typer.Option(help="Sync users with accounts.")] = True
    sync_memberships: Annotated[bool, typer.Option(help="Sync memberships, with their roles.")] = (
        True
    )
    sync_roles: Annotated[bool, typer.Option(help="Sync the roles of members.")] = True
    sync_user_attributes: Annotated[bool, typer.Option(help="Sync names and e-mail addresses.")] = (
        True
    )
    sync_invitations: Annotated[
        bool, typer.Option(help="Delete expired invitations (--source db).")
    ] = False

    def parts(self) -> list[Part]:
        """Return the parts."""
        switches = (
            *(self.sync_groups, self.sync_users, self.sync_memberships),
            *(self.sync_roles, self.sync_user_attributes, self.sync_invitations),
        )
        return [part for part, on in zip(Part, switches, strict=True) if on]


@dataclass(frozen=True, kw_only=True)
class PlanLimits:
    """The options for what a plan may do."""

    delete: Annotated[
        bool,
        typer.Option(
            "--delete",
            help="Delete what only the other side has. Requires --confirm with the target's name.",
        ),
    ] = False
    max_changes: Annotated[
        int, typer.Option(metavar="N", min=0, help="Refuse a plan with more changes than this.")
    ] = USUAL
    skip_protected: Annotated[
        bool,
        typer.Option(
            "--skip-protected",
            help="Skip changes that would take the last member or administrator from a group, "
            "instead of refusing the plan.",
        ),
    ] = False

    def checked(self, steps: list[Step], sides: Sides) -> tuple[list[Step], AspenError | None]:
        """Return the steps to take, and why they are refused, if they are."""
        from aspencli.identity.limits import check_number, losses, refusal, without_losses

        refused: AspenError | None = None
        if lost := losses(steps, sides):
            if self.skip_protected:
                steps = list(without_losses(steps, lost, sides))
            else:
                refused = refusal(lost, sides)
        try:
            check_number(steps, self.max_changes)
        except AspenError as error:
            refused = refused or error
        return steps, refused


@app.command(epilog=_SYNC_EXAMPLES)
@expanded
@prints(SYNC_COLUMNS)
def sync(
    ctx: typer.Context,
    source: Annotated[
        Source,
        typer.Option(
            "--source",
            metavar="SIDE",
            help="Side that is right: auth0 (write to the database) or db (write to the identity "
            "provider).",
        ),
    ],
    *,
    chosen: PartOptions,
    limits: PlanLimits,
    verification_mail: Annotated[
        bool,
        typer.Option(
            "--verification-mail",
            help="Have the provider mail new accounts and new addresses a link to verify them.",
        ),
    ] = False,
    dry_run: params.DryRunOption = False,
) -> None:
    """Make the identity provider equal to the database, or the database to the provider.

    The plan has the same rows as identity diff. Without --delete, nothing is deleted. A plan that
    has more changes than --max-changes, or that would leave a group without a member or without an
    administrator, is refused before anything is written.

    With --source auth0, the database is written in one transaction, and users undo reverts it.
    Organizations without a group are skipped, because a group needs a default tree location.

    With --source db, the provider is written one object at a time. Each object is read again and
    skipped if it has changed since the plan. After an interruption, run the command again. New
    accounts have a random password, and no mail is sent unless you ask for it.
    """
    from aspencli.cli.changes.execute import execute
    from aspencli.cli.changes.sync import SyncJob
    from aspencli.identity.sync import Sides, plan_sync

    context, parts = current(ctx), chosen.parts()
    found = _compared(context, invitations=chosen.sync_invitations)
    found.tell(context)
    found.require_same_deployment(context)
    blocked = _blocked(context, found, source, parts) if limits.delete else {}
    sides = Sides(found.provider, found.database, source, blocked)
    steps = plan_sync(found.differences, sides, parts, delete=limits.delete)
    steps, refused = limits.checked(steps, sides)
    if refused and not dry_run:
        raise refused
    job = SyncJob(context, _provider(context), sides, steps, verification_mail)
    execute(job.change(), dry_run=dry_run)
    if refused:
        raise refused


# Reading both sides


@dataclass(frozen=True)
class _Compared:
    """Both sides and their differences.

    Attributes:
        host: The host of the provider.
        provider: The identity provider.
        database: The database.
        differences: The differences.
        requests: The number of requests to the provider.
    """

    host: str
    provider: Directory
    database: Directory
    differences: list[Difference]
    requests: int

    def tell(self, context: AppContext) -> None:
        """Print what was compared, and what was not."""
        out, database = context.out, self.database
        groups, users = len(database.groups), len(database.people)
        out.info(
            f"Compared {counted(groups, 'group')} and {counted(users, 'user')} of "
            f"{context.target.label} with {self.host} ({counted(self.requests, 'request')})."
        )
        self._tell_left_out(context)
        if self.provider.roles and not any(self.provider.roles.values()):
            out.warn(
                f"No member has a role at {self.host}. The management client may lack the scope "
                "read:organization_member_roles."
            )

    def _tell_left_out(self, context: AppContext) -> None:
        out, database = context.out, self.database
        gone = sum(key.startswith(OFFBOARDED) for key in database.outsiders)
        if others := len(database.outsiders) - gone:
            out.info(
                f"Note: not compared: {counted(others, 'user')} of other identity "
                "providers, whose ids do not begin with auth0|."
            )
        if gone:
            out.info(f"Note: not compared: {counted(gone, 'offboarded user')}.")
        if others := len(self.provider.outsiders):
            out.info(
                f"Note: not compared: {counted(others, 'member')} of organizations "
                "with accounts of other identity providers."
            )

    def require_same_deployment(self, context: AppContext) -> None:
        """Check that the provider and the database belong together.

        Raises:
            RefusedError: They have no group in common, although both have groups.
        """
        there, here = self.provider.groups, self.database.groups
        if there and here and not there.keys() & here.keys():
            raise RefusedError(
                f"No group of {context.target.label} has an organization at {self.host}, and no "
                f"organization there has a group: {self.host} seems to belong to another "
                "deployment. Nothing was written.",
                hint="Check --env, and the variables AUTH0_MANAGEMENT_DOMAIN, _CLIENT_ID, and "
                "_CLIENT_SECRET, which take precedence over the target's secret.",
            )


def _provider(context: AppContext) -> IdentityProvider:
    """Return the target's identity provider.

    Raises:
        CredentialsError: There are no credentials for it.
    """
    if context.identity is None:
        raise CredentialsError(
            f"No credentials for the identity provider of {context.target.label}.",
            hint="Set AUTH0_MANAGEMENT_DOMAIN, AUTH0_MANAGEMENT_CLIENT_ID, and "
            "AUTH0_MANAGEMENT_CLIENT_SECRET, or secret_name for the target.",
        )
    return context.identity


def _compared(
    context: AppContext, *, all_accounts: bool = False, invitations: bool = False
) -> _Compared:
    database = context.database(early=True)
    from aspencli.identity.comparison import compare
    from aspencli.identity.listing import database_side, provider_side

    provider = _provider(context)
    with database.connected(transaction=True) as reader:
        here = database_side(reader)
    requests = 0

    with context.out.progress("Reading organizations", len(here.groups)) as tick:

        async def read(management: Management) -> Directory:
            nonlocal requests
            found = await provider_side(
                management, here, all_accounts=all_accounts, invitations=invitations, tick=tick
            )
            requests = management.pace.sent if management.pace else 0
            return found

        there = provider.run(read)
    differences = compare(there, here, dt.datetime.now(dt.UTC))
    return _Compared(provider.host, there, here, differences, requests)


def _blocked(
    context: AppContext, found: _Compared, source: Source, parts: Sequence[Part]
) -> Mapping[str, str]:
    """Return why objects that only the target has cannot be deleted, by key."""
    kinds = {kind for kind in Kind if PART_OF[kind] in parts}
    chosen = [one for one in found.differences if one.kind in kinds]
    if source is Source.DB:
        from aspencli.identity.sync_provider import occupied

        keys = [one.group.key for one in chosen if one.kind is Kind.ORGANIZATION and one.group]
        return _provider(context).run(lambda management: occupied(management, keys))
    from aspencli.identity.references import uses_of_groups, uses_of_users

    groups = {one.group.id: one.group.key for one in chosen if one.kind is Kind.GROUP and one.group}
    users = {
        one.person.id: one.person.key for one in chosen if one.kind is Kind.USER and one.person
    }
    with context.database().connected(transaction=True) as reader:
        of_groups = uses_of_groups(reader, [id_ for id_ in groups if id_])
        of_users = uses_of_users(reader, [id_ for id_ in users if id_])
    return {
        **{groups[id_]: blocked_by(uses) for id_, uses in of_groups.items()},
        **{users[id_]: blocked_by(uses) for id_, uses in of_users.items()},
    }


# Showing differences


def _show(context: AppContext, differences: Sequence[Difference]) -> None:
    """Show the differences; in a table, each kind below a heading with its number."""
    out = context.out
    rows = [difference_row(one) for one in differences]
    if not out.has_layout:
        return out.rows(DIFF_COLUMNS, rows)
    for kind, number in _counts(one.kind for one in differences).items():
        some = [row for row in rows if row["kind"] == kind.value]
        used = tuple(c for c in DIFF_COLUMNS[1:] if any(row[c.key] is not None for row in some))
        out.text(out.styled("strong", f"{TITLES[kind]} ({number:,})"))
        out.rows(used, some)
        out.text("")
    return None


def _counts(kinds: Iterable[Kind]) -> dict[Kind, int]:
    """Return the number of each kind, in the order of the first of each."""
    found: dict[Kind, int] = {}
    for kind in kinds:
        found[kind] = found.get(kind, 0) + 1
    return found


def _listed(numbers: Mapping[Kind, int]) -> str:
    return ", ".join(f"{TITLES[kind].lower()}: {number:,}" for kind, number in numbers.items())
