"""The device authorization grant (RFC 8628): a program shows a code, which a person approves."""

from __future__ import annotations

import re
import secrets
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Header

from aspen.local.auth0.clients import KnownClient, Parameters, authenticate, required
from aspen.local.auth0.codes import Wanted, wanted_by
from aspen.local.auth0.errors import OAuthError
from aspen.local.auth0.settings import Dialect, audit, hashed, new_secret
from aspen.local.auth0.store import Grant, Provider, ProviderOf
from aspen.local.auth0.tokens import KEPT_SECONDS, Granted

router = APIRouter()

# No vowels, so that codes never spell words (RFC 8628 section 6.1).
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
_HALF = 4
# Timing is not exact: a client that waits the full interval may poll slightly early.
_TOLERANCE = 0.25
_SLOWER_SECONDS = 5


@dataclass(frozen=True)
class Asked:
    """A device request for a person to decide on.

    Attributes:
        user_code: The code shown to the person.
        client_id: The requesting program.
        client_name: The program's name.
        scope: The requested scope.
        organization_id: The organization to sign in with, if any.
        status: ``pending``, ``approved``, or ``denied``.
    """

    user_code: str
    client_id: str
    client_name: str
    scope: str
    organization_id: str | None
    status: str


@router.post("/oauth/device/code")
def begin(
    provider: ProviderOf,
    parameters: Parameters,
    authorization: Annotated[str | None, Header()] = None,
) -> dict[str, Any]:
    """Issue a device code for the program, and a user code for its user."""
    with provider.database.writing() as db:
        client = authenticate(db, parameters, authorization)
        client.require(Grant.DEVICE_CODE)
        wanted = wanted_by(db, provider.settings, client, parameters)
        device_code, user_code = _add_request(provider, db, client, wanted)
    audit("device.requested", client=client.client_id, scope=wanted.scope)
    address = f"{provider.issuer}activate"
    answer: dict[str, Any] = {
        "device_code": device_code,
        "user_code": user_code,
        "verification_uri": address,
        "verification_uri_complete": f"{address}?{urlencode({'user_code': user_code})}",
        "expires_in": int(provider.knobs.device_seconds),
    }
    if not provider.knobs.omit_interval:
        interval = provider.knobs.interval
        answer["interval"] = int(interval) if interval == int(interval) else interval
    return answer


def redeem(
    provider: Provider, db: sqlite3.Connection, client: KnownClient, sent: Mapping[str, str]
) -> Granted | OAuthError:
    """Exchange a device code for the user's grant, or return the error if that is not possible.

    Raises:
        OAuthError: The code is missing.
    """
    device_hash = hashed(required(sent, "device_code"))
    row = db.execute(
        "SELECT * FROM device_requests WHERE device_hash = ? AND client_id = ?",
        (device_hash, client.client_id),
    ).fetchone()
    if row is None:
        return OAuthError("invalid_grant", "Invalid or expired device code.")
    if provider.now() >= row["expires_at"]:
        # Like Auth0, report this once; from then on the code is unknown.
        _delete(db, device_hash)
        return OAuthError("expired_token", "The device code has expired.")
    if provider.trial.take("slow_down") or _too_fast(provider, db, row):
        return OAuthError(
            "slow_down",
            f"You are polling faster than the specified interval of {row['interval']:g} seconds.",
        )
    if row["status"] == "pending":
        return OAuthError("authorization_pending", "User has yet to authorize device code.")
    if row["status"] == "denied":
        return OAuthError("access_denied", "User cancelled the confirmation prompt.")
    _delete(db, device_hash)
    return Granted.of(row, new_secret())


def tidy(typed: str) -> str:
    """Normalize a user code as typed: any case, with or without the dash."""
    letters = re.sub(r"[\s-]", "", typed).upper()
    return f"{letters[:_HALF]}-{letters[_HALF:]}"


def find_request(db: sqlite3.Connection, user_code: str, now: float) -> Asked | None:
    """Return the valid request with a user code; None if there is none."""
    row = db.execute(
        "SELECT r.*, c.name FROM device_requests r JOIN clients c USING (client_id)"
        " WHERE user_code = ? AND expires_at > ?",
        (user_code, now),
    ).fetchone()
    if row is None:
        return None
    return Asked(
        user_code=row["user_code"],
        client_id=row["client_id"],
        client_name=row["name"],
        scope=row["scope"],
        organization_id=row["organization_id"],
        status=row["status"],
    )


def decide(
    db: sqlite3.Connection, user_code: str, user_id: str, auth_time: float, *, approve: bool
) -> bool:
    """Record a person's decision; return False if no request is pending."""
    done = db.execute(
        "UPDATE device_requests SET status = ?, user_id = ?, auth_time = ?"
        " WHERE user_code = ? AND status = 'pending'",
        ("approved" if approve else "denied", user_id, auth_time, user_code),
    )
    return done.rowcount == 1


def _add_request(
    provider: Provider, db: sqlite3.Connection, client: KnownClient, wanted: Wanted
) -> tuple[str, str]:
    now = provider.now()
    db.execute("DELETE FROM device_requests WHERE expires_at < ?", (now - KEPT_SECONDS,))
    device_code, user_code = new_secret(), _new_user_code()
    while db.execute("SELECT 1 FROM device_requests WHERE user_code = ?", (user_code,)).fetchone():
        user_code = _new_user_code()
    db.execute(
        "INSERT INTO device_requests (device_hash, user_code, client_id, scope, audience,"
        " organization_id, interval, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            hashed(device_code),
            user_code,
            client.client_id,
            wanted.scope,
            wanted.audience,
            wanted.organization_id,
            provider.knobs.interval,
            now + provider.knobs.device_seconds,
        ),
    )
    return device_code, user_code


def _too_fast(provider: Provider, db: sqlite3.Connection, row: sqlite3.Row) -> bool:
    now, before, interval = provider.now(), row["polled_at"], row["interval"]
    too_fast = before is not None and now - before < interval - _TOLERANCE
    if too_fast and provider.knobs.dialect is Dialect.RFC:
        interval += _SLOWER_SECONDS  # RFC 8628 section 3.5; Auth0 keeps the interval
    db.execute(
        "UPDATE device_requests SET polled_at = ?, interval = ? WHERE device_hash = ?",
        (now, interval, row["device_hash"]),
    )
    return too_fast


def _delete(db: sqlite3.Connection, device_hash: str) -> None:
    db.execute("DELETE FROM device_requests WHERE device_hash = ?", (device_hash,))


def _new_user_code() -> str:
    letters = "".join(secrets.choice(_LETTERS) for _ in range(2 * _HALF))
    return tidy(letters)
