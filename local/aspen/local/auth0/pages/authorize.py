"""The pages where a user grants access: to a web application, or to a device by its code.

A web application (the authorization code grant) also signs its users out here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import parse_qsl, urlencode, urlsplit

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from aspen.local.auth0.clients import KnownClient, Parameters, allows_address, find_client
from aspen.local.auth0.codes import CodeRequest, add_code, is_member, wanted_by
from aspen.local.auth0.device import Asked, decide, find_request, tidy
from aspen.local.auth0.errors import OAuthError, PageError
from aspen.local.auth0.pages.render import SCOPE_TEXTS, onward, page
from aspen.local.auth0.pages.sign_in import find_invitation, organization_name, sign_in_address
from aspen.local.auth0.pages.visits import Person, Visit, VisitOf, end_session
from aspen.local.auth0.settings import audit
from aspen.local.auth0.store import Grant, ProviderOf

router = APIRouter()

_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")


def _read_query(request: Request) -> Mapping[str, str]:
    pairs = parse_qsl(request.url.query, keep_blank_values=False)
    if len(dict(pairs)) < len(pairs):
        raise PageError("Invalid request", "A parameter occurs more than once in the URL.")
    return dict(pairs)


Query = Annotated[Mapping[str, str], Depends(_read_query)]


@router.get("/authorize")
def authorize(visit: VisitOf, sent: Query) -> Response:
    """Redirect to the client with a code; ask the user to sign in first if necessary."""
    client = _client(visit, sent)
    try:
        asked = _code_request(visit, client, sent)
        person = visit.person
        if person is None or _must_sign_in(visit, person, asked, sent):
            return _ask_to_sign_in(visit, client, asked, sent)
        with visit.provider.database.writing() as db:
            code = add_code(visit.provider, db, asked, person.user_id, person.auth_time)
    except OAuthError as error:
        audit("authorize.refused", client=client.client_id, error=error.error)
        return _back(sent, error.body())
    audit(
        "code.issued",
        client=client.client_id,
        user=person.user_id,
        organization=asked.wanted.organization_id,
    )
    return _back(sent, {"code": code})


@router.get("/v2/logout")
def logout(request: Request, provider: ProviderOf, sent: Query) -> Response:
    """Sign the user out, then redirect to the URL that the client requested."""
    target = sent.get("returnTo")
    with provider.database.writing() as db:
        if target is not None and not _may_return(
            find_client(db, sent.get("client_id", "")), target
        ):
            raise PageError(
                "URL not registered",
                f"The client did not register {target} as a sign-out URL.",
            )
        response = _signed_out(target)
        user_id = end_session(request, db, response)
    audit("user.signed_out", user=user_id)
    return response


def _signed_out(target: str | None) -> Response:
    if target is None:
        return page("signed_out", None)
    return RedirectResponse(target, 302, headers={"Cache-Control": "no-store"})


def _may_return(client: KnownClient | None, target: str) -> bool:
    return client is not None and allows_address(client.logout_urls, target)


def _client(visit: Visit, sent: Mapping[str, str]) -> KnownClient:
    """Return the client, after checking that it registered the redirect URI."""
    with visit.provider.database.reading() as db:
        client = find_client(db, sent.get("client_id", ""))
    if client is None:
        raise PageError("Unknown app", "No client has this client_id.")
    if not allows_address(client.callbacks, sent.get("redirect_uri", "")):
        raise PageError(
            "URL not registered",
            f"{client.name} did not register this callback URL:"
            f" {sent.get('redirect_uri', '(none)')}",
        )
    return client


def _code_request(visit: Visit, client: KnownClient, sent: Mapping[str, str]) -> CodeRequest:
    client.require(Grant.AUTHORIZATION_CODE)
    if sent.get("response_type") != "code":
        raise OAuthError("unsupported_response_type", "Only response_type=code is supported.")
    if sent.get("response_mode", "query") != "query":
        raise OAuthError("invalid_request", "Only response_mode=query is supported.")
    with visit.provider.database.reading() as db:
        wanted = wanted_by(db, visit.provider.settings, client, sent)
    return CodeRequest(
        client_id=client.client_id,
        redirect_uri=sent["redirect_uri"],
        wanted=wanted,
        nonce=sent.get("nonce"),
        challenge=_challenge(sent),
    )


def _challenge(sent: Mapping[str, str]) -> str | None:
    challenge = sent.get("code_challenge")
    if challenge is None:
        return None
    if sent.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(challenge):
        raise OAuthError("invalid_request", "Only code_challenge_method=S256 is supported.")
    return challenge


def _must_sign_in(
    visit: Visit, person: Person, asked: CodeRequest, sent: Mapping[str, str]
) -> bool:
    if "invitation" in sent or "login" in sent.get("prompt", ""):
        return True
    age = visit.provider.now() - person.auth_time
    if "max_age" in sent and (not sent["max_age"].isdigit() or age > int(sent["max_age"])):
        return True
    organization = asked.wanted.organization_id
    if organization is None:
        return False
    with visit.provider.database.reading() as db:
        return not is_member(db, organization, person.user_id)


def _ask_to_sign_in(
    visit: Visit, client: KnownClient, asked: CodeRequest, sent: Mapping[str, str]
) -> Response:
    if sent.get("prompt") == "none":
        raise OAuthError("login_required", "Login required")
    organization, invitation = asked.wanted.organization_id, sent.get("invitation")
    if invitation is not None:
        with visit.provider.database.reading() as db:
            find_invitation(db, invitation, organization, visit.provider.now())
    # Drop the parameters that asked for a new sign-in, as this one satisfies them.
    rest = {k: v for k, v in sent.items() if k not in {"prompt", "max_age", "invitation"}}
    return onward(
        sign_in_address(
            visit.provider,
            f"/authorize?{urlencode(rest)}",
            program=client.name,
            leads_to=asked.redirect_uri,
            organization_id=organization,
            invitation=invitation,
            hint=sent.get("login_hint"),
        )
    )


def _back(sent: Mapping[str, str], result: Mapping[str, str]) -> Response:
    address, state = sent["redirect_uri"], sent.get("state")
    query = urlencode({**result, **({"state": state} if state is not None else {})})
    joint = "&" if urlsplit(address).query else "?"
    return RedirectResponse(f"{address}{joint}{query}", 302, headers={"Cache-Control": "no-store"})


@router.get("/activate")
def enter_code(visit: VisitOf, user_code: str = "") -> Response:
    """Show the page to enter a code; with a code in the URL, skip it."""
    return _judge(visit, user_code) if user_code else _code_page(visit)


@router.post("/activate")
def take_code(visit: VisitOf, parameters: Parameters) -> Response:
    """Process the code that the user entered."""
    visit.check(parameters)
    return _judge(visit, parameters.get("user_code", ""))


@router.get("/activate/confirm")
def confirm(visit: VisitOf, user_code: str = "") -> Response:
    """Show the requested access, and the user who would grant it."""
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
    """Record the decision."""
    visit.check(parameters)
    asked = _asked(visit, parameters.get("user_code", ""))
    decision = parameters.get("decision")
    if decision not in {"approve", "deny"}:
        raise PageError("No choice made", "Go back, then choose Approve or Deny.")
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
    """Show the outcome, and ask the user to return to the program."""
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
        "This code is no longer valid",
        "It was already used, or it has expired. Start again from the app that showed it.",
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
