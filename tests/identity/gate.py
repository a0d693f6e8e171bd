"""A proxy before an identity provider that loses requests, or the answers to them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from tests.local.auth0.lab import Identity

_PASSED_ON = {"authorization", "content-type", "accept"}
_PASSED_BACK = {"retry-after", "x-ratelimit-remaining", "x-ratelimit-reset"}


class Loss(Enum):
    """The part of an exchange that is lost."""

    REQUEST = "request"
    ANSWER = "answer"


class Gate:
    """The state of a proxy.

    Attributes:
        address: Its address, to be used in place of the provider's.
        writes: The number of requests that could change something, since the last `lose`.
        lost: The number of those that were lost.
    """

    def __init__(self, address: str):
        self.address = address
        self.writes = self.lost = 0
        self._place: int | None = None
        self._loss = Loss.REQUEST
        self._act: Callable[[], object] | None = None
        self._lock = threading.Lock()

    def lose(self, place: int, loss: Loss) -> None:
        """Lose one of the next writes, given its number from 1."""
        self.writes = self.lost = 0
        self._place, self._loss = place, loss

    def act(self, place: int, action: Callable[[], object]) -> None:
        """Do something before one of the next writes, given its number from 1."""
        self.writes = self.lost = 0
        self._place, self._act = place, action

    def next_loss(self, method: str, path: str) -> Loss | None:
        """Count a request, and return what is lost of it."""
        if method == "GET" or not path.startswith("/api/"):
            return None
        with self._lock:
            self.writes += 1
            if self.writes != self._place:
                return None
            if self._act is not None:
                self._act()
                return None
            self.lost += 1
            return self._loss


@contextmanager
def gated(identity: Identity) -> Iterator[Gate]:
    """Run a proxy before a provider."""
    gate: Gate

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            loss = gate.next_loss(self.command, self.path)
            if loss is Loss.REQUEST:
                self.close_connection = True
                return
            # A token is issued for the provider's address, not for the proxy's.
            own = f"http://{self.headers['Host']}/".encode()
            answer = client.request(
                self.command,
                identity.issuer.rstrip("/") + self.path,
                content=body.replace(own, identity.issuer.encode()),
                headers={k: v for k, v in self.headers.items() if k.lower() in _PASSED_ON},
            )
            if loss is Loss.ANSWER:
                self.close_connection = True
                return
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
            self.send_header("Content-Length", str(len(answer.content)))
            for name in _PASSED_BACK & answer.headers.keys():
                self.send_header(name, answer.headers[name])
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = do_PATCH = do_DELETE = pass_on  # noqa: N815 - named by the library

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - inherited
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    gate = Gate(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        with httpx.Client(trust_env=False, timeout=30) as client:
            yield gate
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
