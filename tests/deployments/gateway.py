"""A gateway in front of AWS, which creates objects atomically, as S3 does, and can fail.

Moto honors ``If-None-Match: *``, but looks for the object and stores it in two steps. So two
requests at once could both succeed; here, writes wait for each other.
"""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>no</Message></Error>"
_SKIPPED = frozenset({"transfer-encoding", "connection", "content-length", "server", "date"})


@dataclass
class Gateway:
    """A running gateway.

    Attributes:
        address: Its address.
        rule: Returns for a request's method and path how it fails, or None: ``deny`` answers that
            access is denied, ``drop`` closes the connection, and ``lose`` does so after the request
            was carried out.
        seen: The requests so far: method and path.
    """

    address: str = ""
    rule: Callable[[str, str], str | None] = lambda _method, _path: None
    seen: list[tuple[str, str]] = field(default_factory=list)

    def writes(self) -> list[str]:
        """Return the paths of the objects that were to be written."""
        return [path.partition("?")[0] for method, path in self.seen if method == "PUT"]


@contextmanager
def gateway(aws: str) -> Iterator[Gateway]:
    """Run a gateway in front of an AWS."""
    found = Gateway()
    writing = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            found.seen.append((self.command, self.path))
            failure = found.rule(self.command, self.path)
            if failure == "deny":
                return self._answer(403, [("Content-Type", "application/xml")], _DENIED)
            if failure != "drop":
                status, headers, content = self._forward(body)
                if failure != "lose":
                    return self._answer(status, headers, content)
            self.close_connection = True
            return None

        def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            request = urllib.request.Request(
                aws + self.path, body or None, dict(self.headers), method=self.command
            )
            with writing:
                try:
                    answer: Any = urllib.request.urlopen(request)
                except urllib.error.HTTPError as error:
                    answer = error
                with answer:
                    return answer.status, list(answer.headers.items()), answer.read()

        def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in _SKIPPED:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    for method in ("GET", "PUT", "POST", "HEAD", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.pass_on)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    found.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
