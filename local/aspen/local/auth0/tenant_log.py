"""Auth0's tenant log: the events of the audit log in its format, kept with the other state."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from sqlite3 import Connection, Row
from typing import Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aspen.local.auth0.audit import AuditEvent, collecting
from aspen.local.auth0.management import (
    CONNECTION,
    CONNECTION_ID,
    AnyPageOf,
    Document,
    Listed,
    PartsOf,
    bad_query,
    listed,
    needs,
)
from aspen.local.auth0.search import Kind, conditions
from aspen.local.auth0.settings import iso
from aspen.local.auth0.store import Grant, LocalProvider, ProviderOf, ProviderStore, insert

router = APIRouter()

_MOST = 20_000  # some 10 MB
_DIGITS = 36  # of an entry's number, at the end of its ID
_LARGEST = 2**63 - 1
_FAILED = 400  # and all statuses above
_TYPES = {
    "authorize.refused": ("f", "Failed Login"),
    "device.denied": ("fdecc", "User Canceled Device Confirmation"),
    "email.verified": ("sv", "Success Verification Email"),
    "invitation.accepted": ("si", "Successfully accepted a user invite"),
    "invitation.refused": ("fi", "Failed invite accept"),
    "management.called": ("sapi", "Success API Operation"),
    "password.refused": ("fcp", "Failed Change Password"),
    "password.set": ("scp", "Success Change Password"),
    "sign_in.refused": ("f", "Failed Login"),
    "sign_in.unknown": ("fu", "Failed Login (Invalid Email/Username)"),
    "token.revoked": ("srrt", "Successfully revoked a refresh token"),
    "user.deleted": ("sdu", "Success User Deletion"),
    "user.signed_in": ("s", "Success Login"),
    "user.signed_out": ("slo", "Success Logout"),
    "user.signed_up": ("ss", "Success Signup"),
}
"""Auth0's code and description of the events that it logs, too."""
_EXCHANGES = {
    Grant.AUTHORIZATION_CODE: ("seacft", "feacft"),
    Grant.CLIENT_CREDENTIALS: ("seccft", "feccft"),
    Grant.DEVICE_CODE: ("sede", "fede"),
    Grant.REFRESH_TOKEN: ("sertft", "fertft"),
}
"""Auth0's codes of a successful and of a failed exchange of each grant for tokens."""
_SEARCHED = {
    name: (name, Kind.EXACT)
    for name in (
        *("client_id", "client_name", "description", "ip", "organization_id", "type"),
        *("user_agent", "user_id", "user_name"),
    )
} | {"date": ("date", Kind.TIME)}


class TenantLogMiddleware:
    """A middleware that stores the events of each request before its response is sent."""

    def __init__(self, app: ASGIApp, store: ProviderStore):
        self._app, self._store = app, store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with collecting() as events:

            async def send_after_events(message: Message) -> None:
                if message["type"] == "http.response.start" and events:
                    await run_in_threadpool(self._record, HTTPConnection(scope), events)
                await send(message)

            await self._app(scope, receive, send_after_events)

    def _record(self, sender: HTTPConnection, events: Sequence[AuditEvent]) -> None:
        kinds = [(event, _kind(event)) for event in events]
        if not any(kind for _event, kind in kinds):
            return
        origin = {
            "ip": sender.client.host if sender.client else None,
            "user_agent": sender.headers.get("user-agent"),
        }
        with self._store.writing() as db:
            for event, kind in kinds:
                if kind is not None:
                    insert(db, "logs", {**_entry(db, event, *kind), **origin})
            db.execute("DELETE FROM logs WHERE id <= (SELECT max(id) FROM logs) - ?", (_MOST,))


def _kind(event: AuditEvent) -> tuple[str, str] | None:  # noqa: PLR0911 - one per kind of event
    """Return Auth0's code and description of an event; None if it does not log it."""
    details = event.details
    if details.get("reused"):
        return "ferrt", "Failed Exchange"
    grant = details.get("grant")
    if grant is not None:
        succeeded = event.name == "token.issued"
        codes = _EXCHANGES[Grant(str(grant))]
        return (codes[0], "Success Exchange") if succeeded else (codes[1], "Failed Exchange")
    if event.name == "request.refused" and details["path"] == "/oauth/device/code":
        return "fdeaz", "Failed Device Authorization Request"
    if event.name == "management.called" and int(details["status"]) >= _FAILED:
        return None
    if event.name == "authorize.refused" and details["error"] == "login_required":
        return "fsa", "Failed Silent Auth"
    # Signing out, or revoking a token, succeeds even if there was none.
    if event.name in {"user.signed_out", "token.revoked"} and "user" not in details:
        return None
    return _TYPES.get(event.name)


