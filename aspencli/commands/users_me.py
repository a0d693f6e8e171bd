"""``aspencli users me`` and ``update-me``: one's own account, through the API."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import typer

from aspencli import params
from aspencli.cli import examples
from aspencli.commands.user_columns import for_reading
from aspencli.context import AppContext, current
from aspencli.errors import BadInputError
from aspencli.output.rendering import Column, Row
from aspencli.params import Road
from aspencli.services.checks import clean_name
from aspencli.shapes import MeChange

ME_COLUMNS = (
    Column("id", "Id", right=True, whole=True),
    Column("name", "Name"),
    Column("groups", "Groups and roles"),
    Column("agreed_to_tos", "Agreed to terms"),
    Column("acknowledged_policy_version", "Policy acknowledged"),
    Column("gisaid_submitter_id", "GISAID submitter"),
)


def register(app: typer.Typer) -> None:
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
