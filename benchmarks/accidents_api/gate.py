"""A proxy in front of the service that fails on request, or is as slow as the live service.

It also enforces the live service's rule within a request: rows are written in ascending ID order,
and each name is checked at once, so requests that only our service accepts are refused.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from tests.cli.commands.renames_lab import Renames

Mishap = Literal[
    "503 before", "504 after", "reset before", "reset after", "cut answer", "429", "401", "stall"
]
_NOT_UNIQUE = "All private and public identifiers must be unique"
_ASIDE = {"connection", "transfer-encoding", "content-length", "date", "server"}


class _HungUpError(Exception):
    """An error for a deliberately broken connection."""


@dataclass
class Rules:
    """The behavior of the gate.

    Attributes:
        chances: The probability of each mishap, for a request that changes something.
        reading: The same for other requests.
        cost_s: The minimum time of a change, given its number of rows.
        list_s: The minimum time of a list.
        stall_s: The length of a stall.
        names: Returns the group's current names; if given, the live service's rule applies.
        dice: The source of randomness.
    """

    chances: Mapping[Mishap, float] = field(default_factory=dict)
    reading: Mapping[Mishap, float] = field(default_factory=dict)
    cost_s: Callable[[int], float] = lambda _rows: 0.0
    list_s: float = 0.0
    stall_s: float = 30.0
    names: Callable[[], dict[int, str]] | None = None
    dice: random.Random = field(default_factory=lambda: random.Random(1))


def as_live(rows: int) -> float:
    """Return the seconds that the live service takes to change that many rows."""
    return 0.25 + 0.00088 * rows + 8.7e-7 * rows**2


def put_records(renames: Renames, named: Callable[[str], str]) -> bytes:
    """Return the body of one request that renames a whole group."""
    records = [
        {
            "id": row["id"],
            "collection_location": 0,
            "private": row["private"],
            "private_identifier": row["private_identifier"],
            "public_identifier": named(row["public_identifier"]),
            "collection_date": str(row["collection_date"]),
            "sequencing_date": row["sequencing_date"] and str(row["sequencing_date"]),
        }
        for row in renames.state()
    ]
    return json.dumps({"samples": records}).encode()


class Gate:
    """A proxy that passes requests on to the service.

    Args:
        service: The service's address; the service may stop and come back.
        rules: What goes wrong.

    Attributes:
        happened: The number of times that each mishap happened.
        sizes: The number of rows in each change that got through.
        came: The arrival time of each change.
        answered: The time of the answer to each change that got through.
        on_change: Called before each change is passed on, with the number of earlier ones.
    """

    def __init__(self, service: str, rules: Rules):
        self.service = service
        self.rules = rules
        self.happened: dict[str, int] = {}
        self.sizes: list[int] = []
        self.came: list[float] = []
        self.answered: list[float] = []
        self.on_change: Callable[[int], None] = lambda _number: None
        self._one = threading.Lock()
        gate = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def do_any(self) -> None:
                with contextlib.suppress(_HungUpError, ConnectionError):
                    gate.pass_on(self)

            do_GET = do_any  # noqa: N815 - inherited
            do_PUT = do_any  # noqa: N815 - inherited
            do_POST = do_any  # noqa: N815 - inherited

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - inherited
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def pass_on(self, asked: BaseHTTPRequestHandler) -> None:
        """Serve one request."""
        body = asked.rfile.read(int(asked.headers.get("Content-Length", 0)))
        changes = asked.command == "PUT"
        mishap = self._mishap(self.rules.chances if changes else self.rules.reading)
        if changes:
            self.came.append(time.monotonic())
            self.on_change(len(self.sizes))
        if mishap == "stall":
            time.sleep(self.rules.stall_s)
        if mishap == "reset before":
            self._reset(asked)
        refusals = {"503 before": 503, "429": 429, "401": 401}
        if mishap in refusals:
            self._answer(asked, refusals[mishap], b'{"error":"not now"}')
            return
        rows = json.loads(body)["samples"] if changes else []
        if changes and not self._is_allowed(rows):
            self._answer(asked, 400, json.dumps({"error": _NOT_UNIQUE}).encode())
            return
        status, answer, kind = self._ask(asked, body, rows)
        if mishap == "reset after":
            self._reset(asked)
        if mishap == "504 after":
            status, answer = 504, b""
        if changes:
            self.answered.append(time.monotonic())
        self._answer(asked, status, answer, kind, cut=mishap == "cut answer")

    def _mishap(self, chances: Mapping[Mishap, float]) -> Mishap | None:
        with self._one:
            for mishap, chance in chances.items():
                if self.rules.dice.random() < chance:
                    self.happened[mishap] = self.happened.get(mishap, 0) + 1
                    return mishap
        return None

    def _is_allowed(self, rows: list[dict[str, Any]]) -> bool:
        if self.rules.names is None:
            return True
        names = self.rules.names()
        held = {name: number for number, name in names.items()}
        for row in sorted(rows, key=lambda row: int(row["id"])):
            number, new = row["id"], row["public_identifier"]
            if held.get(new, number) != number:
                return False
            held.pop(names[number], None)
            held[new], names[number] = number, new
        return True

    def _ask(
        self, asked: BaseHTTPRequestHandler, body: bytes, rows: list[Any]
    ) -> tuple[int, bytes, str]:
        began = time.monotonic()
        url = urlsplit(self.service)
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=120)
        headers = {k: v for k, v in asked.headers.items() if k.lower() not in _ASIDE}
        try:
            connection.request(asked.command, asked.path, body or None, headers)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            return 502, b"", "text/plain"
        finally:
            connection.close()
        if rows:
            self.sizes.append(len(rows))
        least = self.rules.cost_s(len(rows)) if rows else 0.0
        if asked.command == "GET" and asked.path.endswith("/SC2/samples/"):
            least = self.rules.list_s
        time.sleep(max(0.0, began + least - time.monotonic()))
        return answer.status, content, answer.headers.get("Content-Type", "")

    @staticmethod
    def _answer(
        asked: BaseHTTPRequestHandler,
        status: int,
        content: bytes,
        kind: str = "application/json",
        *,
        cut: bool = False,
    ) -> None:
        asked.send_response(status)
        asked.send_header("Content-Type", kind)
        asked.send_header("Content-Length", str(len(content)))
        asked.end_headers()
        asked.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            Gate._reset(asked)

    @staticmethod
    def _reset(asked: BaseHTTPRequestHandler) -> None:
        asked.wfile.flush()
        linger = struct.pack("ii", 1, 0)
        asked.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        asked.connection.close()
        asked.close_connection = True
        raise _HungUpError
