"""Limits on the resources that one request, user, or connection may use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

_View = TypeVar("_View", bound=Callable[..., object])
_MIB = 1 << 20

MAX_SAMPLES = 40_000
"""Maximum samples per request. The live service fails above 32,766."""
MAX_NAMES = 100_000
"""Maximum identifiers, names, or IDs per request."""
NAMES_MIB = 8
"""Maximum size of a body that holds up to `MAX_NAMES`, in MiB."""
MAX_EMAILS = 1_000
"""Maximum addresses per request; each requires a call to the identity provider."""
MAX_FINDINGS = 1_000
"""Maximum errors per response; validation stops after about as many."""


@dataclass(frozen=True)
class Limits:
    """The limits of a process; tests use smaller ones.

    Attributes:
        body_bytes: The maximum size of a body, unless the view allows more (`accepts`).
        body_values: The maximum values, keys, and lists in a body. A value takes up to 100 bytes
            in Python, so a small body of empty objects needs far more memory than its size.
        body_depth: The maximum levels of lists and objects in a body.
        body_seconds: The time for a body of any size to arrive.
        body_rate: The minimum rate of a longer body after that, in bytes per second.
        pause_seconds: The maximum pause between two parts of a body.
        large_bytes: The size above which bodies are parsed and processed one at a time.
        large_values: The number of values above which the same applies, whatever the size.
        large_pause_seconds: The pause between two of them, in which other requests are processed.
        connections_per_user: The maximum database connections that one user's requests hold at a
            time, fewer than the pool has.
        turn_seconds: The maximum time that a request waits for others to finish.
    """

    body_bytes: int = _MIB
    body_values: int = 500_000
    body_depth: int = 32
    body_seconds: float = 30.0
    body_rate: int = 16_384
    pause_seconds: float = 15.0
    large_bytes: int = _MIB
    large_values: int = 50_000
    large_pause_seconds: float = 0.02
    connections_per_user: int = 8
    turn_seconds: float = 60.0


def accepts(*, mebibytes: int) -> Callable[[_View], _View]:
    """Return a decorator that allows larger bodies for a view."""

    def mark(view: _View) -> _View:
        view.max_body_bytes = mebibytes * _MIB  # type: ignore[attr-defined] # read by `max_body_bytes`
        return view

    return mark


def max_body_bytes(view: object, limits: Limits) -> int:
    """Return the maximum size of a body that a view accepts."""
    return getattr(view, "max_body_bytes", limits.body_bytes)


@dataclass(frozen=True)
class ConnectionLimits:
    """The connection limits of a process; tests use smaller ones.

    Attributes:
        connections: The maximum number of connections. Above it, the one that has waited longest
            for its client is closed.
        head_bytes: The maximum size of the request line and the headers.
        head_seconds: The time for them to arrive.
        rest_seconds: The time for the rest of a body whose request was rejected.
        read_seconds: The time for a client to read about 100 kB of a response.
        last_seconds: The time that a connection waits for a last request during shutdown.
        received_bytes: The maximum number of bytes received at once.
        small_chunks: The maximum number of chunks of a few bytes in one body.
        body_parts: The parts of a body to read before serving other connections. A part is a chunk
            or the bytes received at once.
    """

    connections: int = 1_000
    head_bytes: int = 16_384
    head_seconds: float = 10.0
    rest_seconds: float = 5.0
    read_seconds: float = 30.0
    last_seconds: float = 1.0
    received_bytes: int = 32_768
    small_chunks: int = 10_000
    body_parts: int = 100
