"""Samples as complete records, as the API requires for updates that lose nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from aspencli.errors import BadInputError
from aspencli.services.orgs import Scope
from aspencli.services.sample_fields import SampleKey
from aspencli.services.sample_matching import settle_keys
from aspencli.services.samples_asked import Finder
from aspencli.shapes import Sample, SampleRecord

T = TypeVar("T")


class Lister(Protocol):
    """The part of the API that lists samples."""

    def map(self, org: int, slug: str, keep: Callable[[Sample], T]) -> list[T]:
        """Return the result of ``keep`` for each sample."""


class Replacer(Lister, Protocol):
    """The part of the API that lists and replaces samples."""

    def replace(
        self,
        org: int,
        slug: str,
        records: Sequence[SampleRecord],
        settle: Callable[[], list[Sample] | None] | None = None,
    ) -> list[Sample]:
        """Replace samples with complete records, all or none."""


@dataclass(frozen=True)
class Held:
    """A sample's writable record, along with the full sample.

    Attributes:
        record: The writable fields.
        sample: Everything that the API returns.
    """

    record: SampleRecord
    sample: Sample


def find_samples(
    samples: Lister,
    scope: Scope,
    keys: Sequence[str],
    by: SampleKey | None,
    *,
    skip_missing: bool = False,
) -> list[Held]:
    """Return the group's own samples that the keys name, in the given order, without duplicates.

    Args:
        samples: The API.
        scope: The group and the pathogen.
        keys: IDs, private identifiers, and public identifiers.
        by: The kind of the keys; None for any.
        skip_missing: True to ignore keys that match none of these samples.

    Raises:
        NotFoundError: A key matches none of these samples.
        BadInputError: A key matches several of them.
    """
    finder = Finder(keys, by, scope.org)
    listed = samples.map(*scope.key, finder.keep)
    found = {sample["id"]: sample for sample in listed if sample is not None}
    within = f"{scope.org.id}, {scope.slug}"
    matches = finder.matches()
    if skip_missing:
        named = {match.key for match in matches}
        keys = [key for key in keys if key in named]
    matches = settle_keys(keys, matches, within=within)
    return [held(found[match.sample_id]) for match in matches]


def read_again(samples: Lister, scope: Scope, ids: Sequence[int]) -> dict[int, Sample]:
    """Return the current state of the samples with these IDs, without those now deleted."""
    wanted = frozenset(ids)

    def keep(sample: Sample) -> Sample | None:
        return sample if sample["id"] in wanted else None

    listed = samples.map(*scope.key, keep)
    return {sample["id"]: sample for sample in listed if sample is not None}


def held(sample: Sample) -> Held:
    """Return a sample along with its writable record.

    Raises:
        BadInputError: The API withholds its private identifier.
    """
    private = sample["private_identifier"]
    if private is None:
        raise BadInputError(
            f"sample {sample['id']} is of {sample['submitting_group']['name']}, and its private "
            "identifier, which would have to be written back, is not told to your group",
            hint=f"Ask in the name of that group: --group {sample['submitting_group']['id']}",
        )
    return Held(record_of(sample, private), sample)


def record_of(sample: Sample, private_identifier: str) -> SampleRecord:
    """Return a sample's writable fields; location 0 leaves a missing location as it is."""
    place: Mapping[str, object] | None = sample["collection_location"]
    return {
        "id": sample["id"],
        "collection_location": sample["collection_location"]["id"] if place else 0,
        "private": sample["private"],
        "private_identifier": private_identifier,
        "public_identifier": sample["public_identifier"],
        "collection_date": sample["collection_date"],
        "sequencing_date": sample["sequencing_date"],
    }
