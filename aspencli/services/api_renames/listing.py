"""The samples of a group as the API lists them: as much of each as renaming it needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

from aspencli.services.sample_records import Replacer
from aspencli.shapes import Sample, SampleRecord

T = TypeVar("T")
_AS_IT_IS = 0  # instead of a location's id


class Held(NamedTuple):
    """A sample of the group; writing it takes all of this."""

    id: int
    private_identifier: str
    public_identifier: str
    private: bool
    collection_date: str
    sequencing_date: str | None

    def named(self, public: str) -> SampleRecord:
        """The record that renames it, and leaves it as it is otherwise."""
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
    """Lists samples, finds names, and writes samples back."""

    def missing(self, org: int, slug: str, ids: Sequence[str]) -> list[str]:
        """Which of these names no sample has that one may see."""


@dataclass(frozen=True)
class Snapshot:
    """What the API listed at one moment.

    Attributes:
        samples: Those of the group, by id.
        elsewhere: How samples of other groups are named that one may see.
    """

    samples: dict[int, Held]
    elsewhere: frozenset[str]

    def holders(self) -> dict[str, Held]:
        """Who holds each public identifier within the group; none is held twice there."""
        return {held.public_identifier: held for held in self.samples.values()}


@dataclass(frozen=True)
class Place:
    """Where the samples of a group are.

    Attributes:
        samples: The API's samples.
        group_id: The group, in whose name is asked.
        slugs: Every pathogen; names are unique in a group, whatever the pathogen.
    """

    samples: Samples
    group_id: int
    slugs: Sequence[str]

    @property
    def slug(self) -> str:
        """The pathogen in whose name changes are made; the service does not compare it."""
        return self.slugs[0]

    def read(self) -> Snapshot:
        """Ask for the list."""
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
        """Whether each of these names is one of a sample."""
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
