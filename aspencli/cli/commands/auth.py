"""``aspencli auth``: sign in to a target, with one or more accounts, and show who is signed in."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aspencli.cli.app import examples, group
from aspencli.cli.context import AppContext, current
from aspencli.cli.output.formats import Column, Row, prints
from aspencli.errors import AspenError, BadInputError, CredentialsError, UnreachableError
from aspencli.text import local_time

if TYPE_CHECKING:
    from aspencli.auth.accounts import Account
    from aspencli.auth.session import StoredSignIn
    from aspencli.cli.access import ApiAccess
    from aspencli.remote.types import GroupRoles, Me


app = group("Sign in to a target, and show who is signed in.")

_UNAUTHORIZED = 401


def _group_roles() -> Any:
    from aspencli.remote.types import GroupRoles

    return list[GroupRoles] | None


STATUS_COLUMNS = (
    Column("target", "Target", whole=True, of=str),
    Column("state", "State", of=str),
    Column("name", "Name"),
    Column("email", "E-mail", whole=True),
    Column("subject", "Auth0 ID", secondary=True, whole=True),
    Column("user_id", "User ID", right=True, secondary=True, of=int | None),
    Column("groups", "Groups and roles", of=_group_roles),
    Column("expires_at", "Expires", of=dt.datetime | None),
    Column("renewable", "Auto-renews", secondary=True, of=bool | None),
    Column("stored", "Stored in"),
    Column("issuer", "Identity provider", secondary=True),
    Column("api_url", "API", secondary=True),
    Column("account", "Account", whole=True),
    Column("active", "Active", of=bool | None),
)
LIST_COLUMNS = (
    Column("target", "Target", whole=True, of=str),
    Column("account", "Account", whole=True, blank=lambda _row: "(unknown)"),
    Column("active", "Active", of=bool | None),
    Column("email", "E-mail", whole=True),
    Column("state", "State", of=str),
    Column("expires_at", "Expires", of=dt.datetime | None),
    Column("renewable", "Auto-renews", secondary=True, of=bool | None),
    Column("stored", "Stored in"),
    Column("name", "Name", secondary=True),
    Column("subject", "Auth0 ID", secondary=True, whole=True),
    Column("api_url", "API", secondary=True),
)


class StoreKind(enum.Enum):
    """The places where sign-ins can be stored."""

    KEYRING = "keyring"
    FILE = "file"


@app.command(
    epilog=examples(
        "aspencli --env staging auth login",
        "aspencli --env staging auth login --as admin",
        "aspencli auth login --store file",
    )
)
def login(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="NAME",
            help="Sign in to the account with this name, in addition to others. A new name adds an "
            "account. Default: the active account, or your e-mail address.",
        ),
    ] = None,
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
    It is only ever sent to the target's API. The account becomes the active one.
    """
    context = current(ctx)
    access = context.access
    if access.given is not None:
        raise BadInputError(
            "ASPEN_TOKEN is set and takes precedence over any sign-in",
            hint="Unset it, then sign in.",
        )
    access.sign_in_as(_chosen_name(context, "--as", name, or_variable=True))
    active = access.accounts.ledger.active(access.at.place)
    kind = access.choose_store(store.value if store else None)
    held = None if force else access.session.found(old=False)
    if held is not None and not _is_accepted(context) and not access.session.is_new:
        context.out.info("The API rejected the current sign-in; signing in again.")
        held = None
    elif held is not None:
        held = access.session.current()  # it may have been refreshed
    if held is None:
        held = access.sign_in(kind, browser=browser, force=force)
        access.session.use(held)
        return _greet(context, held, "Signed in", active)
    with access.store.lock():
        if store is not None:
            access.store.move(kind)
    if access.store.account is not None:
        access.store.ledger.switch(access.store.account)
    return _greet(context, held, "Already signed in", active)


