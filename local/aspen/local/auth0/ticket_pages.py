"""The pages that tickets lead to: one sets a password, the other verifies an e-mail address."""

from __future__ import annotations

from sqlite3 import Row

from fastapi import APIRouter, Response

from aspen.local.auth0.audit import audit
from aspen.local.auth0.clients import PageError, Parameters
from aspen.local.auth0.pages import Visit, VisitOf, onward, page
from aspen.local.auth0.store import ProviderOf
from aspen.local.auth0.tickets import Purpose, after_use, continuation, find_ticket, use_ticket

router = APIRouter()


@router.get(f"/{Purpose.SET_PASSWORD}")
def ask_for_password(visit: VisitOf, ticket: str = "") -> Response:
    """Show the page to set a password."""
    return _password_page(visit, ticket)


@router.post(f"/{Purpose.SET_PASSWORD}")
def set_password(visit: VisitOf, parameters: Parameters) -> Response:
    """Use the ticket. The password is not stored, since signing in requires none."""
    visit.check(parameters)
    secret, password = parameters.get("ticket", ""), parameters.get("password")
    if not password or password != parameters.get("repeated"):
        why = "The passwords are not the same." if password else "Enter a password."
        return _password_page(visit, secret, problem=why)
    with visit.provider.database.writing() as db:
        try:
            ticket = find_ticket(db, Purpose.SET_PASSWORD, secret)
        except PageError as error:
            audit("password.refused", description=error.title)
            raise
        use_ticket(db, ticket)
    audit("password.set", user=ticket["user_id"])
    return _done(ticket, "Your password is set", "You can now sign in.")


@router.get(f"/{Purpose.VERIFY_EMAIL}")
def verify_email(provider: ProviderOf, ticket: str = "") -> Response:
    """Verify the e-mail address that the ticket was sent to."""
    with provider.database.writing() as db:
        found = find_ticket(db, Purpose.VERIFY_EMAIL, ticket)
        use_ticket(db, found)
    audit("email.verified", user=found["user_id"])
    return _done(found, "Your e-mail address is verified", f"You verified {found['email']}.")


def _password_page(visit: Visit, secret: str, problem: str = "") -> Response:
    with visit.provider.database.reading() as db:
        ticket = find_ticket(db, Purpose.SET_PASSWORD, secret)
    return page(
        "set_password",
        visit,
        status=400 if problem else 200,
        leads_to=ticket["result_url"] or "",
        email=ticket["email"],
        ticket=secret,
        problem=problem,
    )


def _done(ticket: Row, title: str, text: str) -> Response:
    if address := after_use(ticket, f"{title}. {text}"):
        return onward(address)
    program = ticket["client_name"]
    return page("used", None, title=title, text=text, program=program, then=continuation(ticket))
