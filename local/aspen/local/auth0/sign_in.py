"""The pages where people sign in, and grant access to an app or, by its code, to a device.

To sign in, a person chooses one of the known users, or accepts an invitation: there are no
passwords. A web application (the authorization code grant) also signs its users out here.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from sqlite3 import Connection, Row
from types import MappingProxyType
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Depends, Request, Response

from aspen.local.auth0 import tokens
from aspen.local.auth0.audit import audit
from aspen.local.auth0.clients import (
    KnownClient,
    OAuthError,
    PageError,
    Parameters,
    allows_address,
    find_client,
    required,
    with_query,
)
from aspen.local.auth0.pages import (
    Visit,
    VisitOf,
    begin_session,
    end_session,
    onward,
    page,
    signed,
    unpacked,
)
from aspen.local.auth0.settings import new_user_id
from aspen.local.auth0.store import Grant, ProviderOf, insert

router = APIRouter()

_MOST = 24
_LONGEST_NAME = 300
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
# The description of each scope on the page.
_SCOPE_TEXTS = {
    "openid": "Verify who you are",
    "profile": "See your name",
    "email": "See your e-mail address",
    "offline_access": "Stay signed in until you sign out of it",
}


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
        wanted = _wanted(visit, client, sent)
        person = visit.person
        if person is None or _must_sign_in(visit, person, wanted, sent):
            return _ask_to_sign_in(visit, client, wanted, sent)
        with visit.provider.database.writing() as db:
            code = tokens.add_code(visit.provider, db, wanted, sent, person)
    except OAuthError as error:
        about = {"error": error.error, **error.about, "description": error.description}
        audit("authorize.refused", client=client.client_id, **about)
        return _back(sent, error.body())
    audit(
        "code.issued",
        client=client.client_id,
        user=person["user_id"],
        organization=wanted.organization_id,
    )
    return _back(sent, {"code": code})


@router.get("/v2/logout")
def logout(request: Request, provider: ProviderOf, sent: Query) -> Response:
    """Sign the user out, then redirect to the URL that the client requested."""
    target = sent.get("returnTo")
    response = onward(target, 302) if target else page("signed_out", None)
    with provider.database.writing() as db:
        client = find_client(db, sent.get("client_id", ""))
        if target and not (client and allows_address(client.logout_urls, target)):
            raise PageError(
                "URL not registered",
                f"The client did not register {target} as a sign-out URL.",
            )
        user_id = end_session(request, db, response)
    audit("user.signed_out", user=user_id)
    return response


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


def _wanted(visit: Visit, client: KnownClient, sent: Mapping[str, str]) -> tokens.RequestedAccess:
    client.require(Grant.AUTHORIZATION_CODE)
    if sent.get("response_type") != "code":
        raise OAuthError("unsupported_response_type", "Only response_type=code is supported.")
    if sent.get("response_mode", "query") != "query":
        raise OAuthError("invalid_request", "Only response_mode=query is supported.")
    with visit.provider.database.reading() as db:
        wanted = tokens.wanted_by(db, visit.provider.settings, client, sent)
    challenge = sent.get("code_challenge")
    if challenge is not None and (
        sent.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(challenge)
    ):
        raise OAuthError("invalid_request", "Only code_challenge_method=S256 is supported.")
    return wanted


def _must_sign_in(
    visit: Visit, person: Row, wanted: tokens.RequestedAccess, sent: Mapping[str, str]
) -> bool:
    if "invitation" in sent or "login" in sent.get("prompt", ""):
        return True
    age = time.time() - person["auth_time"]
    if "max_age" in sent and (not sent["max_age"].isdigit() or age > int(sent["max_age"])):
        return True
    return not _may_act(visit, wanted.organization_id, person)


def _ask_to_sign_in(
    visit: Visit, client: KnownClient, wanted: tokens.RequestedAccess, sent: Mapping[str, str]
) -> Response:
    if sent.get("prompt") == "none":
        raise OAuthError("login_required", "Login required")
    organization, invitation = wanted.organization_id, sent.get("invitation")
    if invitation is not None:
        with visit.provider.database.reading() as db:
            _find_invitation(db, invitation, organization)
    # Drop the parameters that asked for a new sign-in, as this one satisfies them.
    rest = {k: v for k, v in sent.items() if k not in {"prompt", "max_age", "invitation"}}
    return onward(
        _sign_in_address(
            visit,
            f"/authorize?{urlencode(rest)}",
            client.client_id,
            organization,
            leads_to=sent["redirect_uri"],
            invitation=invitation,
            hint=sent.get("login_hint"),
        )
    )


def _back(sent: Mapping[str, str], result: Mapping[str, str]) -> Response:
    state = {"state": sent["state"]} if "state" in sent else {}
    return onward(with_query(sent["redirect_uri"], {**result, **state}), 302)


@router.get("/activate")
def enter_code(visit: VisitOf, user_code: str = "") -> Response:
    """Show the page to enter a code; with a code in the URL, skip it."""
    return _judge(visit, user_code or None)


@router.post("/activate")
def take_code(visit: VisitOf, parameters: Parameters) -> Response:
    """Process the code that the user entered."""
    visit.check(parameters)
    return _judge(visit, parameters.get("user_code", ""))


@router.get("/activate/confirm")
def confirm(visit: VisitOf, user_code: str = "") -> Response:
    """Show the requested access, and the user who would grant it."""
    asked = _asked(visit, user_code)
    address = _device_sign_in_address(visit, asked)
    if not _may_act(visit, asked["organization_id"], visit.person):
        return onward(address)
    scopes = [_SCOPE_TEXTS[name] for name in asked["scope"].split()]
    return page("confirm", visit, asked=asked, scopes=scopes, person=visit.person, another=address)


@router.post("/activate/confirm")
def take_decision(visit: VisitOf, parameters: Parameters) -> Response:
    """Record the decision."""
    visit.check(parameters)
    asked = _asked(visit, parameters.get("user_code", ""))
    decision, person = parameters.get("decision"), visit.person
    if decision not in {"approve", "deny"}:
        raise PageError("No choice made", "Go back, then choose Approve or Deny.")
    if person is None or not _may_act(visit, asked["organization_id"], person):
        return onward(_device_sign_in_address(visit, asked))
    approve = decision == "approve"
    with visit.provider.database.writing() as db:
        decided = tokens.decide(db, asked["user_code"], person, approve=approve)
    if not decided:
        raise _gone()
    audit(
        "device.approved" if approve else "device.denied",
        client=asked["client_id"],
        user=person["user_id"],
    )
    return onward(f"/activate/done?{urlencode({'outcome': decision})}")


@router.get("/activate/done")
def done(outcome: str = "") -> Response:
    """Show the outcome, and ask the user to return to the program."""
    return page("done", None, approved=outcome == "approve")


def _judge(visit: Visit, typed: str | None) -> Response:
    """Continue with a user code as typed; if it is invalid or None, show the page to enter it."""
    if typed is None:
        return page("activate", visit, user_code="", failed=False)
    with visit.provider.database.reading() as db:
        asked = tokens.find_request(db, typed)
    if asked is None:
        return page("activate", visit, status=400, user_code=typed[:20], failed=True)
    return onward(_confirm_address(asked))


def _asked(visit: Visit, user_code: str) -> Row:
    with visit.provider.database.reading() as db:
        asked = tokens.find_request(db, user_code)
    if asked is None:
        raise _gone()
    return asked


def _may_act(visit: Visit, organization_id: str | None, person: Row | None) -> bool:
    """Return True if a person is signed in, and belongs to the requested organization, if any."""
    if person is None:
        return False
    with visit.provider.database.reading() as db:
        return tokens.is_member(db, organization_id, person["user_id"])


def _gone() -> PageError:
    return PageError(
        "This code is no longer valid",
        "It was already used, or it has expired. Start again from the app that showed it.",
    )


def _confirm_address(asked: Row) -> str:
    return f"/activate/confirm?{urlencode({'user_code': asked['user_code']})}"


def _device_sign_in_address(visit: Visit, asked: Row) -> str:
    return _sign_in_address(
        visit, _confirm_address(asked), asked["client_id"], asked["organization_id"]
    )


def _sign_in_address(
    visit: Visit, then: str, client_id: str, organization_id: str | None, **more: str | None
) -> str:
    """Return the URL of the page to sign in to a client, which then continues at ``then``.

    Only members of an organization, if given, can be chosen. More is the ticket of an
    ``invitation``, the address to fill in (``hint``), and the external URL that the page finally
    ``leads_to``.
    """
    state = {"then": then, "client": client_id, "organization": organization_id, **more}
    return f"/login?{urlencode({'state': signed(visit.provider, 'state', state)})}"


@router.get("/login")
def choose(visit: VisitOf, state: str = "") -> Response:
    """Show the sign-in page."""
    return _sign_in_page(visit, state)


@router.post("/login")
def sign_in(visit: VisitOf, parameters: Parameters) -> Response:
    """Sign in the chosen user, then redirect to the page that required it."""
    visit.check(parameters)
    state = required(parameters, "state")
    wanted = unpacked(visit.provider, state)
    response = onward(wanted["then"])
    try:
        with visit.provider.database.writing() as db:
            if wanted.get("invitation"):
                user_id = _accept(db, wanted, parameters.get("name", "").strip())
            else:
                user_id = _find_user(db, parameters.get("email", "").strip())
                _check_membership(db, wanted["organization"], user_id)
            begin_session(db, response, user_id)
    except PageError as error:
        return _sign_in_page(visit, state, error, parameters)
    client_id, organization_id = wanted["client"], wanted["organization"]
    audit("user.signed_in", client=client_id, user=user_id, organization=organization_id)
    return response


def _sign_in_page(
    visit: Visit,
    state: str,
    error: PageError | None = None,
    typed: Mapping[str, str] = MappingProxyType({}),
) -> Response:
    wanted = unpacked(visit.provider, state)
    organization_id = wanted["organization"]
    template = "sign_in"
    invitation: Row | None = None
    offered: list[str] = []
    with visit.provider.database.reading() as db:
        if wanted.get("invitation"):
            invitation = _find_invitation(db, wanted["invitation"], organization_id)
            offered = [role["name"] for role in _offered_roles(db, invitation)]
            template = "invitation" if _has_account(db, invitation) else "sign_up"
        client = find_client(db, wanted["client"])
        accounts, more = _accounts(db, organization_id)
        organization = _organization_name(db, organization_id)
    return page(
        template,
        visit,
        status=error.status if error else 200,
        leads_to=wanted.get("leads_to", ""),
        state=state,
        invitation=invitation,
        offered=offered,
        accounts=accounts,
        more=more,
        organization=organization,
        program=client.name if client else wanted["client"],
        current=visit.person["user_id"] if visit.person else None,
        email=typed.get("email") or wanted.get("hint") or "",
        name=typed.get("name", ""),
        error=error,
    )


def _check_membership(db: Connection, organization_id: str | None, user_id: str) -> None:
    if not tokens.is_member(db, organization_id, user_id):
        why = "user is not part of the organization"
        audit("sign_in.refused", user=user_id, organization=organization_id, description=why)
        raise PageError(
            "Not a member",
            f"This account is not a member of {_organization_name(db, organization_id)}.",
            403,
        )


def _accept(db: Connection, wanted: dict[str, str], name: str) -> str:
    """Make the invited person a member, signing them up if needed; return their user ID."""
    try:
        invitation = _find_invitation(db, wanted["invitation"], wanted["organization"])
    except PageError as error:
        organization_id = wanted["organization"]
        audit("invitation.refused", organization=organization_id, description=error.title)
        raise
    if not _has_account(db, invitation):
        _sign_up(db, invitation, name)
    user_id = _find_user(db, invitation["invitee_email"])
    place = {"organization_id": invitation["organization_id"], "user_id": user_id}
    insert(db, "members", place, "ON CONFLICT DO NOTHING")
    for role in _offered_roles(db, invitation):
        insert(db, "member_roles", {**place, "role_id": role["id"]}, "ON CONFLICT DO NOTHING")
    db.execute("DELETE FROM invitations WHERE id = ?", (invitation["id"],))
    audit("invitation.accepted", user=user_id, organization=invitation["organization_id"])
    return user_id


def _has_account(db: Connection, invitation: Row) -> bool:
    """Return True if the invited person has an account."""
    found = db.execute("SELECT 1 FROM users WHERE email = ?", (invitation["invitee_email"],))
    return found.fetchone() is not None


def _sign_up(db: Connection, invitation: Row, name: str) -> None:
    """Add the invited person as a user; without a name, the address is the name, as at Auth0."""
    if len(name) > _LONGEST_NAME:
        raise PageError("Invalid name", f"Use at most {_LONGEST_NAME} characters for the name.")
    now, email, user_id = time.time(), invitation["invitee_email"], new_user_id()
    row = {
        "user_id": user_id,
        "email": email,
        "name": name or email,
        "email_verified": True,
        "user_metadata": invitation["user_metadata"],
        "app_metadata": invitation["app_metadata"],
        "created_at": now,
        "updated_at": now,
    }
    insert(db, "users", row)
    audit("user.signed_up", user=user_id)


def _accounts(db: Connection, organization_id: str | None) -> tuple[list[dict[str, Any]], int]:
    """Return the first users to choose from, and the number of further ones."""
    rows = db.execute(
        "SELECT user_id, name, email FROM users u WHERE NOT blocked AND (:organization IS NULL OR"
        " EXISTS (SELECT 1 FROM members m WHERE m.user_id = u.user_id"
        " AND m.organization_id = :organization)) ORDER BY created_at, rowid",
        {"organization": organization_id},
    ).fetchall()
    return [_account(db, row) for row in rows[:_MOST]], max(0, len(rows) - _MOST)


def _account(db: Connection, row: Row) -> dict[str, Any]:
    held = db.execute(
        "SELECT o.display_name, group_concat(r.name, ', ') AS roles FROM members m"
        " JOIN organizations o ON o.id = m.organization_id"
        " LEFT JOIN member_roles mr USING (organization_id, user_id)"
        " LEFT JOIN roles r ON r.id = mr.role_id WHERE user_id = ?"
        " GROUP BY o.id ORDER BY o.created_at, o.rowid",
        (row["user_id"],),
    )
    words = row["name"].split() or [row["email"]]
    return {
        **row,
        "roles": [f"{at['roles'] or 'no role'}, {at['display_name']}" for at in held],
        "initials": "".join(word[0] for word in (words[0], *words[1:][-1:])).upper(),
        "shade": sum(row["user_id"].encode()) % 6,  # one of the style sheet's colors
    }


def _find_user(db: Connection, email: str) -> str:
    row = db.execute("SELECT user_id, blocked FROM users WHERE email = ?", (email,)).fetchone()
    if row is None:
        audit("sign_in.unknown", email=email)
        raise PageError("Unknown user", f"No user has the e-mail address {email}.")
    if row["blocked"]:
        audit("sign_in.refused", user=row["user_id"], description="user is blocked")
        raise PageError("You cannot sign in", f"The account {email} is blocked.", 403)
    return str(row["user_id"])


def _organization_name(db: Connection, organization_id: str | None) -> str | None:
    row = db.execute(
        "SELECT display_name FROM organizations WHERE id = ?", (organization_id,)
    ).fetchone()
    return None if row is None else str(row["display_name"])


def _find_invitation(db: Connection, ticket: str, organization_id: str | None) -> Row:
    row: Row | None = db.execute(
        "SELECT i.*, o.display_name AS organization FROM invitations i"
        " JOIN organizations o ON o.id = i.organization_id"
        " WHERE ticket = ? AND expires_at > ? AND organization_id = ?",
        (ticket, time.time(), organization_id),
    ).fetchone()
    if row is None:
        raise PageError(
            "This invitation is no longer valid",
            "It was accepted or withdrawn, or it has expired. If you accepted it, sign in as usual."
            " Otherwise, ask for a new invitation.",
        )
    return row


def _offered_roles(db: Connection, invitation: Row) -> list[Row]:
    """Return the roles that an invitation offers, if they still exist."""
    return db.execute(
        "SELECT r.* FROM json_each(?) offered JOIN roles r ON r.id = offered.value"
        " ORDER BY offered.key",
        (invitation["roles"],),
    ).fetchall()