@app.command(
    epilog=examples("aspencli --env staging auth switch admin", "aspencli --env prod auth switch")
)
def switch(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="The account. Default: the other one of two."),
    ] = None,
) -> None:
    """Choose the active account of the target, which commands use from now on.

    Commands that are running keep their account. To choose an account for one
    command only, add --account NAME to it, or set ASPEN_ACCOUNT.
    """
    context = current(ctx)
    access, target = context.access, context.target.label
    wanted = _chosen_name(context, "NAME", name)
    if access.at.known_place is None:  # then no one has signed in
        raise _no_other(context) if wanted is None else access.unknown_account(wanted)
    before = access.accounts.ledger.active(access.at.place)
    account = access.accounts.described(_switch_account(context, wanted))
    if before is not None and before.key == account.key:
        context.out.done(f"{account.title} is already the active account on {target}")
    else:
        context.out.done(f"Switched to account {account.title} on {target}")
    _warn_if_expired(context, account)
    _warn_of_precedence(context, account)


def _switch_account(context: AppContext, wanted: str | None) -> Account:
    """Return the account that is active from now on: the one with the name, or the other of two.

    Raises:
        AspenError: The account does not exist.
    """
    access = context.access
    ledger = access.accounts.ledger
    if wanted is None:
        account = ledger.toggle(access.at.place)
        if account is None:
            raise _no_other(context)
        return account
    found = access.accounts.find(wanted)
    if found is None or not ledger.switch(found):
        raise access.unknown_account(wanted)
    return found


@app.command(
    "list", epilog=examples("aspencli --env staging auth list", "aspencli auth list --all -o json")
)
@prints(LIST_COLUMNS)
def list_accounts(
    ctx: typer.Context,
    everything: Annotated[
        bool, typer.Option("--all", help="List the accounts of every target.")
    ] = False,
) -> None:
    """List the accounts that are signed in to the target, and which one is active.

    No request is sent, so a sign-in that was revoked is not noticed.
    """
    context = current(ctx)
    target = context.target.label
    rows = _account_rows(context, lambda one: everything or one.place.target == target)
    if not any(row["target"] == target for row in rows):
        rows += _old_tools_rows(context)
    empty = f"No account is signed in to {target}. To list all targets: aspencli auth list --all"
    if everything:
        empty = "No account is signed in on this machine."
    context.out.rows(LIST_COLUMNS, rows, empty=empty)
    _warn_of_precedence(context)


@app.command(
    epilog=examples("aspencli --env staging auth logout", "aspencli auth logout --account admin")
)
def logout(
    ctx: typer.Context,
    forget: Annotated[
        bool, typer.Option("--forget", help="Remove it from this machine without revoking it.")
    ] = False,
) -> None:
    """Sign out of the target: revoke the sign-in, and remove it from this machine.

    Signs out the active account, or the one that --account names; others stay
    signed in. If only one is left, it becomes active, except on production.
    """
    context = current(ctx)
    account, was_active, active = _sign_out(context, forget=forget)
    if account is None:
        context.out.info(f"You are not signed in to {context.target.label}.")
    else:
        _report_sign_out(context, account, was_active, active)
    if context.access.has_token:
        context.out.warn("ASPEN_TOKEN is still set and takes precedence over any sign-in")


def _sign_out(
    context: AppContext, *, forget: bool
) -> tuple[Account | None, Account | None, Account | None]:
    """Revoke and remove the sign-in; return its account, and the active one before and after."""
    access = context.access
    with access.store.lock():
        before = None if forget else access.store.load()
        if before is not None and before.refresh_token:
            _revoke(access, before.refresh_token)
        account, was_active = access.store.account, access.accounts.ledger.active(access.at.place)
        known = access.store.where is not None
        if account is not None:
            account = access.store.described(account)
        active = access.store.forget(may_switch=not context.target.is_production)
    return account if known else None, was_active, active


@app.command(epilog=examples("aspencli --env staging auth status", "aspencli auth status --all"))
@prints(STATUS_COLUMNS)
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
    if everything:  # no request is sent for these
        rows = _account_rows(context, lambda _account: True)
        empty = "No sign-ins are stored on this machine."
        return context.out.rows(STATUS_COLUMNS, rows, empty=empty)
    access = context.access
    held = access.session.found()
    if held is None:
        context.out.record(STATUS_COLUMNS, _status_row(context, None))
        raise CredentialsError(
            f"Not signed in to {context.target.label}",
            hint=f"Sign in: {access.login_command}",
        )
    _show_signed_in(context, held)
    return None


