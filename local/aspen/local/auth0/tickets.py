"""Tickets: links that set a password or verify an e-mail address, and the jobs that mail them.

A ticket works once. Its link is in the response; only verification e-mails are also sent.
"""

from __future__ import annotations

import time
from enum import StrEnum
from sqlite3 import Connection, Row
from typing import Annotated
from urllib.parse import urlencode, urlsplit

from fastapi import APIRouter
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from aspen.local.auth0.clients import PageError, with_query
from aspen.local.auth0.management import (
    CONNECTION_ID,
    Body,
    Document,
    Email,
    ManagementError,
    bad_body,
    find,
    needs,
)
from aspen.local.auth0.outbox import in_words, send
from aspen.local.auth0.settings import hashed, iso, new_identifier, new_secret
from aspen.local.auth0.store import LocalProvider, ProviderOf, change, insert
from aspen.local.auth0.tokens import add_expiring

router = APIRouter()

_SECONDS = 432_000
_ASK = "Ask for a new link."
_JOB_SECONDS = 86_400

Seconds = Annotated[int, Field(ge=0)]


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise PydanticCustomError(
            "format", "Object didn't pass validation for format url: {value}", {"value": value}
        )
    return value


Url = Annotated[str, AfterValidator(_url)]


class Purpose(StrEnum):
    """The purpose of a ticket; the value is the path of its page, as at Auth0."""

    SET_PASSWORD = "u/reset-verify"  # noqa: S105 - a path
    VERIFY_EMAIL = "u/email-verification"


class _NewTicket(Body):
    result_url: Url | None = None
    client_id: str | None = None
    organization_id: str | None = None
    ttl_sec: Seconds | None = None
    include_email: Annotated[bool | None, Field(alias="includeEmailInRedirect")] = None


class _NewVerification(_NewTicket):
    user_id: str


class _NewPasswordChange(_NewTicket):
    user_id: str | None = None
    email: Email | None = None
    connection_id: str | None = None
    mark_email_as_verified: bool | None = None


class _NewVerificationJob(Body):
    user_id: str
    client_id: str | None = None
    organization_id: str | None = None


@router.post(
    "/tickets/password-change", status_code=201, dependencies=[needs("create:user_tickets")]
)
def create_password_ticket(provider: ProviderOf, body: _NewPasswordChange) -> Document:
    """Create a link that sets the password of a user, given by ID or by e-mail address."""
    if (body.user_id is None) == (body.email is None):
        raise bad_body("Exactly one of user_id and email is required")
    if (body.email is None) != (body.connection_id is None):
        raise bad_body("email and connection_id are only valid together")
    if body.connection_id not in {None, CONNECTION_ID}:
        raise ManagementError(404, "The connection does not exist.", "inexistent_connection")
    with provider.database.writing() as db:
        key = {"user_id": body.user_id} if body.user_id else {"email": str(body.email)}
        user = find(db, "users", **key)
        verifies = bool(body.mark_email_as_verified)
        link = _add_ticket(provider, db, Purpose.SET_PASSWORD, user, body, verifies=verifies)
    return {"ticket": link}


@router.post(
    "/tickets/email-verification", status_code=201, dependencies=[needs("create:user_tickets")]
)
def create_verification_ticket(provider: ProviderOf, body: _NewVerification) -> Document:
    """Create a link that verifies the e-mail address of a user."""
    with provider.database.writing() as db:
        user = find(db, "users", user_id=body.user_id)
        link = _add_ticket(provider, db, Purpose.VERIFY_EMAIL, user, body, verifies=True)
    return {"ticket": link}


@router.post("/jobs/verification-email", status_code=201, dependencies=[needs("update:users")])
def send_verification_email(provider: ProviderOf, body: _NewVerificationJob) -> Document:
    """Send a verification e-mail to a user."""
    now = time.time()
    job = {"id": new_identifier("job_"), "type": "verification_email", "created_at": now}
    with provider.database.writing() as db:
        user = find(db, "users", user_id=body.user_id)
        wanted = _NewTicket(client_id=body.client_id, organization_id=body.organization_id)
        mail_verification(provider, db, user, wanted)
        db.execute("DELETE FROM jobs WHERE created_at < ?", (now - _JOB_SECONDS,))
        insert(db, "jobs", job)
    # The e-mail is in the outbox already, but Auth0 always answers that it is about to be sent.
    return _job_document(job, "pending")


