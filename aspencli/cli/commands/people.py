"""``users onboard``, ``users offboard``, and ``groups onboard``: both sides with one command.

They need credentials for the identity provider's Management API, which come from the environment,
from the target's secret, or from the local deployment.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aspencli.cli import params
from aspencli.cli.app import examples, expanded
from aspencli.cli.changes import options
from aspencli.cli.context import AppContext, current
from aspencli.cli.output.formats import prints
from aspencli.errors import BadInputError, CredentialsError, RefusedError
from aspencli.tabular.source import STDIN
from aspencli.text import counted

if TYPE_CHECKING:
    from aspencli.cli.changes.execute import ItemChange
    from aspencli.identity.people import Access, WantedPerson
    from aspencli.remote.identity import IdentityProvider
    from aspencli.tabular.table import Fault

_INVITER = "The CZ GEN EPI team"
_LEFT_TO_THEM = (
    "Left to each of them: open the e-mail, sign up or sign in, and so accept the invitation. "
    "The service adds the user and the role at the first sign-in."
)
_SHOWN = 20  # problems of a file
_ROLE = "member"
_ONBOARD_EXAMPLES = examples(
    "aspencli --env staging users onboard ada@lab.example.org --name 'Ada Love' --group CZI",
    "aspencli --env prod users onboard --file people.csv --dry-run",
)
_OFFBOARD_EXAMPLES = examples(
    "aspencli --env staging users offboard ada@lab.example.org",
    "aspencli --env prod users offboard 17 --block-account",
)
_GROUP_EXAMPLES = examples(
    "aspencli --env staging groups onboard --name 'Lake County' --prefix LAKE "
    "--default-tree-location 'North America / USA / California' "
    "--admin ada@lab.example.org --admin-name 'Ada Love'"
)


def register_users(app: typer.Typer) -> None:
    """Add the commands to the group ``users``."""
    app.command(epilog=_ONBOARD_EXAMPLES)(onboard)
    app.command(epilog=_OFFBOARD_EXAMPLES)(offboard)


def register_groups(app: typer.Typer) -> None:
    """Add the command to the group ``groups``."""
    app.command("onboard", epilog=_GROUP_EXAMPLES)(onboard_group)


@dataclass(frozen=True, kw_only=True)
class WayIn:
    """The options for the way in that people get."""

    invite: Annotated[
        bool,
        typer.Option("--invite", help="Have the identity provider e-mail an invitation (default)."),
    ] = False
    ticket: Annotated[
        bool,
        typer.Option(
            "--ticket",
            help="Send no e-mail; show a link to set a password, once and only on a terminal.",
        ),
    ] = False
    inviter: Annotated[
        str,
        params.text_option(
            "Name in the invitation that tells who invites.", metavar="NAME", what="the inviter"
        ),
    ] = _INVITER


@dataclass(frozen=True, kw_only=True)
class PeopleOptions:
    """The people to onboard: one, or those of a table."""

    email: Annotated[
        str | None,
        typer.Argument(metavar="[EMAIL]", help="E-mail address of one person.", show_default=False),
    ] = None
    file: Annotated[
        str | None,
        params.text_option(
            "Table (CSV, TSV, or .xlsx) with the columns email, name, group, and role; - for "
            "stdin.",
            metavar="FILE",
        ),
    ] = None
    name: Annotated[
        str | None, params.text_option("Display name; not needed for someone who exists.")
    ] = None
    group: Annotated[
        str | None,
        params.group_option("Group to add people to. Default: --org.", "--group", "--group-id"),
    ] = None
    role: Annotated[
        str | None,
        params.text_option(
            f"Role in the group: admin, member, or viewer. Default: {_ROLE}.",
            metavar="NAME",
            what="the role",
        ),
    ] = None

    def wanted(self, context: AppContext, reading: options.ReadingOptions) -> list[WantedPerson]:
        """Return the people.

        Raises:
            BadInputError: Options contradict each other, or a person's data is invalid.
        """
        from aspencli.identity.people import checked_role

        group = params.chosen_group(context, self.group)
        if (self.email is None) == (self.file is None):
            raise BadInputError(
                "Missing an e-mail address or --file."
                if self.file is None
                else "An e-mail address and --file cannot be combined.",
                hint="Pass the address of one person, or --file FILE for several.",
            )
        role = _ROLE if self.role is None else checked_role(self.role)
        if self.file is None:
            return [_person(self.email or "", self.name, group, role)]
        if self.name is not None:
            raise BadInputError(
                "--name and --file cannot be combined.", hint="Put names in the column name."
            )
        return _read_file(context, self.file, reading, group, role)


@expanded
@prints("aspencli.cli.changes.people:PEOPLE_COLUMNS", "aspencli.cli.invitations:COLUMNS")
def onboard(
    ctx: typer.Context,
    *,
    people: PeopleOptions,
    unblock_account: Annotated[
        bool, typer.Option("--unblock-account", help="Unblock the account if it is blocked.")
    ] = False,
    dry_run: params.DryRunOption = False,
    way_in: WayIn,
    reading: options.ReadingOptions,
) -> None:
    """Onboard people: account, membership, and role at the identity provider, and the user here.

    Shows what exists on both sides, and adds what is missing. Someone who is complete stays
    unchanged, so the command can be run again, also after an interruption. If a step fails, what
    was created for that person is reverted, unless someone has used it since.

    New people get an e-mail with an invitation, unless one is still open. With --ticket, they get
    none; pass on the link that is shown.

    Without credentials for the identity provider, people are only invited through the API.
    """
    from aspencli.cli.changes.execute import execute

    context = current(ctx)
    access = _access(context, way_in, dry_run=dry_run)
    wanted = people.wanted(context, reading)
    if context.identity is None:
        change = _invitations(context, wanted, access)
    else:
        from aspencli.cli.changes.people import OnboardingJob, people_change
        from aspencli.cli.context import Backend

        context.announce(Backend.DB)
        job = OnboardingJob(
            context, context.identity, wanted, access, way_in.inviter, unblock_account
        )
        path = Path(people.file) if people.file not in {None, STDIN} else None
        change = people_change(job, path, is_list=people.file is not None)
    change.stdin = "list of people" if people.file == STDIN else ""
    execute(change, dry_run=dry_run)


def _access(context: AppContext, way_in: WayIn, *, dry_run: bool) -> Access:
    from aspencli.identity.people import Access

    if way_in.invite and way_in.ticket:
        raise BadInputError("--invite and --ticket cannot be combined.", hint="Pass one of them.")
    if not way_in.ticket:
        return Access.INVITATION
    if not (dry_run or context.out.err.isatty()):
        raise RefusedError(
            "A password link is shown only on a terminal, because it must not be stored; nothing "
            "was written.",
            hint="Run the command in a terminal, or leave out --ticket to send an e-mail.",
        )
    return Access.LINK


def _person(email: str, name: str | None, group: str | None, role: str) -> WantedPerson:
    from aspencli.identity.people import WantedPerson

    if group is None:
        raise BadInputError(
            "No group was given.", hint="Pass --group with an id, name, or prefix, or set CZGE_ORG."
        )
    return WantedPerson.checked(email=email, name=name, group=group, role=role)


def _read_file(
    context: AppContext,
    path: str,
    reading: options.ReadingOptions,
    group: str | None,
    role: str,
) -> list[WantedPerson]:
    from aspencli.cli.changes import runner
    from aspencli.identity.people_file import read_people
    from aspencli.tabular.table import NO_TEMPLATE

    names = runner.chosen_names(context, reading.names)
    defaults = {"role": role, **({} if group is None else {"group": group})}
    faults: list[Fault] = []
    with runner.opened_table(context, path, reading, NO_TEMPLATE) as (source, said):
        found = read_people(source, faults.append, names=names, defaults=defaults)
        runner.print_notes(context.out, source, said)
    if faults:
        raise _report_faults(context, faults)
    if not found:
        raise BadInputError(f"{path} contains no people.", hint="Check the file.")
    return found


def _report_faults(context: AppContext, faults: Sequence[Fault]) -> BadInputError:
    """List the problems of a file, and return the error about them."""
    for fault in faults[:_SHOWN]:
        column = f"{fault.column}: " if fault.column else ""
        context.out.info(f"line {fault.line}: {column}{fault.reason}")
    if len(faults) > _SHOWN:
        context.out.info(f"... and {len(faults) - _SHOWN:,} more")
    return BadInputError(
        f"{counted(len(faults), 'problem')} found; nothing was written.",
        hint="Fix the problems listed above, then run the command again.",
    )


def _invitations(context: AppContext, wanted: list[WantedPerson], access: Access) -> ItemChange:
    """Return the invitations through the API, for a target without management credentials."""
    from aspencli.cli.context import Backend
    from aspencli.cli.invitations import invitations_change, plan_invitations
    from aspencli.identity.people import Access
    from aspencli.reference.remote import find_org

    if access is Access.LINK:
        raise _no_credentials(context, "create a password link")
    context.announce(Backend.API)
    context.out.warn(
        "There are no management credentials for this target, so people are only invited, through "
        "the API."
    )
    emails: dict[tuple[str, str], list[str]] = defaultdict(list)
    for one in wanted:
        emails[one.group, one.role].append(one.email)
    plans = [
        plan_invitations(context, find_org(context.api(), group), role, some)
        for (group, role), some in emails.items()
    ]
    members = context.command("groups", "members", str(plans[0].org.id))
    return invitations_change(context, plans, f"{_LEFT_TO_THEM} Check then: {members}")


def _no_credentials(context: AppContext, what: str) -> CredentialsError:
    return CredentialsError(
        f"Cannot {what}: there are no management credentials for {context.target.label}.",
        hint="Set AUTH0_MANAGEMENT_DOMAIN, AUTH0_MANAGEMENT_CLIENT_ID, and "
        "AUTH0_MANAGEMENT_CLIENT_SECRET, or the target's secret_name.",
    )


def explain_onboarding(
    context: AppContext, *, email: str, name: str, group: str, role: str
) -> None:
    """Show what onboarding would do for a person whose account ID was not given.

    Raises:
        BadInputError: Always.
    """
    wanted = _person(email, name, group, role.lower())
    words = ("users", "onboard", wanted.email, "--name", name, "--group", group, "--role", role)
    _preview_onboarding(context, wanted)
    raise BadInputError(
        "Missing --auth0-user-id, the id of an existing account; nothing was written.",
        hint="To create the account, its membership, and the user together: "
        + context.command(*words),
    )


def _preview_onboarding(context: AppContext, wanted: WantedPerson) -> None:
    from aspencli.errors import AspenError
    from aspencli.identity.people import Access

    try:
        if (provider := context.identity) is not None:
            from aspencli.cli.changes.people import OnboardingJob, people_change

            job = OnboardingJob(context, provider, [wanted], Access.INVITATION, _INVITER)
            change = people_change(job)
            context.out.info("Onboarding this person would do the following:")
            change.preview()
            change.explain()
    except AspenError as error:
        context.out.info(f"What onboarding would do is not known: {error.message}")


# Offboarding


@prints("aspencli.cli.changes.people:OFFBOARD_COLUMNS")
def offboard(
    ctx: typer.Context,
    key: Annotated[
        str,
        typer.Argument(
            metavar="ID|EMAIL|AUTH0_ID",
            help="User id, e-mail address, or Auth0 id.",
            callback=params.checked("the user"),
        ),
    ],
    block_account: Annotated[
        bool, typer.Option("--block-account", help="Also block the account.")
    ] = False,
    delete_account: Annotated[
        bool, typer.Option("--delete-account", help="Also delete the account, permanently.")
    ] = False,
    dry_run: params.DryRunOption = False,
) -> None:
    """Offboard a person: remove everything that lets them in, on both sides.

    Ends the sessions, revokes the refresh tokens, removes the memberships with their roles and the
    open invitations, and removes the roles here. The user is also detached from the account, so
    that the service rejects every token that was issued before, at once.

    The user and all samples that they uploaded stay. The account stays as well, unless you pass
    --block-account or --delete-account. If a step fails, the others are taken all the same.

    To bring a person back, use `users onboard`.
    """
    from aspencli.cli.changes.execute import execute
    from aspencli.cli.changes.people import offboarding_change
    from aspencli.cli.context import Backend
    from aspencli.identity.offboarding import AccountFate, read_offboarding

    if block_account and delete_account:
        raise BadInputError(
            "--block-account and --delete-account cannot be combined.", hint="Pass one of them."
        )
    context = current(ctx)
    fate = AccountFate.BLOCK if block_account else AccountFate.STAY
    fate = AccountFate.DELETE if delete_account else fate
    provider = context.identity
    if provider is None and fate is not AccountFate.STAY:
        raise _no_credentials(context, f"{fate} the account")
    context.announce(Backend.DB)
    read = partial(read_offboarding, context.database(), provider, key, fate)
    execute(offboarding_change(context, provider, read), dry_run=dry_run)


# Groups


@expanded
@prints("aspencli.cli.changes.people:GROUP_COLUMNS")
def onboard_group(
    ctx: typer.Context,
    *,
    group: params.NewGroupOptions,
    admin: Annotated[
        str, params.text_option("E-mail address of the first admin.", metavar="ADDRESS")
    ],
    admin_name: Annotated[
        str | None, params.text_option("Display name of the admin, if new.", metavar="NAME")
    ] = None,
    submitting_lab: Annotated[
        str | None, params.text_option("Laboratory that submits its samples. Default: the name.")
    ] = None,
    address: params.AddressOptions,
    dry_run: params.DryRunOption = False,
    way_in: WayIn,
) -> None:
    """Onboard a group: its organization at the identity provider, the group, and its first admin.

    Adds what is missing, and can be run again. A name or prefix that another group has is a
    conflict (exit code 7). If the admin cannot be onboarded, the new group is deleted again.
    """
    from aspencli.cli.changes.execute import execute
    from aspencli.cli.changes.people import GroupJob, OnboardingJob, group_change
    from aspencli.cli.context import Backend
    from aspencli.identity.new_groups import checked_fields

    context = current(ctx)
    access = _access(context, way_in, dry_run=dry_run)
    provider = _required_provider(context)
    context.announce(Backend.DB)
    person = _person(admin, admin_name, group.prefix, "admin")
    fields = checked_fields(
        context.database(), **vars(group), submitting_lab=submitting_lab, **vars(address)
    )
    people = OnboardingJob(context, provider, [person], access, way_in.inviter)
    execute(group_change(GroupJob(context, fields, people)), dry_run=dry_run)


def _required_provider(context: AppContext) -> IdentityProvider:
    provider = context.identity
    if provider is None:
        raise CredentialsError(
            f"Cannot onboard a group: there are no management credentials for "
            f"{context.target.label}.",
            hint="Create it through the API instead: "
            + context.command("groups", "create", "--help"),
        )
    return provider
