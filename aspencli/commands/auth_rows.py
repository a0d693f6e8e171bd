"""Rows about sign-ins, as shown by ``aspencli auth``."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from aspencli.context import AppContext
from aspencli.errors import CredentialsError
from aspencli.output.rendering import Column, Row

if TYPE_CHECKING:
    from aspencli.access import Access
    from aspencli.clients.sign_in_store import Noted
    from aspencli.identity import SignIn
    from aspencli.shapes import GroupRoles, Me

STATUS_COLUMNS = (
    Column("target", "Target", whole=True),
    Column("state", "State"),
    Column("name", "Name"),
    Column("email", "E-mail"),
    Column("subject", "Auth0 id", secondary=True),
    Column("user_id", "User id", right=True, secondary=True),
    Column("groups", "Groups and roles"),
    Column("expires_at", "Valid until"),
    Column("renewable", "Renewed by itself", secondary=True),
    Column("stored", "Kept in"),
    Column("issuer", "Identity provider", secondary=True),
    Column("api_url", "API", secondary=True),
)


def all_rows(context: AppContext) -> Iterator[Row]:
    """Yield every sign-in on this machine, without any network request."""
    from aspencli.clients.sign_in_store import Ledger

    for noted in Ledger(context.access.folder).all().values():
        if noted.store is not None:
            yield _row_of(context, noted)


def _row_of(context: AppContext, noted: Noted) -> Row:
    from aspencli.clients.sign_in_store import Store

    access = context.access
    store = Store(access.folder, noted.place, access.keyring)
    try:
        held, where = store.load(), store.where
    except CredentialsError as error:  # the others can still be shown
        context.out.warn(f"{noted.place.target}: {error.message}")
        held, where = None, noted.store
    lasts = held is not None and (held.lasts(time.time()) or held.refresh_token is not None)
    return {
        **dict.fromkeys(column.key for column in STATUS_COLUMNS),
        "target": noted.place.target,
        "state": "signed in" if lasts else "lapsed" if held else "unreadable",
        **(_of_sign_in(context, held) if held else {}),
        "stored": where,
        "issuer": noted.place.issuer,
        "api_url": noted.place.api,
    }


def status_row(
    context: AppContext, access: Access, held: SignIn | None, me: Me | None = None
) -> Row:
    """Return the row for the target's sign-in; ``me`` is the API's description of the user."""
    return {
        **dict.fromkeys(column.key for column in STATUS_COLUMNS),
        "target": context.target.label,
        "state": "signed in" if held else "signed out",
        **(_of_sign_in(context, held) if held else {}),
        "stored": access.where if held else None,
        "issuer": access.at.place.issuer,
        "api_url": access.at.api_url,
        **(_of_me(context, me) if me else {}),
    }


def _of_me(context: AppContext, me: Me) -> Row:
    people = context.out.chosen_form == "table"
    groups: Any = [group_words(group) for group in me["groups"]] if people else me["groups"]
    return {"name": me["name"], "user_id": me["id"], "groups": groups}


def group_words(group: GroupRoles) -> str:
    """Return a group and the user's roles in it as text."""
    return f"{group['name']} ({', '.join(group['roles'])})"


def _of_sign_in(context: AppContext, held: SignIn) -> Row:
    people = context.out.chosen_form == "table"
    until = dt.datetime.fromtimestamp(held.expires_at, dt.UTC)
    return {
        "name": held.name,
        "email": held.email,
        "subject": held.subject,
        "expires_at": moment_words(held.expires_at) if people else until,
        "renewable": held.refresh_token is not None,
    }


def moment_words(seconds: float) -> str:
    """Return a Unix timestamp as local time."""
    return f"{dt.datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M}"
