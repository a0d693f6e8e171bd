"""uvicorn's HTTP/1.1 protocol with limits on connections, and the event loop of its workers.

uvicorn limits only the time between requests: a partial request, or a response that is not read,
holds its connection indefinitely. For the first, see https://github.com/Kludex/uvicorn/issues/1332.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, ClassVar, cast
from weakref import WeakKeyDictionary

import h11
from uvicorn.protocols.http.flow_control import CLOSE_HEADER, HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

_SMALL = 64  # bytes per chunk
_TOO_LATE = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@dataclass(frozen=True)
class ConnectionLimits:
    """The connection limits of a process; tests use smaller ones."""

    connections: int = 1_000  # above it, the one that has waited longest for its client is closed
    head_bytes: int = 16_384  # of the request line and the headers
    head_seconds: float = 10.0  # for them to arrive
    rest_seconds: float = 5.0  # for the rest of a body whose request was rejected
    read_seconds: float = 30.0  # for a client to read about 100 kB of a response
    last_seconds: float = 1.0  # that a connection waits for a last request during shutdown
    received_bytes: int = 32_768  # at once
    small_chunks: int = 10_000  # chunks of a few bytes in one body
    body_parts: int = 100  # to read before serving other connections: chunks, or bytes received


class LimitedProtocol(H11Protocol):
    """A connection that is closed if its client does not use it."""

    limits: ClassVar[ConnectionLimits] = ConnectionLimits()
    _queues: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue]] = WeakKeyDictionary()

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.conn = self._state = _Connection(self.limits)
        self._is_queued = False
        self.waiting_since: float | None = time.monotonic()
        self._has_sent = False  # True after a part of the next request has arrived
        self._is_ending = False
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None

    @classmethod
    def with_limits(cls, limits: ConnectionLimits) -> type[LimitedProtocol]:
        """Return a subclass with other limits."""
        return cast("type[LimitedProtocol]", type(cls.__name__, (cls,), {"limits": limits}))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start waiting for a request; if there are too many connections, close one."""
        super().connection_made(cast("asyncio.Transport", transport))
        self.flow = self._flow = _Flow(self.transport)
        if hasattr(transport, "max_size"):
            # asyncio delivers up to 256 KiB at once; parsing that as tiny chunks takes a second.
            transport.max_size = self.limits.received_bytes
        if len(self.connections) > self.limits.connections:
            self._make_room()
        self._limit_reading(self.limits.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the time limits."""
        super().connection_lost(exc)
        self._limit_reading(None)
        self._limit_writing(None)

    def data_received(self, data: bytes) -> None:
        """Process a part of a request."""
        self._has_sent = True
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Wait for the rest of the request, or for the next one."""
        super().on_response_complete()
        self._has_sent = bool(self.conn.trailing_data[0])
        self._look()

    def pause_writing(self) -> None:
        """Start the time limit for the client to read."""
        super().pause_writing()
        self._limit_writing(self.limits.read_seconds)

    def resume_writing(self) -> None:
        """Cancel the time limit, since the client is reading."""
        super().resume_writing()
        self._limit_writing(None)

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, even if the client has not read the end of a response."""
        super().timeout_keep_alive_handler()
        self._limit_writing(self.limits.read_seconds)

    def shutdown(self) -> None:
        """Finish the current request, or wait briefly for one on its way; then close.

        uvicorn closes an idle connection immediately. A client that has just connected, or sends
        requests continuously, would lose a request at each restart.
        """
        self._is_ending = True
        if self._is_answered:
            self._unset_keepalive_if_required()
            self._limit_reading(None)
            self._limit_reading(self.limits.last_seconds)
        else:
            self._announce_end()

    def handle_events(self) -> None:
        """Parse requests; during shutdown, a new one is the connection's last."""
        before = self.cycle
        super().handle_events()
        if self._state.has_to_wait and not self._is_queued:
            self._is_queued = True
            self._flow.hold()
            queue = self._queues.setdefault(self.loop, deque())
            queue.append(self)
            if len(queue) == 1:
                self.loop.call_soon(_read_next, queue)
        if self._is_ending and self.cycle is not before:
            self._announce_end()

    def read_on(self) -> None:
        """Read the next parts of the body."""
        self._is_queued = False
        if self.transport.is_closing():
            return
        self._state.parts_left = self.limits.body_parts
        self.handle_events()
        if not self._is_queued:
            self._flow.release(resume=len(self.cycle.body) <= HIGH_WATER_LIMIT)
        self._look()

    @property
    def _is_answered(self) -> bool:
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is None or cycle.response_complete

    def _announce_end(self) -> None:
        """Make the response tell the client that the connection will close."""
        if not self.cycle.response_started:
            self.cycle.scope["headers"] = [*self.cycle.scope["headers"], CLOSE_HEADER]
            self.cycle.keep_alive = False

    def _look(self) -> None:
        """Set the time limit for what the client has to send next."""
        if self.transport.is_closing():
            return
        theirs = self.conn.their_state
        if theirs not in {h11.IDLE, h11.SEND_BODY}:
            self.waiting_since = None
        elif self.waiting_since is None:
            self.waiting_since = time.monotonic()
        if theirs is h11.IDLE and self._is_answered:
            if self._is_ending:
                self._limit_reading(self.limits.last_seconds)
            elif self._has_sent:
                self._unset_keepalive_if_required()
                self._limit_reading(self.limits.head_seconds)
        elif theirs is h11.SEND_BODY and self._is_answered:
            # The body was not read; closing now could keep the client from reading the response.
            self._state.is_refused = True
            self._unset_keepalive_if_required()
            self._limit_reading(self.limits.rest_seconds)
        else:
            self._has_sent = False
            self._limit_reading(None)

    def _limit_reading(self, seconds: float | None) -> None:
        if seconds is None:
            if self._reading:
                self._reading.cancel()
            self._reading = None
        elif self._reading is None:
            self._reading = self.loop.call_later(seconds, self._stop_waiting)

    def _limit_writing(self, seconds: float | None) -> None:
        if self._writing:
            self._writing.cancel()
        self._writing = None
        if seconds is not None:
            self._writing = self.loop.call_later(seconds, self.transport.abort)

    def _stop_waiting(self) -> None:
        """Close the connection; answer a partial request with 408 first."""
        if self.transport.is_closing():
            return
        if self._is_answered and self._has_sent and self.conn.their_state is h11.IDLE:
            self.transport.write(_TOO_LATE)
        self.transport.close()
        self._limit_writing(self.limits.last_seconds)

    def _make_room(self) -> None:
        """Close the connection that has waited longest for its client, possibly this one."""
        waiting = [
            (one.waiting_since, one)
            for one in self.connections
            if isinstance(one, LimitedProtocol) and one.waiting_since is not None
        ]
        _, oldest = min(waiting, key=lambda pair: pair[0])  # not empty: this one is waiting
        oldest.waiting_since = None
        oldest.transport.abort()


class _Flow(FlowControl):
    """Flow control that stops reading while a connection waits for its turn."""

    _is_held = False

    def resume_reading(self) -> None:
        """Resume reading, unless the connection is waiting for its turn."""
        if not self._is_held:
            super().resume_reading()

    def hold(self) -> None:
        """Stop reading until `release` is called."""
        self._is_held = True
        self.pause_reading()

    def release(self, *, resume: bool) -> None:
        """Let the application control reading again; resume immediately if requested."""
        self._is_held = False
        if resume:
            self.resume_reading()


_Queue = deque[LimitedProtocol]
"""Connections with many parts to read; each iteration of their event loop, one reads some."""


def _read_next(queue: _Queue) -> None:
    connection = queue.popleft()
    if queue:
        connection.loop.call_soon(_read_next, queue)
    connection.read_on()


class _Connection(h11.Connection):
    """A connection with limits on tiny chunks, which cost more to read than to send."""

    def __init__(self, limits: ConnectionLimits):
        super().__init__(h11.SERVER, limits.head_bytes)
        self._limits = limits
        self._small = 0
        self.parts_left = limits.body_parts
        self.is_refused = False

    @property
    def has_to_wait(self) -> bool:
        """Return True if no more of the body may be read in this turn."""
        return self.parts_left <= 0 and self.their_state is h11.SEND_BODY

    def next_event(self) -> Any:
        """Return the next event, or `NEED_DATA` if the connection has to wait."""
        if self.has_to_wait:
            return h11.NEED_DATA
        event = super().next_event()
        if isinstance(event, h11.Data):
            self.parts_left -= 1
            self._small += len(event.data) < _SMALL
            if self._small > self._limits.small_chunks / (20 if self.is_refused else 1):
                raise h11.RemoteProtocolError("too many small chunks")
        elif isinstance(event, h11.Request):
            self._small, self.is_refused = 0, False
        return event


class SharingEventLoop(asyncio.SelectorEventLoop):
    """An event loop that accepts one connection at a time and leaves the next to other workers.

    asyncio accepts as many at once as the backlog holds: the worker that woke up first took almost
    all of them, and as clients keep their connections open, the others stayed idle.
    """

    async def create_server(  # type: ignore[override] # uvicorn passes only a socket
        self,
        protocol_factory: Any,
        *,
        sock: socket.socket,
        backlog: int,
        **options: Any,
    ) -> asyncio.Server:
        """Return a server that listens on a socket shared with other processes."""
        server = await super().create_server(protocol_factory, sock=sock, backlog=1, **options)
        sock.listen(backlog)  # restore the requested backlog
        return server
