"""The samples of a group as listed by the API, reduced to what renaming needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

from aspencli.services.sample_records import Replacer
from aspencli.shapes import Sample, SampleRecord

T = TypeVar("T")
_AS_IT_IS = 0  # location ID that leaves the location unchanged


class Held(NamedTuple):
    """A sample of the group, with all fields that an update has to write."""

    id: int
    private_identifier: str
    public_identifier: str
    private: bool
    collection_date: str
    sequencing_date: str | None

    def named(self, public: str) -> SampleRecord:
        """Return the record that renames it and leaves everything else unchanged."""
        return {
            "id": self.id,
            "collection_location": _AS_IT_IS,
            "private": self.private,
            "private_identifier": self.private_identifier,
            "public_identifier": public,
            "collection_date": self.collection_date,
            "sequencing_date": self.sequencing_date,
        }


class Samples(Replacer, Protocol):
    """The part of the API that lists samples, finds names, and replaces samples."""

    def missing(self, org: int, slug: str, ids: Sequence[str]) -> list[str]:
        """Return the names that match no sample visible to the user."""


@dataclass(frozen=True)
class Snapshot:
    """The samples that the API listed at one moment.

    Attributes:
        samples: The group's samples, by ID.
        elsewhere: The public identifiers of visible samples in other groups.
    """

    samples: dict[int, Held]
    elsewhere: frozenset[str]

    def holders(self) -> dict[str, Held]:
        """Return the group's samples by public identifier, which is unique within the group."""
        return {held.public_identifier: held for held in self.samples.values()}


@dataclass(frozen=True)
class Place:
    """A group's samples in the API.

    Attributes:
        samples: The samples endpoints.
        group_id: The group, which is also the one to send requests as.
        slugs: All pathogens; names are unique in a group across pathogens.
    """

    samples: Samples
    group_id: int
    slugs: Sequence[str]

    @property
    def slug(self) -> str:
        """Return the pathogen for the path of change requests; the service does not check it."""
        return self.slugs[0]

    def read(self) -> Snapshot:
        """Fetch the list."""
        samples: dict[int, Held] = {}
        elsewhere: set[str] = set()

        def keep(sample: Sample) -> None:
            if sample["submitting_group"]["id"] == self.group_id:
                samples[sample["id"]] = _held(sample)
            else:
                elsewhere.add(sample["public_identifier"] or "")

        for slug in self.slugs:
            self.samples.map(self.group_id, slug, keep)
        return Snapshot(samples, frozenset(elsewhere))

    def has(self, names: Iterable[str]) -> bool:
        """Return True if every one of these names matches a sample."""
        return not self.samples.missing(self.group_id, self.slug, list(names))


def _held(sample: Sample) -> Held:
    return Held(
        sample["id"],
        sample["private_identifier"] or "",
        sample["public_identifier"] or "",
        sample["private"],
        sample["collection_date"],
        sample["sequencing_date"],
    )
