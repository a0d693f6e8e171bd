"""Samples deleted through the API, some at a time, each time all or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

from aspencli.errors import ConflictError
from aspencli.services.orgs import Scope
from aspencli.services.sample_records import Lister, read_again

CHUNK = 500


class Samples(Lister, Protocol):
    """Lists samples, and deletes them."""

    def delete(
        self,
        org: int,
        slug: str,
        ids: Sequence[int],
        settle: Callable[[], list[int] | None] | None = None,
    ) -> list[int]:
        """Delete samples: all of them, or none."""


def delete_samples(samples: Samples, scope: Scope, ids: Sequence[int]) -> Iterator[list[int]]:
    """Delete samples; those that are gone, as it is done.

    Raises:
        AspenError: Some were refused; what was told before is done.
    """
    for start in range(0, len(ids), CHUNK):
        some = ids[start : start + CHUNK]
        samples.delete(*scope.key, some, partial(_look, samples, scope, some))
        yield list(some)


def _look(samples: Samples, scope: Scope, ids: Sequence[int]) -> list[int] | None:
    """The ids that were deleted by a request whose answer was lost; None where none was."""
    there = read_again(samples, scope, ids)
    if not there:
        return list(ids)
    if len(there) == len(ids):
        return None
    raise ConflictError(
        f"{len(ids) - len(there):,} of {len(ids):,} samples are gone, and somebody else deleted "
        "some of them",
        hint="Run it again with --skip-missing.",
    )
