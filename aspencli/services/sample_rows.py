"""Samples as commands show them, whichever way they were read; the standard library only."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, fields
from typing import Any

from aspencli.errors import BadInputError, NotFoundError
from aspencli.services.sample_fields import SampleKey, SampleSort

_Fields = dict[str, Any]
PLACE = ("region", "country", "division", "location")
"""The parts of a location, from the largest down."""
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
"""What is shown of a lineage; the first tells whose it is."""
QC_METRIC = ("qc_caller", "qc_status", "qc_score", "qc_software_version", *_REFERENCE)
"""What is shown of a sequence's quality; the first tells who says so."""
UPLOADED_GENOME = ("upload_date", "sequencing_depth")
"""What is shown of a sequence as it was uploaded, besides its length, its date and its sites."""
SITES = ("num_unambiguous_sites", "num_missing_alleles", "num_mixed")
"""The counts of a sequence's sites."""


@dataclass(frozen=True)
class SampleQuery:
    """Which samples are wanted; what is None does not narrow.

    Attributes:
        group: Id, name or prefix of the group that submitted them.
        pathogen: The pathogen's slug.
        private: True for those that other groups may not see, False for the others.
        collected_after: The first day.
        collected_before: The last day.
        location: Part of ``Region / Country / Division / Location``, in any case.
        search: Part of the private or the public identifier, in any case.
        after: The id of the sample to go on behind.
        sort: The order.
        reverse: Whether the order is turned round.
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
        """Look whether it can find anything.

        Raises:
            BadInputError: The days are in the wrong order.
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
        private_identifier: None where it is another group's, which the API does not tell.
        group: The name of the group that submitted it.
        pathogen: The pathogen's slug.
        location: Where it was collected, as ``Region / Country / Division / Location``.
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
    """Everything about a sample; what is nested is named as the columns are.

    The sequences themselves and the tools' raw outputs are left out. What the
    API does not tell (`UNTOLD`) is None there.

    Attributes:
        matched_by: What of the sample was asked for.
        location: Where it was collected, as ``Region / Country / Division / Location``.
        genome: The sequence that came with it: dates, depth, length and counts of its sites.
        aligned_genome: The same after its alignment to a reference.
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
"""What the API does not tell about a sample."""


def nothing_behind(sample: int) -> NotFoundError:
    """The error of a list that cannot be gone on with."""
    return NotFoundError(
        f"there is no sample {sample} to go on behind",
        hint="Give the id of the last sample that was shown.",
    )
