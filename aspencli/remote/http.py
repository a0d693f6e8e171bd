"""An HTTP/1.1 client for one server, and its log; the only module that uses httpx.

Socket timeouts start over with each byte. So that a time limit holds even if data keeps trickling
in, the connection is shut down from another thread at the deadline, which ends whatever is waiting
for it. The log of requests and responses that ``--debug`` shows has secrets masked.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import platform
import re
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import httpx

from aspencli import __version__
from aspencli.addresses import Origin, origin_of, proxy_for, without_password
from aspencli.errors import BadInputError
from aspencli.remote.retry import Deadline, Patience, SetbackError, http_date

_OPENED = ("connect_tcp.complete", "start_tls.complete")
_AGENT = f"aspencli/{__version__} (Python {platform.python_version()}; {platform.system()})"
_SAME_REQUEST = frozenset({307, 308})  # redirects that keep the method and body
# With these errors it is certain that the server never saw the request.
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
# Shorter than servers keep idle connections (uvicorn: 5 s): if the client closes first, no request
# is lost on a closing connection.
_IDLE_S = 3.0
_CONNECT_S = 10.0
_WORDS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((ConnectionRefusedError,), "connection refused"),
    ((ConnectionResetError, BrokenPipeError), "connection reset"),
    ((httpx.ConnectTimeout,), "connection timed out"),
    ((httpx.TimeoutException,), "timed out waiting for a response"),
    ((httpx.ProxyError,), "the proxy refused the connection"),
    ((httpx.RemoteProtocolError,), "connection closed before the response was complete"),
)
_SPACE = " \t\n\r"
_LONGEST_ITEM = 8_000_000  # characters of an item of a list; a sample has 1,000

_MASK = "***"
# These are allow lists, because the names of future secrets are not known.
_OPEN_QUERY = frozenset(
    {"group_id", "id_style", "max_location_depth", "org_id", "pathogen_slug", "response_type"}
)
_OPEN_HEADERS = frozenset(
    {
        "accept", "accept-encoding", "accept-ranges", "age", "allow", "cache-control", "connection",
        "content-disposition", "content-encoding", "content-length", "content-range",
        "content-type", "date", "etag", "host", "if-range", "last-modified", "range", "retry-after",
        "server", "transfer-encoding", "user-agent", "vary", "via", "x-amz-request-id",
        "x-request-id",
    }
)  # fmt: skip
_SECRET_KEY = re.compile(r"token|secret|password|code|cookie|assertion|credential|signature", re.I)
# A token may begin inside a word. Each word is looked at once, so that a long one takes no time.
# No possessive group: Python 3.11.2 matches it wrongly, and the token would be shown.
_TOKEN = re.compile(r"(?<![\w-])((?:(?!eyJ)[\w-])*)eyJ[\w-]+\.[\w-]+(?:\.[\w-]*)?")
# The host is looked for from the start of a word only, so that a sequence takes no time.
_ADDRESS = re.compile(r"(?:https?://)?(?<![\w.\[\]:-])[\w.\[\]:-]+/[^\s\"'<>]*")
_MAGIC_LINK = re.compile(r"(/access/)[^/?\s\"]+")
_LONGEST = 2_000  # characters of a body


class SlashWarning(ResourceWarning):
    """A missing or extra slash in one of our paths; hidden from operators, an error in tests."""


@dataclass(frozen=True)
class Request:
    """An HTTP request."""

    method: str
    path: str  # the percent-encoded path from the server's root or base; starts with a slash
    query: Mapping[str, str] = field(default_factory=dict)
    # Headers beyond those of every request; names in lower case.
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # may contain a token
    body: bytes = field(default=b"", repr=False)

    def having(self, headers: Mapping[str, str]) -> Request:
        """Return the same request with more headers."""
        return replace(self, headers={**self.headers, **headers})


class Answer:
    """A response whose body has not been read yet; header names are in lower case."""

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
                # Usually it is cut off. If it is invalid, it must not take the rest of a long list
                # to find out, since each piece is added to the text before it.
                if len(self._text) - self._at > _LONGEST_ITEM:
                    raise
                self._more()
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


def trusted_by(origin: Origin) -> ssl.SSLContext | bool:
    """Return the certificates to trust for a server; False for plain HTTP.

    Raises:
        BadInputError: They cannot be loaded.
    """
    try:
        # Loading certificates takes 20 ms, and plain HTTP does not need them.
        return httpx.create_ssl_context() if origin.scheme == "https" else False
    except (OSError, ssl.SSLError) as error:
        raise BadInputError(
            f"Could not load the certificates in SSL_CERT_FILE or SSL_CERT_DIR: {error}",
            hint="Fix that setting, or unset it.",
        ) from error


@contextmanager
def valid_proxy() -> Iterator[None]:
    """Explain the error of a client that is created with a proxy that it cannot use.

    Raises:
        BadInputError: It cannot.
    """
    try:
        yield
    except (ValueError, httpx.InvalidURL) as error:
        raise BadInputError(
            "Invalid proxy address in the environment",
            hint="Check HTTPS_PROXY, HTTP_PROXY, and ALL_PROXY.",
        ) from error


class Http:
    """A keep-alive connection to one server; it never connects to another.

    Args:
        base: The server's address; its path is the prefix of every request's path.
        what: A description of the address, for messages.
        log: The log of requests.

    Attributes:
        proxy: The proxy from the environment, without its password, or None.

    Raises:
        BadInputError: The address is invalid, or a proxy or certificate setting cannot be used.
    """

    def __init__(self, base: str, what: str, *, log: WireLog | None = None):
        self.origin: Origin = origin_of(base, what)
        self._base = f"{self.origin}{urlsplit(base).path.rstrip('/')}"
        self._log = log or WireLog()
        self._watchdog = _Watchdog()
        proxy = proxy_for(self.origin)
        self.proxy = without_password(proxy) if proxy else None
        self._client = self._connect(proxy)

    def _connect(self, proxy: str | None) -> httpx.Client:
        trusted = trusted_by(self.origin)
        with valid_proxy():
            return httpx.Client(
                headers={"user-agent": _AGENT},
                follow_redirects=False,
                limits=httpx.Limits(max_connections=4, keepalive_expiry=_IDLE_S),
                verify=trusted,
                proxy=proxy,
                trust_env=False,  # httpx would read the proxies again, by narrower rules
            )

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
        asked, redirected = urlsplit(url), urlsplit(answer.headers.get("location", ""))
        same_host = redirected.hostname in {None, self.origin.host}
        if not same_host or redirected.path.rstrip("/") != asked.path.rstrip("/"):
            return None
        warnings.warn(
            f"the service redirected {asked.path} to {redirected.path}", SlashWarning, stacklevel=2
        )
        self._log.note(f"aspencli bug: {asked.path} should be {redirected.path}")
        return f"{self.origin}{redirected.path}" + (f"?{asked.query}" if asked.query else "")


class _Watchdog:
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
    connect = min(_CONNECT_S, left)
    return httpx.Timeout(min(patience.read, left), connect=connect, pool=connect)


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
        reason, hopeless = _reason(error)
        sent = not isinstance(error, _NEVER_SENT)
        raise SetbackError(reason, perhaps_done=sent, hopeless=hopeless) from error
    except httpx.DecodingError as error:
        raise SetbackError("the response could not be decoded", perhaps_done=True) from error


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


@dataclass
class WireLog:
    """A log of requests and responses, with secrets masked; off if ``write`` is None."""

    write: Callable[[str], None] | None = None

    def asked(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> float:
        """Log a request, and return the time when it was sent."""
        if self.write is not None:
            self.write(f"> {method} {masked_url(url)}")
            self._rest(self.write, ">", headers, body)
        return time.monotonic()

    def answered(self, status: int, headers: Mapping[str, str], since: float) -> None:
        """Log the status and headers of a response."""
        if self.write is not None:
            self.write(f"< {status} after {time.monotonic() - since:.2f} s")
            self._rest(self.write, "<", headers, b"")

    def read(self, headers: Mapping[str, str], body: bytes) -> None:
        """Log the body of a response that was read completely."""
        if self.write is not None:
            self._rest(self.write, "<", {}, body, headers.get("content-type", ""))

    def note(self, text: str) -> None:
        """Log a remark."""
        if self.write is not None:
            self.write(f"* {text}")

    @staticmethod
    def _rest(
        write: Callable[[str], None],
        lead: str,
        headers: Mapping[str, str],
        body: bytes,
        content_type: str = "",
    ) -> None:
        for name, value in masked_headers(headers).items():
            write(f"{lead} {name.lower()}: {value}")
        shown = masked_body(body, content_type or headers.get("content-type", ""))
        if shown:
            write(f"{lead} {shown}")


def masked_url(address: str) -> str:
    """Return an address without possible secrets, as in presigned URLs and magic links."""
    parts = urlsplit(address)
    query = [
        (name, value if name in _OPEN_QUERY else _MASK)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
    ]
    place = parts.netloc.rpartition("@")[2]
    path = _MAGIC_LINK.sub(rf"\1{_MASK}", parts.path)
    return urlunsplit((parts.scheme, place, path, urlencode(query, safe="*"), ""))


def masked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers, with values masked unless they are known to be harmless."""
    return {
        name: value
        if name.lower() in _OPEN_HEADERS
        else masked_url(value)
        if name.lower() == "location"
        else _MASK
        for name, value in headers.items()
    }


