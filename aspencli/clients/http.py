"""An HTTP/1.1 client for one server; the only module that uses httpx."""

from __future__ import annotations

import platform
import socket
import ssl
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode, urlsplit

import httpx

from aspencli import __version__
from aspencli.clients.origins import Origin, origin_of
from aspencli.clients.proxies import proxy_for, without_password
from aspencli.clients.retrying import Deadline, Patience, SetbackError, http_date
from aspencli.clients.watchdog import Watchdog
from aspencli.clients.wirelog import WireLog
from aspencli.errors import BadInputError

USER_AGENT = f"aspencli/{__version__} (Python {platform.python_version()}; {platform.system()})"
_SAME_REQUEST = frozenset({307, 308})  # redirects that keep the method and body
# With these errors it is certain that the server never saw the request.
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
# Shorter than servers keep idle connections (uvicorn: 5 s): if the client closes first, no request
# is lost on a closing connection.
_IDLE_S = 3.0


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
                    f"the answer was not complete after {self._deadline.seconds:.0f} s",
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
            onward = self._mended(answer, url)
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

    def _mended(self, answer: Answer, url: str) -> str | None:
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
        self._log.note(f"a bug of ours: {asked.path} should be {told.path}")
        return f"{self.origin}{told.path}" + (f"?{asked.query}" if asked.query else "")


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
            "the request is not well formed, and was not sent", perhaps_done=False, hopeless=True
        ) from None
    except httpx.TransportError as error:
        raise _setback(error) from error
    except httpx.DecodingError as error:
        raise SetbackError("its answer is garbled", perhaps_done=True) from error


def _setback(error: httpx.TransportError) -> SetbackError:
    reason, hopeless = _reason(error)
    return SetbackError(reason, perhaps_done=not isinstance(error, _NEVER_SENT), hopeless=hopeless)


def _reason(error: httpx.TransportError) -> tuple[str, bool]:
    """Return why there is no response, and whether retrying is pointless."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted: {cause.verify_message}", True
        if isinstance(cause, socket.gaierror):
            return f"its name is not known here: {cause.strerror}", False
    for kinds, words in _WORDS:
        if any(isinstance(cause, kinds) for cause in _causes(error)):
            return words, False
    return f"the connection broke: {error}", False


_WORDS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((ConnectionRefusedError,), "nothing listens there (connection refused)"),
    ((ConnectionResetError, BrokenPipeError), "the connection was reset"),
    ((httpx.ConnectTimeout,), "no connection came about in time"),
    ((httpx.TimeoutException,), "no answer came in time"),
    ((httpx.ProxyError,), "the proxy refuses to pass it on"),
    ((httpx.RemoteProtocolError,), "the connection was closed before the answer was complete"),
)


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__
