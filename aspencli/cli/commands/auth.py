"""``aspencli auth``: sign in to a target, and show who is signed in."""

from __future__ import annotations

import datetime as dt
import enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aspencli.cli.app import examples, group
from aspencli.cli.context import AppContext, current
from aspencli.cli.output.formats import Column, Row
from aspencli.errors import AspenError, BadInputError, CredentialsError, UnreachableError
from aspencli.text import local_time

if TYPE_CHECKING:
    from aspencli.auth.session import StoredSignIn
    from aspencli.auth.store import Noted
    from aspencli.cli.access import ApiAccess
    from aspencli.remote.api import GroupRoles, Me


app = group("Sign in to a target, and show who is signed in.")

_UNAUTHORIZED = 401
STATUS_COLUMNS = (
    Column("target", "Target", whole=True),
    Column("state", "State"),
    Column("name", "Name"),
    Column("email", "E-mail", whole=True),
    Column("subject", "Auth0 ID", secondary=True, whole=True),
    Column("user_id", "User ID", right=True, secondary=True),
    Column("groups", "Groups and roles"),
    Column("expires_at", "Expires"),
    Column("renewable", "Auto-renews", secondary=True),
    Column("stored", "Stored in"),
    Column("issuer", "Identity provider", secondary=True),
    Column("api_url", "API", secondary=True),
)


class StoreKind(enum.Enum):
    """The places where sign-ins can be stored."""

    KEYRING = "keyring"
    FILE = "file"


@app.command(
    epilog=examples("aspencli --env staging auth login", "aspencli auth login --store file")
)
def login(
    ctx: typer.Context,
    store: Annotated[
        StoreKind | None,
        typer.Option(
            help="Where to store sign-ins from now on. Default: the system keyring. A file, "
            "readable only by you, is used only if you choose it here.",
        ),
    ] = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the sign-in page in your browser.")
    ] = True,
    force: Annotated[
        bool, typer.Option("--force", help="Sign in again, or as a different user.")
    ] = False,
) -> None:
    """Sign in to the target, using a browser on this device or another one.

    Shows a link and a code, and waits for your approval. The sign-in is stored
    for this target, and renews automatically if the identity provider allows it.
    It is only ever sent to the target's API.
    """
    context = current(ctx)
    access = context.access
    if access.given is not None:
        raise BadInputError(
            "ASPEN_TOKEN is set and takes precedence over any sign-in",
            hint="Unset it, then sign in.",
        )
    kind = access.choose_store(store.value if store else None)
    held = None if force else access.session.found(old=False)
    if held is not None and not _is_accepted(context) and not access.session.is_new:
        context.out.info("The API rejected the current sign-in; signing in again.")
        held = None
    elif held is not None:
        held = access.session.current()  # it may have been refreshed
    if held is None:
        before = access.store.load()
        held = access.sign_in(kind, browser=browser)
        access.session.use(held)
        _give_up(context, before)
        return _greet(context, held, "Signed in")
    if store is not None:
        access.store.save(held, kind)
    return _greet(context, held, "Already signed in")


@app.command(epilog=examples("aspencli --env staging auth logout"))
def logout(
    ctx: typer.Context,
    forget: Annotated[
        bool, typer.Option("--forget", help="Remove it from this machine without revoking it.")
    ] = False,
) -> None:
    """Sign out of the target: revoke the sign-in, and remove it from this machine."""
    context = current(ctx)
    access, out = context.access, context.out
    with access.store.lock():
        before = None if forget else access.store.load()
        if before is not None and before.refresh_token:
            _revoke(access, before.refresh_token)
        known = access.store.where is not None
        access.store.forget()
    if not known:
        out.info(f"You are not signed in to {context.target.label}.")
    else:
        out.done(f"Signed out of {context.target.label}")
    if access.given is not None:
        out.warn("ASPEN_TOKEN is still set and takes precedence over any sign-in")


@app.command(epilog=examples("aspencli --env staging auth status", "aspencli auth status --all"))
def status(
    ctx: typer.Context,
    everything: Annotated[
        bool, typer.Option("--all", help="Show every sign-in stored on this machine.")
    ] = False,
) -> None:
    """Show who is signed in to the target, with their roles, and when the sign-in expires.

    The exit code is 4 if no one is signed in, or if the API rejects the sign-in.
    """
    context = current(ctx)
    if everything:
        from aspencli.auth.store import Ledger  # no request is sent for these

        stored = [one for one in Ledger(context.access.folder).all().values() if one.store]
        rows = [_row_of(context, noted) for noted in stored]
        empty = "No sign-ins are stored on this machine."
        return context.out.rows(STATUS_COLUMNS, rows, empty=empty)
    access = context.access
    held = access.session.found()
    if held is None:
        context.out.record(STATUS_COLUMNS, _status_row(context, None))
        raise CredentialsError(
            f"Not signed in to {context.target.label}",
            hint=f"Sign in: {access.at.login_command}",
        )
    try:
        me = context.api().users.me()
    except AspenError:
        context.out.record(STATUS_COLUMNS, _status_row(context, held))
        raise
    context.out.record(STATUS_COLUMNS, _status_row(context, held, me))
    return None


