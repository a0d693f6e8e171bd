"""Samples as commands show and query them, whichever the backend; only the standard library.

The matching of keys to samples is here as well, because both backends resolve keys the same way.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, NamedTuple

from aspencli.errors import BadInputError, NotFoundError
from aspencli.samples.keys import IDENTIFIERS, SampleKey
from aspencli.text import folded, unusual_in_identifier

_Fields = dict[str, Any]
_REFERENCE = ("reference_dataset_name", "reference_sequence_accession", "reference_dataset_tag")
LINEAGE = (
    *("lineage_type", "lineage", "lineage_software_version", "lineage_probability"),
    *("last_updated", *_REFERENCE),
)
"""The lineage fields shown; the first is the type of lineage."""
QC_METRIC = ("qc_caller", "qc_status", "qc_score", "qc_software_version", *_REFERENCE)
"""The QC metric fields shown; the first is the tool that computed it."""
UPLOADED_GENOME = ("upload_date", "sequencing_depth")
"""The uploaded-genome fields shown, besides length, sequencing date, and site counts."""
SITES = ("num_unambiguous_sites", "num_missing_alleles", "num_mixed")
"""The site counts of a sequence."""
KEYS = ("id", *IDENTIFIERS)
"""The same, for commands that also accept a sample's ID."""


class SampleSort(StrEnum):
    """A field to sort samples by; ties are broken by ascending ID."""

    ID = "id"
    PRIVATE_IDENTIFIER = "private_identifier"
    PUBLIC_IDENTIFIER = "public_identifier"
    COLLECTION_DATE = "collection_date"


@dataclass(frozen=True)
class SampleQuery:
    """The filter and the order of a sample list; None means no restriction.

    Attributes:
        group: ID, name, or prefix of the submitting group.
        pathogen: The pathogen's slug.
        private: True for samples hidden from other groups, False for all other samples.
        collected_after: The first collection date.
        collected_before: The last collection date.
        location: Part of ``Region / Country / Division / Location``, ignoring case.
        search: Part of the private or public identifier, ignoring case.
        after: The ID of the sample to continue after.
        reverse: True for descending order.
    """

    group: str | None = None
    pathogen: str | None = None
    private: bool | None = None
    collected_after: dt.date | None = None
    collected_before: dt.date | None = None
    location: str | None = None
    search: str | None = None
    after: int | None = None
    sort: SampleSort = SampleSort.ID
    reverse: bool = False

    def check(self) -> None:
        """Check that the query can match anything.

        Raises:
            BadInputError: The dates are in the wrong order.
        """
        first, last = self.collected_after, self.collected_before
        if first and last and first > last:
            raise BadInputError(
                f"Invalid date range: {first} is later than {last}.", hint="Swap the two dates."
            )


class SampleRow(NamedTuple):
    """A sample in a list, with the pathogen's slug and the names of the group and the user.

    Attributes:
        private_identifier: None if the API withholds it because the sample is another group's.
        location: The collection location, as ``Region / Country / Division / Location``.
    """

    id: int
    private_identifier: str | None
    public_identifier: str | None
    group: str
    pathogen: str
    collection_date: dt.date
    location: str | None
    private: bool
    uploaded_by: str


@dataclass(frozen=True)
class SampleDetails:
    """Everything about a sample; nested fields have the names of their database columns.

    Sequences and the tools' raw output are left out. Fields that the API does not return
    (`UNTOLD`) are None in its results.

    Attributes:
        matched_by: The field that the sample was found by.
        location: The collection location, as ``Region / Country / Division / Location``.
        genome: The uploaded sequence: dates, depth, length, and site counts.
        aligned_genome: The same after alignment to a reference.
    """

    id: int
    matched_by: SampleKey
    private_identifier: str | None
    public_identifier: str | None
    private: bool
    group: _Fields
    pathogen: _Fields
    collection_date: dt.date
    location: str | None
    collection_location: _Fields | None
    uploaded_by: _Fields
    genome: _Fields | None
    accessions: list[_Fields]
    lineages: list[_Fields]
    qc_metrics: list[_Fields]
    organism: str | None = None
    host: str | None = None
    purpose_of_sampling: str | None = None
    specimen_processing: str | None = None
    sample_collected_by: str | None = None
    sample_collector_contact_email: str | None = None
    sample_collector_contact_address: str | None = None
    authors: list[str] | str | None = None
    aligned_genome: _Fields | None = None
    mutations: list[_Fields] | None = None
    original_submission: Any = None


UNTOLD = tuple(field.name for field in fields(SampleDetails) if field.default is None)
"""The sample fields that the API does not return."""


def nothing_behind(sample: int) -> NotFoundError:
    """Return the error for a list that continues after a sample that does not exist."""
    return NotFoundError(
        f"Invalid value for --after: no such sample: {sample}",
        hint="Give the ID of the last sample shown.",
    )


@dataclass(frozen=True)
class Match:
    """A sample that matches a key by a field, with the name of its group."""

    key: str
    sample_id: int
    by: SampleKey
    group: str


def settle_keys(
    keys: Sequence[str], matches: Iterable[Match], *, within: str | None
) -> list[Match]:
    """Return the sample that each key names, in the order of the keys, without duplicates.

    If a sample matches a key twice, the first match counts. Messages name the group that was
    searched, unless it is None.

    Raises:
        NotFoundError: A key matches no sample.
        BadInputError: A key matches several samples.
    """
    found: defaultdict[str, dict[int, Match]] = defaultdict(dict)
    for match in matches:
        found[match.key].setdefault(match.sample_id, match)
    _demand_found([key for key in keys if key not in found], within=within)
    _demand_single([match for each in found.values() if len(each) > 1 for match in each.values()])
    named: dict[int, Match] = {}
    for key in keys:
        match = next(iter(found[key].values()))
        named.setdefault(match.sample_id, match)
    return list(named.values())


def _demand_found(missing: list[str], *, within: str | None) -> None:
    if missing:
        place = f" in group {within}" if within is not None else ""
        odd = [
            (key, found) for key in dict.fromkeys(missing) if (found := unusual_in_identifier(key))
        ]
        meant = f"Did you mean {folded(odd[0][0])!r}? " if odd else ""
        raise NotFoundError(
            f"No such sample{place}: {', '.join(repr(key) for key in dict.fromkeys(missing))}",
            hint=f"{meant}Search by part of an identifier: aspencli samples list --search TEXT",
            details=[f"{key!r} contains {found[0]}" for key, found in odd],
        )


def _demand_single(ambiguous: list[Match]) -> None:
    if ambiguous:
        raise BadInputError(
            "Several samples match; nothing was done.",
            hint="Add --group, or --by id, private_identifier, or public_identifier.",
            details=[
                f"{match.key!r} is the {match.by.value} of sample {match.sample_id}"
                f" (group {match.group})"
                for match in ambiguous
            ],
        )