def _show_signed_in(context: AppContext, held: StoredSignIn) -> None:
    access = context.access
    try:
        me = context.api().users.me()
    except AspenError:
        context.out.record(STATUS_COLUMNS, _status_row(context, held))
        raise
    context.out.record(STATUS_COLUMNS, _status_row(context, held, me))
    if not access.has_token and len(accounts := access.accounts.all()) > 1:
        names = ", ".join(one.label for one in accounts if not _is(one, access.store.account))
        context.out.info(f"Other accounts on {context.target.label}: {names}")


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


def _chosen_name(
    context: AppContext, option: str, name: str | None, *, or_variable: bool = False
) -> str | None:
    """Return the account that was named, here or with ``--account``; None if none was.

    With ``or_variable``, it may also be named by ``ASPEN_ACCOUNT``.

    Raises:
        BadInputError: Two different names were given, or a name that cannot be used.
    """
    from aspencli.auth.accounts import check_name

    setting = context.config.setting("account")
    is_flag = setting.source.startswith("flag")
    given = setting.value if is_flag or (or_variable and name is None) else None
    if name is not None and given is not None and name != given:
        raise BadInputError(
            f"Two accounts were given: {name} ({option}) and {given} (--account)",
            hint="Give one of them.",
        )
    found = given if name is None else name
    return None if found is None else check_name(found)


def _greet(context: AppContext, held: StoredSignIn, did: str, before: Account | None) -> None:
    """Report who is signed in, which account is active, and the groups according to the API."""
    until = f"expires {local_time(held.expires_at)}"
    if held.refresh_token:
        until = f"{until}, auto-renews"
    context.out.done(f"{did} to {context.target.label} as {held.who} ({until})")
    _report_active(context, before)
    try:
        me = context.api().users.me()
    except CredentialsError:  # signed in, but not accepted by the API
        raise
    except AspenError as error:
        context.out.warn(f"The API did not return your roles: {error.message}")
        return
    groups = "; ".join(_group_words(group) for group in me["groups"])
    context.out.info(f"Groups: {groups or 'none, so you have no access to samples or trees'}")


def _report_active(context: AppContext, before: Account | None) -> None:
    """Report which account is active after signing in, if there could be any doubt."""
    access, accounts = context.access, context.access.accounts.all()
    account = access.store.account
    if account is None or not (len(accounts) > 1 or account.is_named):
        return
    words = f"Active account on {context.target.label}: {account.title}."
    previous = next((one for one in accounts if _is(one, before)), None)
    if previous is not None and not _is(previous, account):
        back = access.at.command("auth", "switch", previous.label)
        words += f" To go back to {previous.label}: {back}"
    context.out.info(words)
    _warn_of_precedence(context, account)


def _report_sign_out(
    context: AppContext, account: Account, before: Account | None, active: Account | None
) -> None:
    """Report which account was signed out, and which ones are left."""
    access, out, target = context.access, context.out, context.target.label
    left = access.accounts.all()
    names = ", ".join(one.label for one in left)
    is_plain = not left and not account.is_named
    out.done(f"Signed out of {target}{'' if is_plain else f' (account {account.label})'}")
    if not left:
        return
    if active is None:
        out.info(f"Still signed in to {target}: {names}. None of them is active.")
        out.hint(f"Choose the active account: {access.switch_command}")
    elif _is(before, account):
        out.info(f"Active account on {target} is now {access.accounts.described(active).title}.")
    else:
        out.info(f"Still signed in to {target}: {names}.")


def _no_other(context: AppContext) -> AspenError:
    """Return the error for ``auth switch`` without a name, where that leaves a choice."""
    access, target = context.access, context.target.label
    lines = access.account_lines()
    if not lines:
        return CredentialsError(
            f"You are not signed in to {target}.", hint=f"Sign in: {access.login_command}"
        )
    if len(lines) == 1 and access.accounts.ledger.active(access.at.place) is not None:
        add = access.at.command("auth", "login", "--as", "NAME")
        return BadInputError(
            f"There is no other account on {target} to switch to.",
            hint=f"Add one: {add}",
            details=lines,
        )
    return BadInputError(
        f"There are several accounts on {target} to switch to."
        if len(lines) > 1
        else f"No account is active on {target}.",
        hint=f"Choose one: {access.switch_command}",
        details=lines,
    )


