"""Explanations of the API's errors, and of wrong clocks."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from aspencli.errors import (
    AspenError,
    BadInputError,
    ConflictError,
    CredentialsError,
    NotFoundError,
    ServiceAnswer,
    UnreachableError,
)
from aspencli.remote.http import Answer, Request
from aspencli.remote.types import Me

T = TypeVar("T")
BrokenSamples = Callable[[Sequence[int] | None], list[str]]
"""Describes the samples with these IDs, or of the whole list, that make the live service fail, as
far as they can be determined."""
_NAMED = 20  # samples listed in an error
_UNAUTHORIZED, _FORBIDDEN = 401, 403
_ERRORS, _SERVER_ERRORS = 400, 500  # the lowest statuses of errors, and of server errors
_GROUP = re.compile(r"GET /v2/groups/\d+/").fullmatch
_SAMPLES = re.compile(r"(GET|PUT) /v2/orgs/\d+/pathogens/[^/]+/samples/").fullmatch
_LISTED = 20  # lines of details; the rest is counted

_MATTERS_S, _IN_HOURS_FROM_S = 60, 5_400  # how far clocks may differ


def _request_line(request: Request) -> str:
    return f"{request.method} {request.path}"


def _which(request: Request, broken: BrokenSamples) -> list[str]:
    """Return the samples that may have made the service fail, one line each."""
    ids = [each["id"] for each in json.loads(request.body)["samples"]] if request.body else None
    found = broken(ids)
    if found or not ids:
        return found
    named = ", ".join(map(str, ids[:_NAMED]))
    more = f" and {len(ids) - _NAMED:,} more" if len(ids) > _NAMED else ""
    return [f"The cause is one of the samples in the request: {named}{more}"]


_VISIBLE = "It does not exist, it belongs to another group, or your role does not allow access."
# The first rule that matches the status and the service's message applies.
_RULES: tuple[tuple[int, str, type[AspenError], str | None], ...] = (
    (400, "must be unique|already exist", ConflictError, "Choose identifiers that are not in use."),
    (400, "either duplicate", BadInputError, "List each identifier only once."),
    (400, "in-progress", ConflictError, "Wait for the run to finish."),
    (400, "pathogen slug", NotFoundError, "List all pathogens: aspencli pathogens list"),
    (400, "location", NotFoundError, "Find its ID: aspencli locations search"),
    (400, "missing ids", NotFoundError, "They do not exist, or you do not have access."),
    (400, "not viewable|^Not found$|No phylo run", NotFoundError, _VISIBLE),
    (400, "", BadInputError, None),
    (404, "", NotFoundError, _VISIBLE),
    (409, "", ConflictError, "Check the existing value, and choose another one."),
    (413, "", BadInputError, "Send fewer items per request."),
)


def error_of(answer: Answer, name: str, request: Request, broken: BrokenSamples) -> AspenError:
    """Return the error for a response with a status of 300 or more, which was not read yet."""
    said, explained = _read(answer)
    if answer.status < _ERRORS:
        return _elsewhere(answer, name, said)
    if answer.status in {_UNAUTHORIZED, _FORBIDDEN}:
        return _not_you(answer, name, said)
    if isinstance(said.extra.get("detail"), list):
        return _invalid(said.extra["detail"], name, said)
    if _GROUP(_request_line(request)) and answer.status == _ERRORS and said.text == "Not found":
        # The service says this if the user has no role in the group; elsewhere it returns a 403.
        return _no_role(name, said)
    if explained:
        return _told(name, said)
    return _unexplained(name, request, said, broken)


def no_api(answer: Answer, name: str) -> UnreachableError:
    """Return the error for a response that does not come from the API."""
    return UnreachableError(
        f"The response from {answer.url.partition('?')[0]} is not from {name}: expected JSON, "
        f"got {answer.kind or 'no content type'}.",
        hint="There may be a proxy or a sign-in page in front of it. Check its URL (aspencli "
        "config show), your network, and OAUTH2_PROXY_COOKIE.",
    )


def forbidden(request: Request, me: Me | None) -> tuple[tuple[str, ...], str]:
    """Return who was refused, as far as that is known, and a hint on what to do about it."""
    who = () if me is None else (f"You are signed in as {me['name']}, with {_roles(me)}.",)
    found = re.match(r"/v2/(orgs|groups)/(\d+)/", request.path)
    if found is None:
        return who, "Only a system administrator can do this."
    group = int(found[2])
    if request.method == "POST" and request.path.endswith("/invitations/"):
        return who, (
            f"Only an administrator of group {group} or a system administrator can invite people "
            "to it. Also check that the group exists."
        )
    if me is not None and any(each["id"] == group for each in me["groups"]):
        hint = f"Your role in group {group} does not allow this. Ask an administrator of the group."
        return who, hint
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


def _read(answer: Answer) -> tuple[ServiceAnswer, bool]:
    """Return what the service said, and whether it used its own format for errors."""
    text = answer.read().decode(errors="replace")
    try:
        body = json.loads(text)
    except ValueError:
        body = text
    if isinstance(body, str):  # a web page has no short message
        return ServiceAnswer(answer.status, body.strip() if "<" not in body else ""), False
    if not isinstance(body, Mapping):
        return ServiceAnswer(answer.status), False
    said = body.get("error", body.get("detail", ""))
    extra = {key: value for key, value in body.items() if key != "error"}
    message = said if isinstance(said, str) else ""
    return ServiceAnswer(answer.status, message, extra), "error" in body


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
    for status, pattern, kind, hint in _RULES:
        if status == said.status and re.search(pattern, said.text, re.I):
            words = f"Request rejected by {name}: {said.text}"
            return kind(words, hint=hint, details=details, answer=said)
    return AspenError(
        f"Error from {name}: {said.text} (HTTP {said.status})",
        hint="This is not your fault. Report it to the service's administrators, with the time.",
        details=details,
        answer=said,
    )


def _lines(extra: Mapping[str, Any]) -> Iterator[str]:
    """Yield the other fields of an error response, item by item."""
    for key, value in extra.items():
        found = value if isinstance(value, list) else [value]
        yield from _first(
            [item if isinstance(item, str) else f"{key}: {json.dumps(item)}" for item in found]
        )


def _first(lines: list[str]) -> list[str]:
    more = [f"... and {len(lines) - _LISTED:,} more"] if len(lines) > _LISTED else []
    return lines[:_LISTED] + more


def _invalid(found: list[Any], name: str, said: ServiceAnswer) -> BadInputError:
    lines = list(dict.fromkeys(_complaint(item) for item in found))  # the service repeats messages
    return BadInputError(
        f"Invalid values, rejected by {name} (HTTP {said.status}).",
        hint="Fix them, then run the command again.",
        details=_first(lines),
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
        answer=ServiceAnswer(_FORBIDDEN, said.text, said.extra),
    )


def _not_you(answer: Answer, name: str, said: ServiceAnswer) -> CredentialsError:
    if answer.status == _FORBIDDEN:
        return CredentialsError(f"Permission denied by {name}: {said.text}", answer=said)
    clocks = skew_words(answer.seconds_ahead, name)
    return CredentialsError(
        f"Your sign-in was rejected by {name}.", details=[clocks] if clocks else (), answer=said
    )


def _unexplained(
    name: str, request: Request, said: ServiceAnswer, broken: BrokenSamples
) -> AspenError:
    words = _request_line(request)
    if said.status < _SERVER_ERRORS:
        return AspenError(
            f"{words} is not supported by {name} (HTTP {said.status}).",
            hint="Check the URL and the version of the API: aspencli config show",
            answer=said,
        )
    if said.status == _SERVER_ERRORS and _SAMPLES(words):
        return _samples_failed(name, request, said, broken)
    return AspenError(
        f"{words} failed: {name} returned HTTP {said.status} without a reason.",
        hint="The reason is in the service's log. Usually nothing was changed, but check before "
        "you try again.",
        answer=said,
    )


def _samples_failed(
    name: str, request: Request, said: ServiceAnswer, broken: BrokenSamples
) -> AspenError:
    """Return the error with the known cause, for which the live service gives no reason."""
    cause = (
        "The service fails for the whole list if any sample that you can see has no location."
        if request.method == "GET"
        else "The service fails for the whole request if any of its samples has no location or "
        "no genome."
    )
    return AspenError(
        f"{_request_line(request)} failed: {name} returned HTTP {said.status}.",
        hint="Give each sample a location and a genome, then run the command again. "
        "If you have database access: aspencli samples list --via db",
        details=[cause, *_which(request, broken)],
        answer=said,
    )
