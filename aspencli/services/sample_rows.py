"""Samples as commands show them, from either backend; uses only the standard library."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, fields
from typing import Any

from aspencli.errors import BadInputError, NotFoundError
from aspencli.services.sample_fields import SampleKey, SampleSort

_Fields = dict[str, Any]
PLACE = ("region", "country", "division", "location")
"""The parts of a location, from largest to smallest."""
_REFERENCE = (
    "reference_dataset_name",
    "reference_sequence_accession",
    "reference_dataset_tag",
)
LINEAGE = (
    "lineage_type",
    "lineage",
    "lineage_software_version",
    "lineage_probability",
    "last_updated",
    *_REFERENCE,
)
"""The lineage fields shown; the first is the type of lineage."""
QC_METRIC = ("qc_caller", "qc_status", "qc_score", "qc_software_version", *_REFERENCE)
"""The QC metric fields shown; the first is the tool that computed it."""
UPLOADED_GENOME = ("upload_date", "sequencing_depth")
"""The uploaded-genome fields shown, besides length, sequencing date, and site counts."""
SITES = ("num_unambiguous_sites", "num_missing_alleles", "num_mixed")
"""The site counts of a sequence."""


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
        sort: The field to sort by.
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
                f"no sample was collected after {first} and before {last}",
                hint="Swap the two days.",
            )


@dataclass(frozen=True)
class SampleRow:
    """A sample in a list.

    Attributes:
        private_identifier: None if the API withholds it because the sample is another group's.
        group: The name of the submitting group.
        pathogen: The pathogen's slug.
        location: The collection location, as ``Region / Country / Division / Location``.
        uploaded_by: The name of the user.
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
        f"there is no sample {sample} to go on behind",
        hint="Give the id of the last sample that was shown.",
    )
