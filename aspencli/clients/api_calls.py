"""Requests to the API: signed in, and each refusal told in words."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from aspencli.clients.api_errors import (
    FORBIDDEN,
    UNAUTHORISED,
    BrokenSamplesError,
    error_of,
    forbidden,
    no_api,
)
from aspencli.clients.caller import Caller
from aspencli.clients.downloads import BEYOND_END, Downloaded, Landing, Progress
from aspencli.clients.http import Answer, Request
from aspencli.clients.json_items import items
from aspencli.clients.picking import whole
from aspencli.clients.retrying import Patience, SetbackError
from aspencli.errors import AspenError, CredentialsError
from aspencli.shapes import Me

T = TypeVar("T")
QUICK = Patience(read=40, total=120)
"""For what the service does in a second."""
HEAVY = Patience(read=150, total=900)
"""For what it may take two minutes over: long lists, changes in bulk."""
DOWNLOAD = Patience(read=150, total=3_600)
"""For files."""
ME = "/v2/users/me"
_ERRORS = 300  # statuses from here on; redirects, too, are none that we want


class TokenSource(Protocol):
    """Who is signed in, as far as a request needs to know."""

    def token(self) -> str:
        """The token to send; signs in first where that is needed and possible.

        Raises:
            CredentialsError: Nobody is signed in, and nobody is there to do it.
        """

    def renew(self, refused: str) -> str | None:
        """Another token instead of one that was refused; None where there is none."""

    def advice(self) -> str:
        """What to do when the API refuses the token."""


_NAMED = 20  # samples that an error names


@dataclass(frozen=True)
class _Call(Generic[T]):
    """A request that can be made again, with another token.

    Attributes:
        asking: Makes the request; it may differ from one try to the next.
        read: Makes something of the answer.
        patience: How long to wait.
        safe: See `Caller.call`.
        settle: See `Caller.call`.
        takes: A status that is not an error here.
    """

    asking: Callable[[], Request]
    read: Callable[[Answer], T]
    patience: Patience
    safe: bool | None = None
    settle: Callable[[], T | None] | None = None
    takes: int = 200


class ApiCalls:
    """Makes requests to the API of one target.

    Args:
        caller: Makes requests to its server.
        tokens: Who is signed in. Tokens go to that server and nowhere else, for the caller speaks
            to no other.
        cookie: What a proxy before it wants, as a Cookie header; None for nothing.
        broken: Describes the samples that make the live service fail, of these ids or of all that
            may be listed, as far as that can be found out.
    """

    def __init__(
        self,
        caller: Caller,
        tokens: TokenSource,
        cookie: str | None = None,
        broken: Callable[[Sequence[int] | None], list[str]] = lambda _ids: [],
    ):
        self._broken = broken
        self._caller = caller
        self._tokens = tokens
        self._cookie = cookie

    @property
    def name(self) -> str:
        """What an operator calls this API."""
        return self._caller.name

    def ask(
        self,
        method: str,
        path: str,
        pick: Callable[[Any], T],
        *,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        safe: bool | None = None,
        settle: Callable[[], T | None] | None = None,
        patience: Patience = QUICK,
    ) -> T:
        """Ask for JSON.

        Args:
            method: The HTTP method.
            path: The path, from ``/v2`` on.
            pick: Takes from the answer what is wanted.
            body: What to send, as JSON.
            query: What follows the question mark.
            safe: Whether it may be asked twice. Default: what only reads.
            settle: What to do when a change was sent and its answer was lost: look whether it was
                made, and return what it would have given, or None where it was not made; then it
                is sent again. The server may still be at it when this is called.
            patience: How long to wait.

        Raises:
            AspenError: It was refused, or failed; its ``answer`` says how.
            UncertainError: A change was sent, its answer was lost, and there is no ``settle``.
        """

        def read(answer: Answer) -> T:
            try:
                return pick(json.loads(answer.read()))
            except (ValueError, LookupError, TypeError) as error:
                raise no_api(answer, self.name) from error

        request = _request(method, path, body, query)
        return self._do(_Call(lambda: request, read, patience, safe, settle))

    def list(
        self, path: str, key: str, keep: Callable[[Any], T], query: Mapping[str, str] | None = None
    ) -> list[T]:
        """Ask for a list that may be long; each item is reduced while it comes.

        Args:
            path: The path.
            key: What the answer calls the list.
            keep: Makes of an item what is to be kept of it.
            query: What follows the question mark.

        Raises:
            AspenError: See `ask`.
        """

        def read(answer: Answer) -> list[T]:
            if answer.kind != "application/json":
                raise no_api(answer, self.name)
            try:
                return [keep(item) for item in items(answer.chunks(), key)]
            except ValueError as error:
                raise SetbackError("its answer is no whole list", perhaps_done=False) from error

        request = _request("GET", path, None, query)
        return self._do(_Call(lambda: request, read, HEAVY))

    def fetch(
        self,
        method: str,
        path: str,
        landing: Landing,
        progress: Progress,
        *,
        body: Any = None,
        query: Mapping[str, str] | None = None,
    ) -> Downloaded:
        """Ask for a file.

        Args:
            method: The HTTP method; asking twice does no harm, whichever it is.
            path: The path.
            landing: Where the file goes.
            progress: Told how far it is.
            body: What to send, as JSON.
            query: What follows the question mark.

        Raises:
            AspenError: See `ask`.
        """
        request = _request(method, path, body, query).having({"accept-encoding": "identity"})
        call = _Call(
            lambda: request.having(landing.headers()),
            lambda answer: landing.take(answer, progress),
            DOWNLOAD,
            safe=True,
            takes=BEYOND_END,
        )
        return self._do(call)

    def _do(self, call: _Call[T]) -> T:
        token = self._tokens.token()
        try:
            return self._once(call, token)
        except CredentialsError as error:
            renewed = self._tokens.renew(token) if _status(error) == UNAUTHORISED else None
            if renewed is None:
                self._explain(error, call)
                raise
        try:
            return self._once(call, renewed)
        except CredentialsError as error:
            self._explain(error, call)
            raise

    def _once(self, call: _Call[T], token: str) -> T:
        def read(answer: Answer) -> T:
            if answer.status >= _ERRORS and answer.status != call.takes:
                request = call.asking()
                error = error_of(answer, self.name, f"{request.method} {request.path}")
                if isinstance(error, BrokenSamplesError):
                    error.details = (*error.details, *_which(request, self._broken))
                raise error
            return call.read(answer)

        return self._caller.call(
            lambda: self._with_credentials(call.asking(), token),
            read,
            call.patience,
            safe=call.safe,
            settle=call.settle,
        )

    def _explain(self, error: CredentialsError, call: _Call[Any]) -> None:
        """Say who is asking, and what to do about the refusal."""
        if _status(error) == UNAUTHORISED:
            error.hint = self._tokens.advice()
        elif _status(error) == FORBIDDEN:
            request = call.asking()
            path = request.path
            try:
                me: Me | None = None if path == ME else self.ask("GET", ME, whole(Me))
            except AspenError:  # then it is told without saying who
                me = None
            error.details, error.hint = forbidden(path, me, request.method)

    def _with_credentials(self, request: Request, token: str) -> Request:
        request = request.having({"authorization": f"Bearer {token}"})
        return request.having({"cookie": self._cookie}) if self._cookie else request


def _request(method: str, path: str, body: Any, query: Mapping[str, str] | None) -> Request:
    if body is None:
        return Request(method, path, query or {})
    return Request(
        method,
        path,
        query or {},
        {"content-type": "application/json"},
        json.dumps(body, separators=(",", ":")).encode(),
    )


def _status(error: AspenError) -> int | None:
    return error.answer.status if error.answer else None


def _which(request: Request, broken: Callable[[Sequence[int] | None], list[str]]) -> list[str]:
    """Return the samples that may have made the service fail, a line each."""
    ids = [each["id"] for each in json.loads(request.body)["samples"]] if request.body else None
    found = broken(ids)
    if found or not ids:
        return found
    named = ", ".join(map(str, ids[:_NAMED]))
    more = f" and {len(ids) - _NAMED:,} more" if len(ids) > _NAMED else ""
    return [f"It is one of the samples in the request: {named}{more}"]
