"""Create samples through the API in batches, each all or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Protocol

from aspencli.errors import ConflictError
from aspencli.services.orgs import Directory, Scope, find_slugs
from aspencli.services.sample_records import Lister
from aspencli.shapes import NewSample, Sample

_MOST, _LETTERS = 100, 3_000_000
"""The maximum number of samples, and of sequence letters, per request."""


class Samples(Lister, Protocol):
    """The part of the API that lists and creates samples."""

    def create(
        self,
        org: int,
        slug: str,
        samples: Sequence[NewSample],
        settle: Callable[[], list[Sample] | None] | None = None,
    ) -> list[Sample]:
        """Create samples with their genomes, all or none."""


class Service(Directory, Protocol):
    """The part of the API that creating samples needs."""

    @property
    def samples(self) -> Samples:
        """Return the samples endpoints."""


def taken_names(service: Service, scope: Scope) -> tuple[set[str], set[str]]:
    """Return the group's private and public identifiers, across all pathogens."""

    def keep(sample: Sample) -> tuple[str | None, str | None]:
        own = sample["submitting_group"]["id"] == scope.org.id
        return (sample["private_identifier"], sample["public_identifier"]) if own else (None, None)

    pairs = [
        pair
        for slug in find_slugs(service, None)
        for pair in service.samples.map(scope.org.id, slug, keep)
    ]
    private = {name for name, _ in pairs if name is not None}
    return private, {name for _, name in pairs if name is not None}


def create_samples(
    samples: Samples, scope: Scope, wanted: Iterable[NewSample]
) -> Iterator[list[Sample]]:
    """Create samples in batches, yielding the created samples of each batch.

    Raises:
        AspenError: A batch was rejected; the batches yielded before are created.
    """
    for some in _in_parts(wanted):
        yield samples.create(*scope.key, some, partial(_look, samples, scope, some))


def _in_parts(wanted: Iterable[NewSample]) -> Iterator[list[NewSample]]:
    part: list[NewSample] = []
    letters = 0
    for one in wanted:
        length = len(one["pathogen_genome"]["sequence"])
        if part and (len(part) == _MOST or letters + length > _LETTERS):
            yield part
            part, letters = [], 0
        part.append(one)
        letters += length
    if part:
        yield part


def _look(samples: Samples, scope: Scope, some: Sequence[NewSample]) -> list[Sample] | None:
    """Return the samples created by a request whose response was lost, or None."""
    names = {one["sample"]["private_identifier"] for one in some}

    def keep(sample: Sample) -> Sample | None:
        own = sample["submitting_group"]["id"] == scope.org.id
        return sample if own and sample["private_identifier"] in names else None

    there = [sample for sample in samples.map(*scope.key, keep) if sample is not None]
    if not there:
        return None
    if len(there) == len(some):
        return there
    raise ConflictError(
        f"{len(there):,} of {len(some):,} samples are there, and the answer was lost: somebody "
        "else creates some of them",
        hint="Run it again with --skip-existing.",
    )
