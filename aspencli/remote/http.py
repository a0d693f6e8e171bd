"""An HTTP/1.1 client for one server, with retries; the only module that uses httpx.

Socket timeouts start over with each byte. So that a time limit holds even if data keeps trickling
in, the connection is shut down from another thread at the deadline, which ends whatever is waiting
for it.
"""

from __future__ import annotations

import contextlib
import platform
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

import httpx

from aspencli import __version__
from aspencli.errors import BadInputError, ServiceAnswer, UncertainError, UnreachableError
from aspencli.remote.debug_log import WireLog
from aspencli.remote.retry import (
    BUSY,
    Deadline,
    Patience,
    Persistence,
    SetbackError,
    UnsettledError,
    busy,
    http_date,
)
from aspencli.remote.urls import Origin, origin_of, proxy_for, without_password

_OPENED = ("connect_tcp.complete", "start_tls.complete")
USER_AGENT = f"aspencli/{__version__} (Python {platform.python_version()}; {platform.system()})"
_SAME_REQUEST = frozenset({307, 308})  # redirects that keep the method and body
# With these errors it is certain that the server never saw the request.
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
# Shorter than servers keep idle connections (uvicorn: 5 s): if the client closes first, no request
# is lost on a closing connection.
_IDLE_S = 3.0
_SAFE = frozenset({"GET", "HEAD"})
_WORDS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((ConnectionRefusedError,), "connection refused"),
    ((ConnectionResetError, BrokenPipeError), "connection reset"),
    ((httpx.ConnectTimeout,), "connection timed out"),
    ((httpx.TimeoutException,), "timed out waiting for a response"),
    ((httpx.ProxyError,), "the proxy refused the connection"),
    ((httpx.RemoteProtocolError,), "connection closed before the response was complete"),
)
T = TypeVar("T")


class SlashWarning(ResourceWarning):
    """A missing or extra slash in one of our paths; hidden from operators, an error in tests."""


@dataclass(frozen=True)
class Request:
    """An HTTP request.

    Attributes:
        method: The HTTP method.
        path: The percent-encoded path from the server's root or base; starts with a slash.
        query: The query parameters.
        headers: Headers beyond those of every request; names in lower case.
        body: The body.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # may contain a token
    body: bytes = field(default=b"", repr=False)

    def having(self, headers: Mapping[str, str]) -> Request:
        """Return the same request with more headers."""
        return replace(self, headers={**self.headers, **headers})


class Answer:
    """A response whose body has not been read yet.

    Attributes:
        status: The HTTP status.
        headers: The headers, with lower-case names.
        url: The address of the request.
    """

    def __init__(self, response: httpx.Response, deadline: Deadline, log: WireLog):
        self.status = response.status_code
        self.headers = {name.lower(): value for name, value in response.headers.items()}
        self.url = str(response.url)
        self._response = response
        self._deadline = deadline
        self._log = log

    @property
    def kind(self) -> str:
        """Return the media type of the body, such as ``application/json``."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def seconds_ahead(self) -> float | None:
        """Return how far the server's clock is ahead of this machine's, or None if not known."""
        theirs = http_date(self.headers.get("date", ""))
        return None if theirs is None else theirs.timestamp() - time.time()

    def chunks(self, *, forever: bool = False) -> Iterator[bytes]:
        """Yield the body as it arrives, decompressed.

        Args:
            forever: True if it may exceed the call's time limit, as long as data keeps arriving.

        Raises:
            SetbackError: It breaks off, or exceeds the call's time limit.
        """
        pieces = self._response.iter_bytes()
        while True:
            with _in_our_words():  # not around the yield, where the reader may raise errors
                chunk = next(pieces, None)
            if chunk is None:
                return
            yield chunk
            if not forever and self._deadline.left <= 0:
                raise SetbackError(
                    f"the response was not complete after {self._deadline.seconds:.0f} s",
                    perhaps_done=True,
                )

    def read(self) -> bytes:
        """Return the whole body."""
        body = b"".join(self.chunks())
        self._log.read(self.headers, body)
        return body


