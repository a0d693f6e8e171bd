"""Find the identifiers that match no sample visible to the user, through the API."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from aspencli.errors import NotFoundError
from aspencli.services.orgs import Scope

CHUNK = 5_000
"""Identifiers per request; the live service fails at about 16,384."""
_SHOWN = 20


class Samples(Protocol):
    """The part of the API that finds unknown identifiers."""

    def missing(self, org: int, slug: str, ids: Sequence[str]) -> list[str]:
        """Return the identifiers that match no sample visible to the user."""


def find_missing(
    samples: Samples, scope: Scope, ids: Sequence[str], tick: Callable[[int], None]
) -> list[str]:
    """Return the identifiers that match no sample visible to the user, in the order given.

    Args:
        samples: The API.
        scope: The group and pathogen to search in.
        ids: Public and private identifiers, strain names, and GISAID accessions.
        tick: Called with the number of identifiers checked so far.
    """
    missing: set[str] = set()
    for start in range(0, len(ids), CHUNK):
        some = ids[start : start + CHUNK]
        missing.update(samples.missing(*scope.key, some))
        tick(start + len(some))
    return [each for each in ids if each in missing]


def unknown(missing: Sequence[str], count: int, hint: str) -> NotFoundError:
    """Return the error that lists the unknown identifiers.

    Args:
        missing: The unknown identifiers.
        count: The number of identifiers that were looked up.
        hint: What to do next.
    """
    more = [f"and {len(missing) - _SHOWN:,} more"] if len(missing) > _SHOWN else []
    return NotFoundError(
        f"{len(missing):,} of {count:,} identifiers name no sample that you may see",
        details=[*missing[:_SHOWN], *more],
        hint=hint,
    )