def _warn_if_expired(context: AppContext, account: Account) -> None:
    from aspencli.auth.store import Store

    access = context.access
    try:
        held = Store(access.folder, account.place, access.keyring, account).load()
    except CredentialsError as error:
        context.out.warn(error.message)
        return
    if held is None or not (held.lasts() or held.refresh_token):
        again = access.at.command("auth", "login", "--as", account.label)
        ended = f"expired at {local_time(held.expires_at)}" if held else "can no longer be used"
        context.out.warn(f"The sign-in of {account.label} {ended}. Sign in again: {again}")


def _warn_of_precedence(context: AppContext, account: Account | None = None) -> None:
    """Warn about variables that decide who commands act as, whichever account is active."""
    setting = context.config.setting("account")
    if context.access.has_token:
        context.out.warn("ASPEN_TOKEN is set and takes precedence over any sign-in")
        return
    given = setting.value if setting.source.startswith("environment") else None
    if given is not None and (account is None or not account.is_called(given)):
        context.out.warn(f"ASPEN_ACCOUNT={given} takes precedence over the active account")


def _is(one: Account | None, other: Account | None) -> bool:
    return one is not None and other is not None and one.key == other.key


def _revoke(access: ApiAccess, refresh_token: str) -> None:
    try:
        access.provider.revoke(refresh_token)
    except UnreachableError as error:
        raise UnreachableError(
            f"The sign-in could not be revoked and was kept: {error.message}",
            hint="Try again, or remove it from this machine only: --forget",
        ) from error


def _account_rows(context: AppContext, shown: Callable[[Account], bool]) -> list[dict[str, Any]]:
    """Return the rows of stored accounts, by target and name."""
    from aspencli.auth.accounts import Ledger

    ledger = Ledger(context.access.folder)
    active = {one.place.key: ledger.active(one.place) for one in ledger.accounts()}
    warned: set[str] = set()
    rows = [
        _account_row(context, account, _is(account, active[account.place.key]), warned)
        for account in filter(shown, ledger.accounts())
    ]
    return sorted(rows, key=lambda row: (row["target"], row["account"] or ""))


def _account_row(
    context: AppContext, account: Account, is_active: bool, warned: set[str]
) -> dict[str, Any]:
    from aspencli.auth.store import Store

    access, place = context.access, account.place
    store = Store(access.folder, place, access.keyring, account)
    try:
        held, where = store.load(), store.where
    except CredentialsError as error:  # the other sign-ins can still be shown
        _warn_once(context, f"{place.target}: {error.message}", warned)
        held, where = None, account.store
    if held is not None:
        account = account.described(held)
    return {
        **_row(context, held),
        "target": place.target,
        "account": account.name,
        "email": account.email or None,
        "subject": account.subject or None,
        "active": is_active,
        "state": _state(held),
        "stored": where,
        "issuer": place.issuer,
        "api_url": place.api,
    }


def _warn_once(context: AppContext, warning: str, warned: set[str]) -> None:
    if warning not in warned:
        context.out.warn(warning)
    warned.add(warning)


def _old_tools_rows(context: AppContext) -> list[dict[str, Any]]:
    """Return the row of the sign-in that the old tool left for this target, if it can be used."""
    access = context.access
    try:
        left = access.old_tools()
    except AspenError:  # the target has no API, for example
        return []
    if left is None:
        return []
    return [
        {
            **_row(context, left),
            "target": context.target.label,
            "account": left.email or left.subject,
            "active": True,
            "state": _state(left),
            "stored": access.where,
            "issuer": access.at.place.issuer,
            "api_url": access.at.place.api,
        }
    ]


def _state(held: StoredSignIn | None) -> str:
    if held is None:
        return "unreadable"
    return "signed in" if held.lasts() or held.refresh_token is not None else "expired"


def _status_row(context: AppContext, held: StoredSignIn | None, me: Me | None = None) -> Row:
    """Return the row for the target's sign-in; ``me`` is the API's description of the user."""
    access = context.access
    account = None if access.given is not None else access.store.account
    active = account and access.accounts.ledger.active(access.at.place)
    return {
        **_row(context, held, me),
        "target": context.target.label,
        "state": "signed in" if held else "signed out",
        "stored": access.where if held else None,
        "issuer": access.at.place.issuer,
        "api_url": access.at.api_url,
        "account": account and access.accounts.described(account).name,
        "active": account and _is(account, active),
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
