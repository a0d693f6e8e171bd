"""Authenticated requests to the API, with explanations of refusals.

Values are extracted from responses with a check of their types. Long JSON lists are read as a
stream, one item in memory at a time.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, cast

from aspencli.errors import AspenError, CredentialsError
from aspencli.remote.downloads import BEYOND_END, Downloaded, Landing, Progress
from aspencli.remote.errors import (
    FORBIDDEN,
    UNAUTHORISED,
    BrokenSamplesError,
    error_of,
    forbidden,
    no_api,
)
from aspencli.remote.http import Answer, Caller, Request
from aspencli.remote.retry import Patience, SetbackError
from aspencli.remote.types import Me

T = TypeVar("T")
QUICK = Patience(read=40, total=120)
"""For requests that take about a second."""
HEAVY = Patience(read=150, total=900)
"""For requests that may take two minutes: long lists, bulk changes."""
DOWNLOAD = Patience(read=150, total=3_600)
"""For file downloads."""
ME = "/v2/users/me"
_ERRORS = 300  # the lowest status that counts as an error, since redirects are not wanted
_NAMED = 20  # samples listed in an error

_SPACE = " \t\n\r"


class TokenSource(Protocol):
    """A source of tokens for requests."""

    def token(self) -> str:
        """Return the token to send, signing in first if necessary and possible.

        Raises:
            CredentialsError: There is no sign-in, and no terminal to sign in on.
        """

    def renew(self, refused: str) -> str | None:
        """Return a new token to replace a refused one, or None if there is none."""

    def advice(self) -> str:
        """Return a hint on what to do when the API refuses the token."""


@dataclass(frozen=True)
class _Call(Generic[T]):
    """A request that can be sent again with another token.

    Attributes:
        asking: Builds the request; it may differ from one try to the next.
        read: Converts the response into a result.
        patience: The timeouts.
        safe: See `Caller.call`.
        settle: See `Caller.call`.
        takes: A status that does not count as an error here.
    """

    asking: Callable[[], Request]
    read: Callable[[Answer], T]
    patience: Patience
    safe: bool | None = None
    settle: Callable[[], T | None] | None = None
    takes: int = 200


class ApiCalls:
    """A sender of requests to the API of one target.

    Args:
        caller: Sends requests to its server.
        tokens: The source of tokens. They go to that server and nowhere else, because the caller
            connects to no other.
        cookie: The Cookie header for a proxy in front of it, or None.
        broken: Describes the samples with these IDs, or of the whole list, that make the live
            service fail, as far as they can be determined.
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
        """Return the display name of the API."""
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
        """Send a request, and return what ``pick`` takes from its JSON response.

        Args:
            method: The HTTP method.
            path: The path, starting with ``/v2``.
            pick: Takes the result from the response.
            body: The body, to be sent as JSON.
            query: The query parameters.
            safe: True if the request may be sent twice. Default: only if it just reads.
            settle: Called if the response to a change was lost: checks whether the change was
                made, and returns its result, or None if it was not made and has to be sent again.
                The server may still be working on it at that time.
            patience: The timeouts.

        Raises:
            AspenError: The request was refused or failed; its ``answer`` has the details.
            UncertainError: The response to a change was lost, and there is no ``settle``.
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
        """Request a list that may be long, reducing each item as it arrives.

        Args:
            path: The path.
            key: The key of the list in the response.
            keep: Returns the part of an item to keep.
            query: The query parameters.

        Raises:
            AspenError: See `ask`.
        """

        def read(answer: Answer) -> list[T]:
            if answer.kind != "application/json":
                raise no_api(answer, self.name)
            try:
                return [keep(item) for item in items(answer.chunks(), key)]
            except ValueError as error:
                raise SetbackError(
                    "the response is not a complete list", perhaps_done=False
                ) from error

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
        """Download a file.

        Args:
            method: The HTTP method; the request must be safe to repeat.
            path: The path.
            landing: The destination of the file.
            progress: Called with the progress.
            body: The body, to be sent as JSON.
            query: The query parameters.

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
        """Add to the error who is signed in, and what to do about the refusal."""
        if _status(error) == UNAUTHORISED:
            error.hint = self._tokens.advice()
        elif _status(error) == FORBIDDEN:
            request = call.asking()
            path = request.path
            try:
                me: Me | None = None if path == ME else self.ask("GET", ME, whole(Me))
            except AspenError:  # then the refusal is explained without the user
                me = None
            error.details, error.hint = forbidden(path, me, request.method)

    def _with_credentials(self, request: Request, token: str) -> Request:
        request = request.having({"authorization": f"Bearer {token}"})
        return request.having({"cookie": self._cookie}) if self._cookie else request


def whole(_shape: type[T]) -> Callable[[Any], T]:
    """Return a function that takes a whole object; it checks only that it is an object."""

    def pick(body: Any) -> T:
        if not isinstance(body, dict):
            raise TypeError("expected an object")
        return cast("T", body)

    return pick


def under(key: str, kind: type[T]) -> Callable[[Any], T]:
    """Return a function that takes the value under a key, which must be of that type."""

    def pick(body: Any) -> T:
        found = body[key]
        if not isinstance(found, kind):
            raise TypeError(f"expected {key} to be a {kind.__name__}")
        return found

    return pick


def items(chunks: Iterable[bytes], key: str) -> Iterator[Any]:
    """Yield the items of the list under the first key of a JSON object.

    Args:
        chunks: The text of ``{"key": [item, ...]}``, in UTF-8, split anywhere.
        key: The key.

    Raises:
        ValueError: The text has another form, or ends too early.
    """
    reader = _Reader(chunks)
    for token in ("{", json.dumps(key), ":", "["):
        reader.take(token)
    if reader.follows("]"):
        return
    while True:
        yield reader.value()
        if reader.follows("]"):
            return
        reader.take(",")


class _Reader:
    def __init__(self, chunks: Iterable[bytes]):
        self._pieces = codecs.iterdecode(chunks, "utf-8")
        self._decode = json.JSONDecoder().raw_decode
        self._text = ""
        self._at = 0

    def take(self, token: str) -> None:
        """Consume a token, which must come next."""
        if not self.follows(token):
            raise ValueError(f"expected {token}")

    def follows(self, token: str) -> bool:
        """Return True if a token comes next, and consume it then."""
        self._skip_space()
        while len(self._text) - self._at < len(token):
            self._more()
        if not self._text.startswith(token, self._at):
            return False
        self._at += len(token)
        return True

    def value(self) -> Any:
        """Return the object or list that comes next."""
        self._skip_space()
        while True:
            try:
                found, self._at = self._decode(self._text, self._at)
            except ValueError:
                self._more()  # usually it is cut off; if it is invalid, the text will end too early
            else:
                return found

    def _skip_space(self) -> None:
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text):
                return
            self._more()

    def _more(self) -> None:
        piece = next(self._pieces, None)
        if piece is None:
            raise ValueError("unexpected end")
        self._text = self._text[self._at :] + piece
        self._at = 0


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
    """Return the samples that may have made the service fail, one line each."""
    ids = [each["id"] for each in json.loads(request.body)["samples"]] if request.body else None
    found = broken(ids)
    if found or not ids:
        return found
    named = ", ".join(map(str, ids[:_NAMED]))
    more = f" and {len(ids) - _NAMED:,} more" if len(ids) > _NAMED else ""
    return [f"The cause is one of the samples in the request: {named}{more}"]
