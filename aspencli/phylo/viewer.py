"""A web server on this machine that shows one tree in Auspice, to the operator's browser only.

It listens on the loopback interface, which other users of the machine can reach, and so can every
web page that the operator has open. So the tree's address contains a secret, and requests that a
web page of another origin has caused, or that name another host (DNS rebinding), are refused. The
pages themselves may load nothing from other hosts.

The browser is started with another address, which works once, because the arguments of a process
are visible to other users.
"""

from __future__ import annotations

import hmac
import json
import mimetypes
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from aspencli.errors import BadInputError
from aspencli.phylo.auspice import Auspice

HOST = "127.0.0.1"
_HOSTS = frozenset({HOST, "localhost", "::1"})
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # Auspice styles its elements with scripts
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self' blob:",  # of the map
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""The Content-Security-Policy: nothing from another host."""
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-DNS-Prefetch-Control": "off",
    "Cache-Control": "no-store",
}
_AVAILABLE, _DATASET = "/charon/getAvailable", "/charon/getDataset"
_OWN_SITE = frozenset({"", "none", "same-origin"})
_IDLE_S = 30  # after which a connection is closed
_KINDS = {".js": "text/javascript", ".woff": "font/woff", ".woff2": "font/woff2"}


class Viewer:
    """The addresses of a tree, and the answers to requests for them.

    Args:
        auspice: The web pages.
        dataset: The tree as JSON.
        name: The last part of the address, such as ``tree-61``.
    """

    def __init__(self, auspice: Auspice, dataset: bytes, name: str):
        self._auspice = auspice
        self._dataset = dataset
        self._place = f"{secrets.token_urlsafe(24)}/{name}"
        self._once = secrets.token_urlsafe(24)
        self._lock = threading.Lock()
        self._is_used = False
        self.port = 0

    @property
    def url(self) -> str:
        """Return the address of the tree, which is a secret."""
        return f"http://{HOST}:{self.port}/{self._place}"

    @property
    def first_url(self) -> str:
        """Return an address that leads to the tree once, for the arguments of a browser."""
        return f"http://{HOST}:{self.port}/{self._once}"

    def answer(self, path: str, headers: Mapping[str, str]) -> Answer:
        """Return the answer to a request, whose headers have names in lower case."""
        path, _, query = path.partition("?")
        is_page = headers.get("sec-fetch-mode") == "navigate"
        if not _is_for_us(headers) or not (is_page or _is_own(headers)):
            return Answer.text(HTTPStatus.FORBIDDEN, "Requests from other pages are not allowed.")
        if path in {_AVAILABLE, _DATASET}:
            return self._charon(path, parse_qs(query))
        name = path.removeprefix("/")
        if name in self._auspice.files and name.startswith(("dist/", "favicon.")):
            return Answer(HTTPStatus.OK, self._auspice.files[name], _kind(name))
        if _equal(name, self._place):
            return Answer(HTTPStatus.OK, self._auspice.index, "text/html; charset=utf-8")
        if _equal(name, self._once):
            return self._first()
        return Answer.text(HTTPStatus.NOT_FOUND, "Not found. Use the address that was printed.")

    def _charon(self, path: str, query: Mapping[str, list[str]]) -> Answer:
        """Answer Auspice's own requests; their query contains the tree's address."""
        if not _equal(query.get("prefix", [""])[0].strip("/"), self._place):
            return Answer.text(HTTPStatus.NOT_FOUND, "No such dataset.")
        if path == _AVAILABLE:
            return Answer.json(json.dumps({"datasets": [], "narratives": []}).encode())
        if query.get("type", ["tree"])[0] != "tree":
            return Answer.text(HTTPStatus.NOT_FOUND, "The tree has no such file.")
        return Answer.json(self._dataset)

    def _first(self) -> Answer:
        with self._lock:
            is_used, self._is_used = self._is_used, True
        if is_used:
            return Answer.text(
                HTTPStatus.GONE, "This address worked once. Use the address that was printed."
            )
        return Answer(HTTPStatus.SEE_OTHER, b"", "text/plain", f"/{self._place}")


class Answer:
    """A response."""

    def __init__(self, status: HTTPStatus, body: bytes, kind: str, location: str | None = None):
        self.status = status
        self.body = body
        self.headers = {
            **_HEADERS,
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            **({"Location": location} if location else {}),
        }

    @classmethod
    def text(cls, status: HTTPStatus, words: str) -> Answer:
        """Return a message."""
        return cls(status, f"{words}\n".encode(), "text/plain; charset=utf-8")

    @classmethod
    def json(cls, body: bytes) -> Answer:
        """Return data."""
        return cls(HTTPStatus.OK, body, "application/json; charset=utf-8")


@contextmanager
def serving(viewer: Viewer) -> Iterator[None]:
    """Serve a tree on a free port of the loopback interface while a block runs.

    Raises:
        OSError: No port is free.
    """
    with _Server((HOST, 0), _handler(viewer)) as server:
        viewer.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def _handler(viewer: Viewer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version, sys_version = "aspencli", ""
        timeout = _IDLE_S

        def do_GET(self) -> None:
            self._respond(with_body=True)

        def do_HEAD(self) -> None:
            self._respond(with_body=False)

        def _respond(self, *, with_body: bool) -> None:
            names = {name.lower(): value for name, value in self.headers.items()}
            answer = viewer.answer(self.path, names)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(answer.body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - inherited
            pass  # the address is a secret

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # browsers keep connections open

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore an error of one connection, such as a browser that closed it."""


def check_dataset(content: bytes) -> None:
    """Check that the content is a tree in Auspice's format.

    Raises:
        BadInputError: It is not.
    """
    try:
        found = json.loads(content)
        is_tree = bool(found["tree"]) and isinstance(found["meta"], dict)
    except (ValueError, KeyError, TypeError):
        is_tree = False
    if not is_tree:
        raise BadInputError(
            "The tree's file is not in Auspice's format (version 2), so it cannot be shown.",
            hint="Look at it: aspencli phylo-trees download TREE",
        )


def _is_for_us(headers: Mapping[str, str]) -> bool:
    """Return True if the request names this machine, and not a host that resolves to it."""
    try:
        return urlsplit(f"//{headers.get('host', '')}").hostname in _HOSTS
    except ValueError:
        return False


def _is_own(headers: Mapping[str, str]) -> bool:
    """Return True unless a page of another origin has caused the request."""
    origin = headers.get("origin")
    is_same = origin in {None, f"http://{headers.get('host')}"}
    return is_same and headers.get("sec-fetch-site", "") in _OWN_SITE


def _equal(text: str, secret: str) -> bool:
    return hmac.compare_digest(text.encode(), secret.encode())


def _kind(name: str) -> str:
    suffix = name[name.rfind(".") :]
    return _KINDS.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