class Http:
    """A keep-alive connection to one server; it never connects to another.

    Args:
        base: The server's address; its path is the prefix of every request's path.
        what: A description of the address, for messages.
        log: The log of requests.

    Raises:
        BadInputError: The address is invalid, or a proxy or certificate setting cannot be used.
    """

    def __init__(self, base: str, what: str, *, log: WireLog | None = None):
        self.origin: Origin = origin_of(base, what)
        self._base = f"{self.origin}{urlsplit(base).path.rstrip('/')}"
        self._log = log or WireLog()
        self._watchdog = Watchdog()
        self._proxy = proxy_for(self.origin)
        self._client = self._connect()

    @property
    def proxy(self) -> str | None:
        """Return the proxy from the environment, without its password, or None."""
        return without_password(self._proxy) if self._proxy else None

    def _connect(self) -> httpx.Client:
        try:
            # Loading certificates takes 20 ms, and plain HTTP does not need them.
            trusted = httpx.create_ssl_context() if self.origin.scheme == "https" else False
        except (OSError, ssl.SSLError) as error:
            raise BadInputError(
                f"Could not load the certificates in SSL_CERT_FILE or SSL_CERT_DIR: {error}",
                hint="Fix that setting, or unset it.",
            ) from error
        try:
            return httpx.Client(
                headers={"user-agent": USER_AGENT},
                follow_redirects=False,
                limits=httpx.Limits(max_connections=4, keepalive_expiry=_IDLE_S),
                verify=trusted,
                proxy=self._proxy,
                trust_env=False,  # httpx would read the proxies again, by narrower rules
            )
        except (ValueError, httpx.InvalidURL) as error:
            raise BadInputError(
                "Invalid proxy address in the environment",
                hint="Check HTTPS_PROXY, HTTP_PROXY, and ALL_PROXY.",
            ) from error

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    @contextmanager
    def open(self, request: Request, deadline: Deadline, patience: Patience) -> Iterator[Answer]:
        """Send the request once; the response can be read inside the block.

        Raises:
            SetbackError: There was no response, or only a part of one.
        """
        url = self._base + request.path
        if request.query:
            url += "?" + urlencode(request.query)
        timeout = _timeout(patience, deadline)
        with self._once(request, url, timeout, deadline) as answer:
            onward = self._without_slash_redirect(answer, url)
            if onward is None:
                yield answer
        if onward is not None:
            with self._once(request, onward, timeout, deadline) as answer:
                yield answer

    @contextmanager
    def _once(
        self, request: Request, url: str, timeout: httpx.Timeout, deadline: Deadline
    ) -> Iterator[Answer]:
        sent = self._client.build_request(
            request.method,
            url,
            headers=dict(request.headers),
            content=request.body or None,
            timeout=timeout,
            extensions={"trace": self._watchdog.trace},
        )
        since = self._log.asked(request.method, url, sent.headers, request.body)
        with _in_our_words(), self._watchdog.until(deadline.left):
            response = self._client.send(sent, stream=True)
        try:
            answer = Answer(response, deadline, self._log)
            self._log.answered(answer.status, answer.headers, since)
            yield answer
        finally:
            response.close()

    def _without_slash_redirect(self, answer: Answer, url: str) -> str | None:
        """Return the address to use instead if a redirect only adds or removes the last slash.

        The origin is kept, because behind its load balancer the service redirects to plain HTTP.
        """
        if answer.status not in _SAME_REQUEST:
            return None
        asked, told = urlsplit(url), urlsplit(answer.headers.get("location", ""))
        same_host = told.hostname in {None, self.origin.host}
        if not same_host or told.path.rstrip("/") != asked.path.rstrip("/"):
            return None
        warnings.warn(
            f"the service redirected {asked.path} to {told.path}", SlashWarning, stacklevel=2
        )
        self._log.note(f"aspencli bug: {asked.path} should be {told.path}")
        return f"{self.origin}{told.path}" + (f"?{asked.query}" if asked.query else "")


