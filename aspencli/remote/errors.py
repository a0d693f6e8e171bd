"""Explanations of the API's error responses for operators, and of clocks that disagree."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from aspencli.errors import (
    AspenError,
    BadInputError,
    ConflictError,
    CredentialsError,
    NotFoundError,
    ServiceAnswer,
    UnreachableError,
)
from aspencli.remote.http import Answer
from aspencli.remote.types import Me

UNAUTHORISED, FORBIDDEN = 401, 403
_ERRORS, _SERVER_ERRORS = 400, 500  # the lowest statuses of errors, and of server errors
_GROUP = re.compile(r"GET /v2/groups/\d+/").fullmatch
_SAMPLES = re.compile(r"(GET|PUT) /v2/orgs/\d+/pathogens/[^/]+/samples/").fullmatch
_LISTED = 20  # lines of details; the rest is counted

_MATTERS_S = 60
_IN_HOURS_FROM_S = 5_400


class BrokenSamplesError(AspenError):
    """A failure of the live service because a sample lacks data that it requires."""


class _Rule(NamedTuple):
    status: int
    pattern: str
    kind: type[AspenError]
    hint: str | None


_VISIBLE = "It does not exist, it belongs to another group, or your role does not allow access."
# The first rule that matches the status and the service's message applies.
_RULES = (
    _Rule(
        400,
        "must be unique|already exist",
        ConflictError,
        "Choose identifiers that are not in use.",
    ),
    _Rule(400, "either duplicate", BadInputError, "List each identifier only once."),
    _Rule(400, "in-progress", ConflictError, "Wait for the run to finish."),
    _Rule(400, "pathogen slug", NotFoundError, "List all pathogens: aspencli pathogens list"),
    _Rule(400, "location", NotFoundError, "Find its ID: aspencli locations search"),
    _Rule(400, "missing ids", NotFoundError, "They do not exist, or you do not have access."),
    _Rule(400, "not viewable|^Not found$|No phylo run", NotFoundError, _VISIBLE),
    _Rule(400, "", BadInputError, None),
    _Rule(404, "", NotFoundError, _VISIBLE),
    _Rule(409, "", ConflictError, "Check the existing value, and choose another one."),
    _Rule(413, "", BadInputError, "Send fewer items per request."),
)


def error_of(answer: Answer, name: str, request: str) -> AspenError:
    """Return the error for a response with a status of 300 or more.

    Args:
        answer: The response, not read yet.
        name: The display name of the API, such as ``the API of prod``.
        request: The request, such as ``GET /v2/users/me``.
    """
    body = _body_of(answer)
    said = ServiceAnswer(answer.status, _text(body), _extra(body))
    if answer.status < _ERRORS:
        return _elsewhere(answer, name, said)
    if answer.status in {UNAUTHORISED, FORBIDDEN}:
        return _not_you(answer, name, said)
    if isinstance(said.extra.get("detail"), list):
        return _invalid(said.extra["detail"], name, said)
    if _GROUP(request) and answer.status == _ERRORS and said.text == "Not found":
        # The service says this if the user has no role in the group; elsewhere it returns a 403.
        return _no_role(name, said)
    if isinstance(body, dict) and "error" in body:
        return _told(name, said)
    return _unexplained(name, request, said)


def no_api(answer: Answer, name: str) -> UnreachableError:
    """Return the error for a response that does not come from the API."""
    return UnreachableError(
        f"The response from {answer.url.partition('?')[0]} is not from {name}: expected JSON, "
        f"got {answer.kind or 'no content type'}.",
        hint="There may be a proxy or a sign-in page in front of it. Check its URL (aspencli "
        "config show), your network, and OAUTH2_PROXY_COOKIE.",
    )


def forbidden(path: str, me: Me | None, method: str = "GET") -> tuple[tuple[str, ...], str]:
    """Return who was refused, and a hint on what to do about it.

    Args:
        path: The path of the request.
        method: The method of the request.
        me: The signed-in user, or None if not known.
    """
    who = () if me is None else (f"You are signed in as {me['name']}, with {_roles(me)}.",)
    found = re.match(r"/v2/(orgs|groups)/(\d+)/", path)
    if found is None:
        return who, "Only a system administrator can do this."
    group = int(found[2])
    if method == "POST" and path.endswith("/invitations/"):
        return who, (
            f"Only an administrator of group {group} or a system administrator can invite people "
            "to it. Also check that the group exists."
        )
    if me is not None and any(each["id"] == group for each in me["groups"]):
        return (
            who,
            f"Your role in group {group} does not allow this. Ask an administrator of the group.",
        )
    return who, (
        f"You need a role in group {group}; system administrators do not have access to every "
        "group's data. Ask an administrator of the group to invite you, or, as a system "
        "administrator, invite yourself: "
        f"aspencli groups invite --group {group} --role member YOUR-ADDRESS"
    )


def skew_words(seconds_ahead: float | None, name: str) -> str | None:
    """Return a message about a wrong clock, or None if the clocks agree well enough.

    Args:
        seconds_ahead: How far the server's clock is ahead of this machine's; None if not known.
        name: The display name of the server.
    """
    off = abs(seconds_ahead or 0)
    if seconds_ahead is None or off < _MATTERS_S:
        return None
    span = f"{off / 3600:,.1f} hours" if off >= _IN_HOURS_FROM_S else f"{off / 60:.0f} minutes"
    way = "behind" if seconds_ahead > 0 else "ahead of"
    return f"this machine's clock is {span} {way} the clock of {name}"


def _roles(me: Me) -> str:
    if not me["groups"]:
        return "no role in any group"
    roles = (f"{g['name']} ({g['id']}): {', '.join(g['roles'])}" for g in me["groups"])
    return "these roles: " + "; ".join(roles)


def _body_of(answer: Answer) -> Any:
    text = answer.read().decode(errors="replace")
    try:
        return json.loads(text)
    except ValueError:
        return text


def _text(body: Any) -> str:
    if isinstance(body, str):
        return body.strip() if "<" not in body else ""  # a web page has no short message
    if isinstance(body, Mapping):
        said = body.get("error", body.get("detail", ""))
        return said if isinstance(said, str) else ""
    return ""


def _extra(body: Any) -> dict[str, Any]:
    if not isinstance(body, Mapping):
        return {}
    return {key: value for key, value in body.items() if key != "error"}


def _elsewhere(answer: Answer, name: str, said: ServiceAnswer) -> UnreachableError:
    where = answer.headers.get("location", "").partition("?")[0]
    return UnreachableError(
        f"Unexpected redirect (HTTP {said.status}) from {name} to {where or 'an unknown URL'}.",
        hint="It was not followed, because your sign-in is only for this host. If there is a proxy "
        "with its own sign-in in front of it, set OAUTH2_PROXY_COOKIE. Otherwise check --api.",
        answer=said,
    )


def _told(name: str, said: ServiceAnswer) -> AspenError:
    details = list(_lines(said.extra))
    for rule in _RULES:
        if rule.status == said.status and re.search(rule.pattern, said.text, re.I):
            return rule.kind(
                f"Request rejected by {name}: {said.text}",
                hint=rule.hint,
                details=details,
                answer=said,
            )
    return AspenError(
        f"Error from {name}: {said.text} (HTTP {said.status})",
        hint="This is not your fault. Report it to the service's administrators, with the time.",
        details=details,
        answer=said,
    )


def _lines(extra: Mapping[str, Any]) -> Iterator[str]:
    """Yield the other fields of an error response, item by item."""
    for key, value in extra.items():
        items = value if isinstance(value, list) else [value]
        for item in items[:_LISTED]:
            yield item if isinstance(item, str) else f"{key}: {json.dumps(item)}"
        if len(items) > _LISTED:
            yield f"... and {len(items) - _LISTED:,} more"


def _invalid(found: list[Any], name: str, said: ServiceAnswer) -> BadInputError:
    lines = list(dict.fromkeys(_complaint(item) for item in found))  # the service repeats messages
    if len(lines) > _LISTED:
        lines[_LISTED:] = [f"... and {len(lines) - _LISTED:,} more"]
    return BadInputError(
        f"Invalid values, rejected by {name} (HTTP {said.status}).",
        hint="Fix them, then run the command again.",
        details=lines,
        answer=said,
    )


def _complaint(item: Any) -> str:
    if not isinstance(item, Mapping):
        return json.dumps(item)
    place = ""
    for step in item.get("loc", ()):
        place += f"[{step}]" if isinstance(step, int) else f".{step}"
    where = re.sub(r"^\.(body|path|query)\b\.?", "", place).lstrip(".")
    return f"{where or 'the request'}: {item.get('msg') or item.get('type') or 'invalid'}"


def _no_role(name: str, said: ServiceAnswer) -> CredentialsError:
    # This is treated as a 403, so that the missing role is explained in the same way.
    return CredentialsError(
        f"The group does not exist, or you do not have access to it in {name}.",
        answer=ServiceAnswer(FORBIDDEN, said.text, said.extra),
    )


def _not_you(answer: Answer, name: str, said: ServiceAnswer) -> CredentialsError:
    if answer.status == FORBIDDEN:
        return CredentialsError(f"Permission denied by {name}: {said.text}", answer=said)
    clocks = skew_words(answer.seconds_ahead, name)
    return CredentialsError(
        f"Your sign-in was rejected by {name}.", details=[clocks] if clocks else (), answer=said
    )


def _why_broken(request: str) -> str | None:
    """Return the known cause of a failure for which the live service gives no reason."""
    if _SAMPLES(request):
        return (
            "The service fails for the whole list if any sample that you can see has no location."
            if request.startswith("GET")
            else "The service fails for the whole request if any of its samples has no location or "
            "no genome."
        )
    return None


def _unexplained(name: str, request: str, said: ServiceAnswer) -> AspenError:
    if said.status < _SERVER_ERRORS:
        return AspenError(
            f"{request} is not supported by {name} (HTTP {said.status}).",
            hint="Check the URL and the version of the API: aspencli config show",
            answer=said,
        )
    cause = _why_broken(request) if said.status == _SERVER_ERRORS else None
    if cause is not None:
        return BrokenSamplesError(
            f"{request} failed: {name} returned HTTP {said.status}.",
            hint="Give each sample a location and a genome, then run the command again. "
            "If you have database access: aspencli samples list --via db",
            details=[cause],
            answer=said,
        )
    return AspenError(
        f"{request} failed: {name} returned HTTP {said.status} without a reason.",
        hint="The reason is in the service's log. Usually nothing was changed, but check before "
        "you try again.",
        answer=said,
    )
