"""Delete samples through the API in batches, each all or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

from aspencli.errors import ConflictError
from aspencli.services.orgs import Scope
from aspencli.services.sample_records import Lister, read_again

CHUNK = 500


class Samples(Lister, Protocol):
    """The part of the API that lists and deletes samples."""

    def delete(
        self,
        org: int,
        slug: str,
        ids: Sequence[int],
        settle: Callable[[], list[int] | None] | None = None,
    ) -> list[int]:
        """Delete samples, all or none."""


def delete_samples(samples: Samples, scope: Scope, ids: Sequence[int]) -> Iterator[list[int]]:
    """Delete samples in batches, yielding the deleted IDs of each batch.

    Raises:
        AspenError: A batch was rejected; the batches yielded before are deleted.
    """
    for start in range(0, len(ids), CHUNK):
        some = ids[start : start + CHUNK]
        samples.delete(*scope.key, some, partial(_look, samples, scope, some))
        yield list(some)


def _look(samples: Samples, scope: Scope, ids: Sequence[int]) -> list[int] | None:
    """Return the IDs deleted by a request whose response was lost, or None if it deleted none."""
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