def masked_body(body: bytes, content_type: str) -> str:
    """Return a body as text: JSON and forms without their secrets, others as type and size."""
    kind = content_type.partition(";")[0].strip().lower()
    if not body:
        return ""
    if kind == "application/json":
        try:
            text = json.dumps(_masked(json.loads(body)), ensure_ascii=False)
        except ValueError:
            return f"{len(body):,} bytes of invalid JSON"
    elif kind == "application/x-www-form-urlencoded":
        form = dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
        text = json.dumps(_masked(form), ensure_ascii=False)
    elif kind == "text/plain":
        text = masked_text(body.decode(errors="replace"))
    else:
        return f"{len(body):,} bytes of {kind or 'unknown type'}"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ... ({len(text):,} characters)"


def masked_text(text: str) -> str:
    """Return a text without tokens, and without the queries and magic links of addresses."""
    text = _TOKEN.sub(rf"\1{_MASK}", text)
    return _ADDRESS.sub(lambda match: masked_url(match[0]), text)


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _MASK if item and isinstance(item, str) and _SECRET_KEY.search(key) else
            _masked(item)
            for key, item in value.items()
        }  # fmt: skip
    if isinstance(value, list):
        return [_masked(item) for item in value]
    return masked_text(value) if isinstance(value, str) else value
