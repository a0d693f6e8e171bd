"""Limits on what one request, user, or connection may take of the service."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

_View = TypeVar("_View", bound=Callable[..., object])
_MIB = 1 << 20

MAX_SAMPLES = 40_000
"""Samples in one request. The live service fails above 32,766."""
MAX_NAMES = 100_000
"""Identifiers, names, or ids in one request."""
NAMES_MIB = 8
"""The size of a body that may hold `MAX_NAMES`."""
MAX_EMAILS = 1_000
"""Addresses in one request; the identity provider is asked for each of them in turn."""
MAX_FINDINGS = 1_000
"""Errors in one answer; about as many are looked for."""


@dataclass(frozen=True)
class Limits:
    """Limits of a process; tests choose smaller ones.

    Attributes:
        body_bytes: The size of a body, where the view does not allow more (`accepts`).
        body_values: Values, keys, and lists in a body. A value costs Python up to 100 bytes, so a
            small body of empty objects takes far more memory than its size.
        body_depth: Levels of lists and objects in a body.
        body_seconds: The time in which a body has to arrive, however small it is.
        body_rate: Bytes per second that a longer body has to keep up after that.
        pause_seconds: The longest pause between two parts of a body.
        large_bytes: Bodies above this size are parsed and answered one at a time.
        large_values: So are bodies with more values than this, however small they are.
        large_pause_seconds: The time between two of them, in which the others are answered.
        connections_per_user: Connections to the database that one user's requests hold at a time,
            fewer than the pool has.
        turn_seconds: How long a request waits for the user's other requests.
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
    """Let a view take larger bodies than most do."""

    def mark(view: _View) -> _View:
        view.max_body_bytes = mebibytes * _MIB  # type: ignore[attr-defined] # read by `max_body_bytes`
        return view

    return mark


def max_body_bytes(view: object, limits: Limits) -> int:
    """Return the size of the largest body that a view takes."""
    return getattr(view, "max_body_bytes", limits.body_bytes)


@dataclass(frozen=True)
class ConnectionLimits:
    """Limits on connections of a process; tests choose smaller ones.

    Attributes:
        connections: How many there may be. The one that has waited longest for its client gives
            way to a new one.
        head_bytes: The size of the first line and the headers.
        head_seconds: The time in which they have to arrive.
        rest_seconds: The time for the rest of a body whose request was refused.
        read_seconds: The time in which a client has to read some 100 kB of an answer.
        last_seconds: How long a connection waits for a last request when the process ends.
        received_bytes: How much is taken in at once.
        small_chunks: Chunks of a few bytes in one body.
        body_parts: Parts of a body that are read before others are answered. A part is a chunk, or
            what was taken in at once.
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