def _entry(db: Connection, event: AuditEvent, code: str, description: str) -> dict[str, object]:
    details = event.details
    user_id, client_id = details.get("user"), details.get("client")
    user = db.execute("SELECT email FROM users WHERE user_id = ?", (user_id,)).fetchone()
    client = db.execute("SELECT name FROM clients WHERE client_id = ?", (client_id,)).fetchone()
    request = None
    if "method" in details:
        request = {
            "request": {"method": details["method"], "path": details["path"]},
            "response": {"statusCode": details["status"]},
        }
    return {
        "date": event.at,
        "type": code,
        "description": details.get("description", description),
        "user_id": user_id,
        "user_name": user["email"] if user else details.get("email"),
        "client_id": client_id,
        "client_name": client["name"] if client else None,
        "organization_id": details.get("organization"),
        "details": json.dumps(request) if request else None,
    }


@router.get("/logs", dependencies=[needs("read:logs", "read:logs_users")])
def list_logs(
    provider: ProviderOf,
    response: Response,
    page: AnyPageOf,
    parts: PartsOf,
    q: str = "",
    sort: Literal["date:-1", "date:1"] = "date:-1",
) -> Listed:
    """List the entries that match a search, newest first; after a checkpoint, oldest first."""
    if page.take is not None:
        return _after_checkpoint(provider, response, page.after, page.take)
    where, values = conditions(q, _SEARCHED)
    with provider.database.reading() as db:
        found = listed(
            db,
            page,
            "logs",
            f"logs WHERE {where}",
            lambda row: parts(_document(row)),
            order="id DESC" if sort == "date:-1" else "id",
            values=values,
            counted=False,
            length=True,
        )
    if isinstance(found, dict):
        found["total"] = found["length"]  # as at Auth0, which counts only those on the page
    return found


def _after_checkpoint(
    provider: LocalProvider, response: Response, log_id: str | None, take: int
) -> Listed:
    """Return the next entries, all of them in order; the Link header leads to those after them."""
    with provider.database.reading() as db:
        rows = db.execute(
            "SELECT * FROM logs WHERE id > ? ORDER BY id LIMIT ?", (_number(log_id), take)
        ).fetchall()
    found = [_document(row) for row in rows]
    last = found[-1]["log_id"] if found else log_id
    query = urlencode({"take": take, **({"from": last} if last else {})})
    response.headers["Link"] = f'<{provider.issuer}api/v2/logs?{query}>; rel="next"'
    return found


def _number(log_id: str | None) -> int:
    """Return the number of the entry with an ID, which may be dropped by now; 0 for no ID."""
    if log_id is None:
        return 0
    if len(log_id) <= _DIGITS or not log_id.isascii() or not log_id.isdecimal():
        raise bad_query(f"'Invalid log ID: {log_id}' on property from.")
    return min(int(log_id[-_DIGITS:]), _LARGEST)


def _document(row: Row) -> Document:
    moment = iso(row["date"])
    log_id = "900" + re.sub(r"\D", "", moment) + f"{row['id']:0{_DIGITS}}"
    names = ("client_id", "client_name", "ip", "user_agent", "user_id", "user_name")
    document: Document = {
        "date": moment,
        "type": row["type"],
        "description": row["description"],
        **{name: row[name] for name in (*names, "organization_id") if row[name] is not None},
        "log_id": log_id,
        "_id": log_id,
        "isMobile": False,
    }
    if row["user_name"] is not None:
        document |= {"connection": CONNECTION, "connection_id": CONNECTION_ID}
        document |= {"strategy": "auth0", "strategy_type": "database"}
    if row["details"] is not None:
        document["details"] = json.loads(row["details"])
    return document
