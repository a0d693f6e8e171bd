"""Which identifiers name samples that one may see, through the API."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from aspencli.errors import NotFoundError
from aspencli.services.orgs import Scope

CHUNK = 5_000
"""Identifiers that are asked for at once: the live service fails at about 16,384."""
_SHOWN = 20


class Samples(Protocol):
    """Tells which identifiers name nothing."""

    def missing(self, org: int, slug: str, ids: Sequence[str]) -> list[str]:
        """Which of these name no sample that one may see."""


def find_missing(
    samples: Samples, scope: Scope, ids: Sequence[str], tick: Callable[[int], None]
) -> list[str]:
    """Which of these identifiers name no sample that one may see, in their order.

    Args:
        samples: The API.
        scope: What the samples belong to.
        ids: Public and private identifiers, names of strains, and accessions of GISAID.
        tick: Told how many were looked at by now.
    """
    missing: set[str] = set()
    for start in range(0, len(ids), CHUNK):
        some = ids[start : start + CHUNK]
        missing.update(samples.missing(*scope.key, some))
        tick(start + len(some))
    return [each for each in ids if each in missing]


def unknown(missing: Sequence[str], count: int, hint: str) -> NotFoundError:
    """The error that names identifiers which name nothing.

    Args:
        missing: Those.
        count: How many were asked for.
        hint: What to do next.
    """
    more = [f"and {len(missing) - _SHOWN:,} more"] if len(missing) > _SHOWN else []
    return NotFoundError(
        f"{len(missing):,} of {count:,} identifiers name no sample that you may see",
        details=[*missing[:_SHOWN], *more],
        hint=hint,
    )