@router.get("/jobs/{job_id}", dependencies=[needs("create:users", "read:users")])
def get_job(provider: ProviderOf, job_id: str) -> Document:
    """Return a job."""
    with provider.database.reading() as db:
        return _job_document(dict(find(db, "jobs", id=job_id)), "completed")


def _job_document(job: Document, status: str) -> Document:
    created_at = iso(job["created_at"])
    return {"type": job["type"], "status": status, "created_at": created_at, "id": job["id"]}


def mail_verification(
    provider: LocalProvider, db: Connection, user: Row, wanted: _NewTicket | None = None
) -> None:
    """Mail a user a link that verifies the e-mail address."""
    wanted = wanted or _NewTicket()
    link = _add_ticket(provider, db, Purpose.VERIFY_EMAIL, user, wanted, verifies=True)
    text = f"""Verify that {user["email"]} is your e-mail address:
{link}

The link works once, until {in_words(time.time() + _SECONDS)}.
"""
    send(db, user["email"], "Verify your e-mail address", text, link=link)


def _add_ticket(
    provider: LocalProvider,
    db: Connection,
    purpose: Purpose,
    user: Row,
    wanted: _NewTicket,
    *,
    verifies: bool,
) -> str:
    """Store a ticket for a user; return its link."""
    _check_request(db, wanted)
    secret = new_secret()
    row = {
        "ticket_hash": hashed(secret),
        "purpose": purpose,
        "user_id": user["user_id"],
        "email": user["email"],
        "verifies_email": verifies,
        "result_url": wanted.result_url,
        "includes_email": bool(wanted.include_email),
        "client_id": wanted.client_id,
        "organization_id": wanted.organization_id,
    }
    add_expiring(db, "tickets", row, wanted.ttl_sec or _SECONDS)
    return f"{provider.issuer}{purpose}?{urlencode({'ticket': secret})}"


def _check_request(db: Connection, wanted: _NewTicket) -> None:
    if wanted.result_url and (wanted.client_id or wanted.organization_id):
        raise bad_body("result_url cannot be combined with client_id or organization_id")
    if wanted.client_id:
        find(db, "clients", client_id=wanted.client_id)
    if wanted.organization_id:
        find(db, "organizations", id=wanted.organization_id)


def find_ticket(db: Connection, purpose: Purpose, secret: str) -> Row:
    """Return a ticket that still works, with the names of what it is about.

    Raises:
        PageError: There is no such ticket, or it does not work anymore.
    """
    row: Row | None = db.execute(
        "SELECT t.*, c.name AS client_name, c.login_uri, o.name AS organization_name"
        " FROM tickets t JOIN users u ON u.user_id = t.user_id AND u.email = t.email"
        " LEFT JOIN clients c USING (client_id)"
        " LEFT JOIN organizations o ON o.id = t.organization_id"
        " WHERE ticket_hash = ? AND purpose = ?",
        (hashed(secret), purpose),
    ).fetchone()
    if row is None:
        raise PageError("This link is not valid", f"It may be incomplete or outdated. {_ASK}")
    if row["used_at"] is not None:
        raise PageError("This link was already used", f"It works only once. {_ASK}")
    if time.time() >= row["expires_at"]:
        raise PageError("This link has expired", _ASK)
    return row


def use_ticket(db: Connection, ticket: Row) -> None:
    """Mark a ticket as used, and the e-mail address of its user as verified if it says so."""
    now = time.time()
    change(db, "tickets", "ticket_hash", {"ticket_hash": ticket["ticket_hash"], "used_at": now})
    if ticket["verifies_email"]:
        user = {"user_id": ticket["user_id"], "email_verified": True, "updated_at": now}
        change(db, "users", "user_id", user)


def after_use(ticket: Row, message: str) -> str | None:
    """Return the URL to redirect to after a ticket was used; None if it names none."""
    if ticket["result_url"] is None:
        return None
    email = {"email": ticket["email"]} if ticket["includes_email"] else {}
    return with_query(ticket["result_url"], {**email, "success": "true", "message": message})


def continuation(ticket: Row) -> str | None:
    """Return the URL where signing in to the ticket's app starts; None if it names no app."""
    if not ticket["login_uri"]:
        return None
    organization = {
        "organization": ticket["organization_id"],
        "organization_name": ticket["organization_name"],
    }
    return with_query(ticket["login_uri"], organization if ticket["organization_id"] else {})
