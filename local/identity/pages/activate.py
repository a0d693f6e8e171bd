"""The page of the device authorization grant: enter the code, sign in, approve or deny."""

from __future__ import annotations

from urllib.parse import urlencode

from fastapi import APIRouter, Response

from local.identity.audit import audit
from local.identity.errors import PageError
from local.identity.oauth.device import Asked, decide, find_request, tidy
from local.identity.oauth.parameters import Parameters
from local.identity.oauth.requests import is_member
from local.identity.pages.accounts import organization_name
from local.identity.pages.rendering import SCOPE_TEXTS, onward, page
from local.identity.pages.signin import sign_in_address
from local.identity.pages.visits import Person, Visit, VisitOf

router = APIRouter()


@router.get("/activate")
def enter_code(visit: VisitOf, user_code: str = "") -> Response:
    """The page to enter a code on; a code in the address saves the typing."""
    return _judge(visit, user_code) if user_code else _code_page(visit)


@router.post("/activate")
def take_code(visit: VisitOf, parameters: Parameters) -> Response:
    """Take the code that was typed."""
    visit.check(parameters)
    return _judge(visit, parameters.get("user_code", ""))


@router.get("/activate/confirm")
def confirm(visit: VisitOf, user_code: str = "") -> Response:
    """Show who asks for what, and as whom it would be answered."""
    asked = _asked(visit, user_code)
    if visit.person is None or not _may_answer(visit, asked, visit.person):
        return onward(_sign_in_address(visit, asked))
    with visit.provider.database.reading() as db:
        organization = organization_name(db, asked.organization_id)
    return page(
        "confirm",
        visit,
        asked=asked,
        scopes=[SCOPE_TEXTS[name] for name in asked.scope.split()],
        person=visit.person,
        organization=organization,
        another=_sign_in_address(visit, asked),
    )


@router.post("/activate/confirm")
def take_decision(visit: VisitOf, parameters: Parameters) -> Response:
    """Note what was decided."""
    visit.check(parameters)
    asked = _asked(visit, parameters.get("user_code", ""))
    decision = parameters.get("decision")
    if decision not in {"approve", "deny"}:
        raise PageError("Nothing was decided", "Go back, then choose to approve or to deny.")
    if visit.person is None or not _may_answer(visit, asked, visit.person):
        return onward(_sign_in_address(visit, asked))
    person, approve = visit.person, decision == "approve"
    with visit.provider.database.writing() as db:
        decided = decide(db, asked.user_code, person.user_id, person.auth_time, approve=approve)
    if not decided:
        raise _gone()
    audit(
        "device.approved" if approve else "device.denied",
        client=asked.client_id,
        user=person.user_id,
    )
    return onward(f"/activate/done?{urlencode({'outcome': decision})}")


@router.get("/activate/done")
def done(outcome: str = "") -> Response:
    """Say that it is done, and that the person can go back."""
    return page("done", None, approved=outcome == "approve")


def _judge(visit: Visit, typed: str) -> Response:
    with visit.provider.database.reading() as db:
        asked = find_request(db, tidy(typed), visit.provider.now())
    if asked is None or asked.status != "pending":
        return _code_page(visit, typed, failed=True)
    return onward(_confirm_address(asked.user_code))


def _code_page(visit: Visit, typed: str = "", *, failed: bool = False) -> Response:
    return page(
        "activate", visit, status=400 if failed else 200, user_code=typed[:20], failed=failed
    )


def _asked(visit: Visit, user_code: str) -> Asked:
    with visit.provider.database.reading() as db:
        asked = find_request(db, tidy(user_code), visit.provider.now())
    if asked is None or asked.status != "pending":
        raise _gone()
    return asked


def _may_answer(visit: Visit, asked: Asked, person: Person) -> bool:
    """Return True if a person belongs to the requested organization, or none is requested."""
    if asked.organization_id is None:
        return True
    with visit.provider.database.reading() as db:
        return is_member(db, asked.organization_id, person.user_id)


def _gone() -> PageError:
    return PageError(
        "This code does not hold any more",
        "It was answered already, or has expired. Start again from the program that showed it.",
    )


def _confirm_address(user_code: str) -> str:
    return f"/activate/confirm?{urlencode({'user_code': user_code})}"


def _sign_in_address(visit: Visit, asked: Asked) -> str:
    return sign_in_address(
        visit.provider,
        _confirm_address(asked.user_code),
        program=asked.client_name,
        organization_id=asked.organization_id,
    )
