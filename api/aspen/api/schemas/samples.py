"""Samples, and their sequences."""

from __future__ import annotations

from datetime import date
from typing import NamedTuple

from pydantic import Field

from aspen.api.schemas.base import (
    BaseRequest,
    BaseResponse,
    Date,
    Names,
    RowId,
    Samples,
    StrictText,
    UtcTime,
)
from aspen.api.schemas.reference import LocationResponse, PathogenResponse
from aspen.database.models import LineageType, QCMetricCaller

_LONGEST = 128
_SHORTEST_SEQUENCE = 1000


class SampleGisaidResponse(BaseResponse):
    """The status of the sample at GISAID."""

    gisaid_id: str | None = None
    status: str


class SampleGroupResponse(BaseResponse):
    """The group that submitted the sample."""

    id: int
    name: str


class SampleUserResponse(BaseResponse):
    """The user who uploaded the sample."""

    id: int
    name: str


class SampleLineageResponse(BaseResponse):
    """The lineage that one tool assigned to the sample."""

    lineage_type: LineageType
    lineage: str
    lineage_software_version: str
    last_updated: date | None = None
    lineage_probability: float | None = None
    reference_dataset_name: str | None = None
    reference_sequence_accession: str | None = None
    reference_dataset_tag: str | None = None
    scorpio_call: str | None = None
    scorpio_support: str | None = None
    qc_status: str | None = None


class SampleQCMetricsResponse(BaseResponse):
    """The quality of the sample's sequence."""

    qc_score: str | None = None
    qc_software_version: str
    qc_status: str
    qc_caller: QCMetricCaller
    reference_dataset_name: str | None = None
    reference_sequence_accession: str | None = None
    reference_dataset_tag: str | None = None


class SampleResponse(BaseResponse):
    """A sample. PostgreSQL makes the JSON (`aspen.api.samples.listing`); this documents it."""

    id: int
    collection_date: date
    collection_location: LocationResponse | None
    gisaid: SampleGisaidResponse | None = None
    pathogen: PathogenResponse | None = None
    private: bool
    private_identifier: str | None = None
    """Null unless the sample belongs to the group in the path."""
    public_identifier: str | None = None
    sequencing_date: date | None = None
    submitting_group: SampleGroupResponse
    uploaded_by: SampleUserResponse
    upload_date: UtcTime | None = None
    lineages: list[SampleLineageResponse] = Field(default_factory=list)
    qc_metrics: list[SampleQCMetricsResponse] = Field(default_factory=list)


class SamplesResponse(BaseResponse):
    """Samples, in the order of their ids."""

    samples: list[SampleResponse]


class UpdateSamplesBaseRequest(BaseRequest):
    """The new values of a sample: omitted ones are not kept, but generated or cleared."""

    id: RowId
    collection_date: Date | None = None
    """Required, although the schema of the live service has never said so."""
    collection_location: RowId
    """The ID of a location; 0 keeps the current one."""
    private: bool
    private_identifier: StrictText = Field(min_length=1, max_length=_LONGEST)
    public_identifier: StrictText | None = Field(None, min_length=1, max_length=_LONGEST)
    """Generated if omitted."""
    sequencing_date: Date | None = None
    """Cleared if omitted."""


class UpdateSamplesRequest(BaseRequest):
    """Complete samples; of several with the same ID, the last one counts."""

    samples: Samples[UpdateSamplesBaseRequest]


class CreateSamplesBaseRequest(BaseRequest):
    """A new sample."""

    private: bool
    private_identifier: str
    collection_date: Date
    location_id: RowId
    organism: str = "Severe acute respiratory syndrome coronavirus 2"
    public_identifier: str | None = None
    """Generated if omitted or empty."""
    sample_collected_by: str | None = None
    sample_collector_contact_email: str | None = None
    sample_collector_contact_address: str | None = None
    authors: str | None = None
    host: str | None = None
    purpose_of_sampling: str | None = None
    specimen_processing: str | None = None


class SiteCounts(NamedTuple):
    """The number of sites of each kind in a sequence, not counting gaps."""

    unambiguous: int
    missing: int
    mixed: int


class CreateSamplePathogenGenomeRequest(BaseRequest):
    """The sequence of a new sample: IUPAC letters and gaps, without a header."""

    sequencing_date: Date | None = None
    sequencing_depth: float | None = None
    sequence: str = Field(
        min_length=_SHORTEST_SEQUENCE, pattern="^[WSKMYRVHDBNZNATCGUwskmyrvhdbnznatcgu-]+$"
    )

    def counts(self) -> SiteCounts:
        """Return the number of sites of each kind."""
        sites = self.sequence.upper()
        # Counted by letter: a Counter takes ten times as long, which blocks the event loop.
        certain, missing = sum(map(sites.count, "ACGTU")), sites.count("N")
        return SiteCounts(certain, missing, len(sites) - certain - missing - sites.count("-"))


class CreateSampleRequest(BaseRequest):
    """A new sample with its sequence."""

    sample: CreateSamplesBaseRequest
    pathogen_genome: CreateSamplePathogenGenomeRequest


class SampleDeleteResponse(BaseResponse):
    """The sample that was deleted."""

    id: int


class SampleBulkDeleteRequest(BaseRequest):
    """The samples to delete."""

    ids: Names[RowId]


class SampleBulkDeleteResponse(BaseResponse):
    """The samples that were deleted."""

    ids: list[int]


class ValidateIDsRequest(BaseRequest):
    """Names of samples, of any kind."""

    sample_ids: Names[str]


class ValidateIDsResponse(BaseResponse):
    """The names that match nothing."""

    missing_sample_ids: list[str]


class SubmissionTemplateRequest(BaseRequest):
    """The samples and the public repository of a form."""

    sample_ids: Names[str]
    public_repository_name: str


class SequenceRequest(BaseRequest):
    """Samples, by identifiers of either kind."""

    sample_ids: Names[str]
    public_repository_name: str | None = None
    """If set, sequences are named by public identifier with this repository's prefix."""


class FastaURLRequest(BaseRequest):
    """Samples, by identifiers of either kind."""

    samples: Names[str]
    downstream_consumer: str | None = None
    """The program that reads the sequences, such as ``USHER``."""


class FastaURLResponse(BaseResponse):
    """A link from which anyone can download the sequences for an hour."""

    url: str


class QcMutationsRequest(BaseRequest):
    """Samples, by identifiers of either kind."""

    sample_ids: Names[str]
