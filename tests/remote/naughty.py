"""A web server that misbehaves on demand."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

_PATIENCE_S = 120


@dataclass(frozen=True)
class Seen:
    """A request as received."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """The connection that a reply is written to."""

    def __init__(self, sock: socket.socket, hurry: threading.Event):
        self._sock = sock
        self._hurry = hurry

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def reset(self) -> None:
        """Break the connection with RST."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise ConnectionResetError

    def close(self) -> None:
        """Close the connection without RST."""
        raise ConnectionResetError

    def wait(self, seconds: float) -> None:
        """Stall for the given time, or until the test ends."""
        self._hurry.wait(seconds)


Reply = Callable[[Wire], None]


def reply(
    status: int,
    body: bytes | str = b"",
    headers: Mapping[str, str] | None = None,
    *,
    kind: str = "text/plain",
    length: int | None = None,
) -> Reply:
    """Return a whole reply; ``length`` is the length that it claims to have."""
    data = body.encode() if isinstance(body, str) else body
    all_headers = {
        "Content-Type": kind,
        "Content-Length": str(len(data) if length is None else length),
        **(headers or {}),
    }
    head = f"HTTP/1.1 {status} X\r\n" + "".join(f"{k}: {v}\r\n" for k, v in all_headers.items())

    def write(wire: Wire) -> None:
        wire.send(head.encode() + b"\r\n" + data)
        if length is not None and length != len(data):
            wire.close()

    return write


def reply_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    return reply(status, json.dumps(value), headers, kind="application/json")


def reset(wire: Wire) -> None:
    wire.reset()


def hang_up(wire: Wire) -> None:
    wire.close()


def stall(seconds: float) -> Reply:
    """Send nothing for the given time, then hang up."""

    def write(wire: Wire) -> None:
        wire.wait(seconds)
        wire.close()

    return write


def drip(body: bytes, pause: float) -> Reply:
    """Send the body byte by byte."""

    def write(wire: Wire) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
        wire.send(head.encode())
        for number in range(len(body)):
            wire.send(body[number : number + 1])
            wire.wait(pause)

    return write


def drip_head(pause: float) -> Reply:
    """Send an endless head, byte by byte."""

    def write(wire: Wire) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\nX-Long: ")
        for _ in range(10_000):
            wire.send(b"x")
            wire.wait(pause)

    return write


Route = Callable[[Seen], Reply]


@dataclass
class Naughty:
    """A server that sends its replies in order, one per request, and repeats the last one.

    Attributes:
        replies: The replies in order, or a function that returns the one for a request.
        seen: The requests received.
        connections: The number of connections accepted.
        tls: The TLS context; None for plain HTTP.
    """

    replies: list[Reply] | Route
    tls: ssl.SSLContext | None = None
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._hurry = threading.Event()
        self._sockets: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._hurry.set()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(_PATIENCE_S)
        for each in self._sockets:
            each.close()

    def _spawn(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                self._sockets.append(client)
                self._spawn(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        if self.tls:
            try:
                client = self.tls.wrap_socket(client, server_side=True)
            except OSError:  # the client rejects the certificate
                client.close()
                return
            self._sockets.append(client)
        with contextlib.suppress(OSError), client, client.makefile("rb") as stream:
            while (seen := _read(stream)) is not None:
                number = len(self.seen)
                self.seen.append(seen)
                if callable(self.replies):
                    write = self.replies(seen)
                else:
                    write = self.replies[min(number, len(self.replies) - 1)]
                write(Wire(client, self._hurry))


def _read(stream: Any) -> Seen | None:
    first = stream.readline().decode()
    if not first:
        return None
    method, target, _ = first.split(" ", 2)
    headers = {}
    while line := stream.readline().decode().strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = stream.read(int(headers.get("content-length", 0)))
    return Seen(method, target, headers, body)
