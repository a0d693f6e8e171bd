"""Explanations of the API's error responses for operators.

Messages about clocks that disagree.
"""

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

_MATTERS_S = 60
_IN_HOURS_FROM_S = 5_400


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
    return f"this machine's clock is {span} {way} that of {name}"


UNAUTHORISED, FORBIDDEN = 401, 403
_ERRORS, _SERVER_ERRORS = 400, 500  # the lowest statuses of errors, and of server errors
_GROUP = re.compile(r"GET /v2/groups/\d+/").fullmatch
_SAMPLES = re.compile(r"(GET|PUT) /v2/orgs/\d+/pathogens/[^/]+/samples/").fullmatch
_LISTED = 20  # lines of details; the rest is counted


class BrokenSamplesError(AspenError):
    """A failure of the live service because a sample lacks data that it requires."""


class _Rule(NamedTuple):
    status: int
    pattern: str
    kind: type[AspenError]
    hint: str | None


_VISIBLE = "It does not exist, or is another group's, or your role there does not let you."
# The first rule that matches the status and the service's message applies.
_RULES = (
    _Rule(400, "must be unique|already exist", ConflictError, "Choose identifiers that are free."),
    _Rule(400, "either duplicate", BadInputError, "Give each identifier once."),
    _Rule(400, "in-progress", ConflictError, "Wait until the run has ended."),
    _Rule(400, "pathogen slug", NotFoundError, "See which there are: aspencli pathogens list"),
    _Rule(400, "location", NotFoundError, "Find its id: aspencli locations search"),
    _Rule(400, "missing ids", NotFoundError, "These are not there, or you may not see them."),
    _Rule(400, "not viewable|^Not found$|No phylo run", NotFoundError, _VISIBLE),
    _Rule(400, "", BadInputError, None),
    _Rule(404, "", NotFoundError, _VISIBLE),
    _Rule(409, "", ConflictError, "Look at what is there, and choose another value."),
    _Rule(413, "", BadInputError, "Send less at once."),
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
        f"something else than {name} answers at {answer.url.partition('?')[0]}: "
        f"{answer.kind or 'no kind of text'}, where JSON belongs",
        hint="A proxy or a sign-in page may stand before it: check the address with "
        "aspencli config show, your network, and OAUTH2_PROXY_COOKIE.",
    )


def forbidden(path: str, me: Me | None, method: str = "GET") -> tuple[tuple[str, ...], str]:
    """Return who was refused, and a hint on what to do about it.

    Args:
        path: The path of the request.
        method: The method of the request.
        me: The signed-in user, or None if not known.
    """
    who = () if me is None else (f"You are {me['name']}, with {_roles(me)}.",)
    found = re.match(r"/v2/(orgs|groups)/(\d+)/", path)
    if found is None:
        return who, "Only a system administrator may; ask one."
    group = int(found[2])
    if method == "POST" and path.endswith("/invitations/"):
        return who, (
            f"Only an administrator of group {group} or a system administrator can invite to it, "
            "and it has to exist: ask one of them."
        )
    if me is not None and any(each["id"] == group for each in me["groups"]):
        return (
            who,
            f"Your role in group {group} does not reach that far; ask an administrator of it.",
        )
    return who, (
        f"It takes a role in group {group}; being system administrator opens no group's data. "
        "Ask an administrator of the group to invite you, or invite yourself as system "
        "administrator: "
        f"aspencli groups invite --group {group} --role member YOUR-ADDRESS"
    )


def _roles(me: Me) -> str:
    if not me["groups"]:
        return "a role in no group"
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
        f"{name} sends us elsewhere ({said.status}): {where or 'it does not say where'}",
        hint="It was not followed, for the sign-in is for this host only. If a proxy with a "
        "sign-in of its own stands before it, set OAUTH2_PROXY_COOKIE; else check --api.",
        answer=said,
    )


def _told(name: str, said: ServiceAnswer) -> AspenError:
    details = list(_lines(said.extra))
    for rule in _RULES:
        if rule.status == said.status and re.search(rule.pattern, said.text, re.I):
            return rule.kind(
                f"{name} refuses: {said.text}", hint=rule.hint, details=details, answer=said
            )
    return AspenError(
        f"{name} fails: {said.text} ({said.status})",
        hint="It is no fault of yours; tell those who run it, with the time.",
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
        f"{name} does not take these values ({said.status})",
        hint="Mend them, and run it again.",
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
    return f"{where or 'the request'}: {item.get('msg') or item.get('type') or 'not valid'}"


def _no_role(name: str, said: ServiceAnswer) -> CredentialsError:
    # This is treated as a 403, so that the missing role is explained in the same way.
    return CredentialsError(
        f"{name} does not let you see that group, or it does not exist",
        answer=ServiceAnswer(FORBIDDEN, said.text, said.extra),
    )


def _not_you(answer: Answer, name: str, said: ServiceAnswer) -> CredentialsError:
    if answer.status == FORBIDDEN:
        return CredentialsError(f"{name} does not let you do that: {said.text}", answer=said)
    clocks = skew_words(answer.seconds_ahead, name)
    return CredentialsError(
        f"{name} does not accept the sign-in", details=[clocks] if clocks else (), answer=said
    )


def _why_broken(request: str) -> str | None:
    """Return the known cause of a failure for which the live service gives no reason."""
    if _SAMPLES(request):
        return (
            "The service fails for the whole list if one sample that you may see has no location."
            if request.startswith("GET")
            else "The service fails for the whole request if one of its samples has no location "
            "or no genome."
        )
    return None


def _unexplained(name: str, request: str, said: ServiceAnswer) -> AspenError:
    if said.status < _SERVER_ERRORS:
        return AspenError(
            f"{name} knows no {request} ({said.status})",
            hint="Is that the address of the API, and is it of this age? See: aspencli config show",
            answer=said,
        )
    cause = _why_broken(request) if said.status == _SERVER_ERRORS else None
    if cause is not None:
        return BrokenSamplesError(
            f"{name} failed at {request} ({said.status})",
            hint="Give each sample a location and a genome, then run the command again. "
            "With access to the database: aspencli samples list --via db",
            details=[cause],
            answer=said,
        )
    return AspenError(
        f"{name} failed at {request} and does not say why ({said.status})",
        hint="Its own log says why. As a rule nothing of what was asked is done then: look before "
        "you try again.",
        answer=said,
    )
