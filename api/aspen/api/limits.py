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
class ServiceLimits:
    """The limits of a process; tests use smaller ones."""

    body_bytes: int = _MIB  # unless the view allows more (`accepts`)
    # Values, keys, and lists in a body. A value takes up to 100 bytes in Python, so a small body
    # of empty objects needs far more memory than its size.
    body_values: int = 500_000
    body_depth: int = 32  # levels of lists and objects
    body_seconds: float = 30.0  # for a body of any size to arrive
    body_rate: int = 16_384  # of a longer body after that, in bytes per second
    pause_seconds: float = 15.0  # between two parts of a body
    # Bodies above either of these are parsed and processed one at a time, with a pause between two
    # of them, in which other requests are processed.
    large_bytes: int = _MIB
    large_values: int = 50_000
    large_pause_seconds: float = 0.02
    connections_per_user: int = 8  # that a user's requests hold at a time; the pool has more
    turn_seconds: float = 60.0  # that a request waits for others to finish


def accepts(*, mebibytes: int) -> Callable[[_View], _View]:
    """Return a decorator that allows larger bodies for a view."""

    def mark(view: _View) -> _View:
        view.max_body_bytes = mebibytes * _MIB  # type: ignore[attr-defined] # read by `max_body_bytes`
        return view

    return mark


def max_body_bytes(view: object, limits: ServiceLimits) -> int:
    """Return the maximum size of a body that a view accepts."""
    return getattr(view, "max_body_bytes", limits.body_bytes)
