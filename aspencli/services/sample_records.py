"""Samples as the API takes them back: whole, so that nothing of them is lost."""

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
    """Lists samples."""

    def map(self, org: int, slug: str, keep: Callable[[Sample], T]) -> list[T]:
        """Of each sample what ``keep`` makes of it."""


class Replacer(Lister, Protocol):
    """Lists samples, and replaces them."""

    def replace(
        self,
        org: int,
        slug: str,
        records: Sequence[SampleRecord],
        settle: Callable[[], list[Sample] | None] | None = None,
    ) -> list[Sample]:
        """Put whole records in the place of what is there: all of them, or none."""


@dataclass(frozen=True)
class Held:
    """A sample as it is: what can be written of it, and what it is shown as.

    Attributes:
        record: What can be written.
        sample: All that the API tells.
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
    """The group's own samples that the keys name, in their order, each once.

    Args:
        samples: The API.
        scope: The group and the pathogen.
        keys: Ids, private and public identifiers.
        by: What the keys are; None means any.
        skip_missing: Whether keys that name none of them are passed over.

    Raises:
        NotFoundError: Some key names none of them.
        BadInputError: Some key names several.
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
    """The samples of these ids as they are now; those that are gone are left out."""
    wanted = frozenset(ids)

    def keep(sample: Sample) -> Sample | None:
        return sample if sample["id"] in wanted else None

    listed = samples.map(*scope.key, keep)
    return {sample["id"]: sample for sample in listed if sample is not None}


def held(sample: Sample) -> Held:
    """A sample, with what can be written of it.

    Raises:
        BadInputError: The API does not tell all of it.
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
    """What can be written of a sample; a location of 0 stays what it is."""
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