@app.command(
    epilog=examples(
        "aspencli auth token --header | curl --header @- https://api.czgenepi.org/v2/users/me"
    )
)
def token(
    ctx: typer.Context,
    header: Annotated[
        bool, typer.Option("--header", help="Print a whole request header, for curl --header @-.")
    ] = False,
) -> None:
    """Print the token for the API.

    Anyone who has it can act as you until it expires. Do not put it on a command
    line, where other users of the machine can see it; pass it through a pipe.
    """
    context = current(ctx)
    held = context.access.session.current()
    if context.out.out.isatty():
        context.out.warn(
            f"Anyone who sees this token can act as you until {local_time(held.expires_at)}."
        )
    context.out.text(f"Authorization: Bearer {held.id_token}" if header else held.id_token)


def _is_accepted(context: AppContext) -> bool:
    """Return False if the API rejects the sign-in; True if it accepts it or is unavailable."""
    try:
        context.api().users.me()
    except CredentialsError as error:
        return error.answer is None or error.answer.status != _UNAUTHORIZED
    except AspenError:
        return True
    return True


def _greet(context: AppContext, held: StoredSignIn, did: str) -> None:
    """Report who is signed in, with their groups according to the API."""
    until = f"expires {local_time(held.expires_at)}"
    if held.refresh_token:
        until = f"{until}, auto-renews"
    context.out.done(f"{did} to {context.target.label} as {held.who} ({until})")
    try:
        me = context.api().users.me()
    except CredentialsError:  # signed in, but not accepted by the API
        raise
    except AspenError as error:
        context.out.warn(f"The API did not return your roles: {error.message}")
        return
    groups = "; ".join(_group_words(group) for group in me["groups"])
    context.out.info(f"Groups: {groups or 'none, so you have no access to samples or trees'}")


def _give_up(context: AppContext, before: StoredSignIn | None) -> None:
    """Revoke the sign-in that a new one has replaced."""
    if before is None or not before.refresh_token:
        return
    try:
        context.access.provider.revoke(before.refresh_token)
    except AspenError as error:
        context.out.warn(f"The previous sign-in could not be revoked: {error.message}")


def _revoke(access: ApiAccess, refresh_token: str) -> None:
    try:
        access.provider.revoke(refresh_token)
    except UnreachableError as error:
        raise UnreachableError(
            f"The sign-in could not be revoked and was kept: {error.message}",
            hint="Try again, or remove it from this machine only: --forget",
        ) from error


def _row_of(context: AppContext, noted: Noted) -> Row:
    from aspencli.auth.store import Store

    access, place = context.access, noted.place
    store = Store(access.folder, place, access.keyring)
    try:
        held, where = store.load(), store.where
    except CredentialsError as error:  # the other sign-ins can still be shown
        context.out.warn(f"{place.target}: {error.message}")
        held, where = None, noted.store
    lasts = held is not None and (held.lasts() or held.refresh_token is not None)
    return {
        **_row(context, held),
        "target": place.target,
        "state": "signed in" if lasts else "expired" if held else "unreadable",
        "stored": where,
        "issuer": place.issuer,
        "api_url": place.api,
    }


def _status_row(context: AppContext, held: StoredSignIn | None, me: Me | None = None) -> Row:
    """Return the row for the target's sign-in; ``me`` is the API's description of the user."""
    access = context.access
    return {
        **_row(context, held, me),
        "target": context.target.label,
        "state": "signed in" if held else "signed out",
        "stored": access.where if held else None,
        "issuer": access.at.place.issuer,
        "api_url": access.at.api_url,
    }


def _row(context: AppContext, held: StoredSignIn | None, me: Me | None = None) -> dict[str, Any]:
    people = context.out.chosen_form == "table"
    row: dict[str, Any] = dict.fromkeys(column.key for column in STATUS_COLUMNS)
    if held:
        until = dt.datetime.fromtimestamp(held.expires_at, dt.UTC)
        row["name"], row["email"], row["subject"] = held.name, held.email, held.subject
        row["expires_at"] = local_time(held.expires_at) if people else until
        row["renewable"] = held.refresh_token is not None
    if me:
        row["name"], row["user_id"] = me["name"], me["id"]
        row["groups"] = [_group_words(group) for group in me["groups"]] if people else me["groups"]
    return row


def _group_words(group: GroupRoles) -> str:
    return f"{group['name']} ({', '.join(group['roles'])})"