class Caller:
    """A client of one server that retries requests if possible.

    Args:
        http: The connection.
        name: The display name of the server.
        hint: What to do if it does not respond.
        tell: Called with a message for each noticeable wait.
        persistence: The retry loop.
    """

    def __init__(
        self,
        http: Http,
        name: str,
        *,
        hint: str,
        tell: Callable[[str], None] = lambda _words: None,
        persistence: Persistence | None = None,
    ):
        self.http = http
        self.name = name
        self._hint = hint
        self._persistence = persistence or Persistence()
        self._persistence.tell = lambda words: tell(f"Waiting for {name}: {words}")

    def call(
        self,
        asking: Callable[[], Request],
        read: Callable[[Answer], T],
        patience: Patience,
        *,
        safe: bool | None = None,
        settle: Callable[[], T | None] | None = None,
    ) -> T:
        """Send a request, and return what ``read`` makes of the response.

        Args:
            asking: Builds the request; called for each try.
            read: Converts a response, unless it means "try again later", into a result; called
                again if the first response breaks off.
            patience: The timeouts.
            safe: True if the request may be sent twice. Default: only if it just reads.
            settle: See `Persistence.run`.

        Raises:
            UncertainError: A change was sent, and it is not known whether it was made.
            UnreachableError: The server does not respond, or asks to come back later.
        """
        first = asking()
        may_repeat = first.method in _SAFE if safe is None else safe

        def attempt(deadline: Deadline) -> T:
            with self.http.open(asking(), deadline, patience) as answer:
                if answer.status in BUSY:
                    answer.read()  # so that the connection can be reused, and for the log
                    raise busy(answer.status, answer.headers)
                return read(answer)

        try:
            return self._persistence.run(attempt, patience, safe=may_repeat, settle=settle)
        except UnsettledError as error:
            raise self._uncertain(first, error) from error
        except SetbackError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: SetbackError) -> UnreachableError:
        answer = None if error.status is None else ServiceAnswer(error.status)
        if error.wait is not None and error.wait >= 1:
            return UnreachableError(
                f"Temporarily unavailable: {self.name} ({error.reason}).",
                hint=f"Try again in {error.wait:,.0f} s.",
                answer=answer,
            )
        if error.status is not None:
            return UnreachableError(
                f"Temporarily unavailable: {self.name} ({error.reason}).",
                hint="Try again in a few minutes.",
                answer=answer,
            )
        hint = self._hint
        if "certificate" in error.reason:
            hint = (
                "If your network uses its own certificates, set SSL_CERT_FILE to their file. Also "
                "check this machine's clock."
            )
        tried = f" (tried {error.tries} times)" if error.tries > 1 else ""
        return UnreachableError(
            f"Request to {self.name} at {self.http.origin} failed: {error.reason}{tried}",
            hint=hint,
            details=[f"Sent through the proxy {self.http.proxy}"] if self.http.proxy else (),
        )

    def _uncertain(self, request: Request, error: UnsettledError) -> UncertainError:
        return UncertainError(
            f"The response to a change sent to {self.name} was lost ({error}). The change may or "
            "may not have been made.",
            hint="Check whether it was made before you try again.",
            details=[f"{request.method} {request.path}"],
        )


class Watchdog:
    """A list of a client's sockets, which are shut down at a deadline."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """Record each connection that the HTTP library reports as opened."""
        if event.endswith(_OPENED):
            opened = info["return_value"].get_extra_info("socket")
            # Closed sockets are no longer needed.
            self._sockets = [each for each in self._sockets if each.fileno() != -1]
            self._sockets.append(opened)

    @contextmanager
    def until(self, seconds: float) -> Iterator[None]:
        """Shut down the connections if the block takes longer than this many seconds."""
        timer = threading.Timer(max(seconds, 0), self._bite)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _bite(self) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):  # it was closed in the meantime
                # Not the method of ssl.SSLSocket, which discards state that its reader is using.
                socket.socket.shutdown(each, socket.SHUT_RDWR)


def _timeout(patience: Patience, deadline: Deadline) -> httpx.Timeout:
    left = max(deadline.left, 0.001)
    return httpx.Timeout(
        min(patience.read, left),
        connect=min(patience.connect, left),
        pool=min(patience.connect, left),
    )


@contextmanager
def _in_our_words() -> Iterator[None]:
    """Turn httpx errors into setbacks."""
    try:
        yield
    except httpx.LocalProtocolError:
        # Its message repeats what was about to be sent, possibly a token.
        raise SetbackError(
            "the request is malformed, and was not sent", perhaps_done=False, hopeless=True
        ) from None
    except httpx.TransportError as error:
        raise _setback(error) from error
    except httpx.DecodingError as error:
        raise SetbackError("the response could not be decoded", perhaps_done=True) from error


def _setback(error: httpx.TransportError) -> SetbackError:
    reason, hopeless = _reason(error)
    return SetbackError(reason, perhaps_done=not isinstance(error, _NEVER_SENT), hopeless=hopeless)


def _reason(error: httpx.TransportError) -> tuple[str, bool]:
    """Return why there is no response, and whether retrying is pointless."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"certificate verification failed: {cause.verify_message}", True
        if isinstance(cause, socket.gaierror):
            return f"could not resolve the host name: {cause.strerror}", False
    for kinds, words in _WORDS:
        if any(isinstance(cause, kinds) for cause in _causes(error)):
            return words, False
    return f"connection failed: {error}", False


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__
