"""Samples."""

from __future__ import annotations

from datetime import date
from typing import NamedTuple

from pydantic import Field

from api.schemas.base import (
    BaseRequest,
    BaseResponse,
    Date,
    Names,
    RowId,
    Samples,
    StrictText,
    UtcTime,
)
from api.schemas.locations import LocationResponse
from api.schemas.pathogens import PathogenResponse
from db.models import LineageType, QCMetricCaller

_LONGEST = 128
_SHORTEST_SEQUENCE = 1000


class SampleGisaidResponse(BaseResponse):
    """Whether GISAID lists the sample."""

    gisaid_id: str | None = None
    status: str


class SampleGroupResponse(BaseResponse):
    """The group that submitted the sample."""

    id: int
    name: str


class SampleUserResponse(BaseResponse):
    """Who uploaded the sample."""

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
    """How good the sample's sequence is."""

    qc_score: str | None = None
    qc_software_version: str
    qc_status: str
    qc_caller: QCMetricCaller
    reference_dataset_name: str | None = None
    reference_sequence_accession: str | None = None
    reference_dataset_tag: str | None = None


class SampleResponse(BaseResponse):
    """A sample. PostgreSQL makes the JSON (`api.samples.listing`); this documents it."""

    id: int
    collection_date: date
    collection_location: LocationResponse | None
    gisaid: SampleGisaidResponse | None = None
    pathogen: PathogenResponse | None = None
    private: bool
    private_identifier: str | None = None
    """Null unless the sample is of the group whose path is used."""
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
    """All that can be changed of a sample: what is left out is not kept, but made anew or wiped."""

    id: RowId
    collection_date: Date | None = None
    """Needed, though the schema of the live service has never said so."""
    collection_location: RowId
    """The id of a location; 0 leaves the sample where it is."""
    private: bool
    private_identifier: StrictText = Field(min_length=1, max_length=_LONGEST)
    public_identifier: StrictText | None = Field(None, min_length=1, max_length=_LONGEST)
    """One is made up where it is left out."""
    sequencing_date: Date | None = None
    """Wiped where it is left out."""


class UpdateSamplesRequest(BaseRequest):
    """Samples, whole ones; of several with the same id the last counts."""

    samples: Samples[UpdateSamplesBaseRequest]


class CreateSamplesBaseRequest(BaseRequest):
    """A new sample."""

    private: bool
    private_identifier: str
    collection_date: Date
    location_id: RowId
    organism: str = "Severe acute respiratory syndrome coronavirus 2"
    public_identifier: str | None = None
    """One is made up where it is left out, or empty."""
    sample_collected_by: str | None = None
    sample_collector_contact_email: str | None = None
    sample_collector_contact_address: str | None = None
    authors: str | None = None
    host: str | None = None
    purpose_of_sampling: str | None = None
    specimen_processing: str | None = None


class SiteCounts(NamedTuple):
    """How many sites of a sequence are of each kind; gaps are of none."""

    unambiguous: int
    missing: int
    mixed: int


class CreateSamplePathogenGenomeRequest(BaseRequest):
    """The sequence of a new sample: letters of IUPAC and gaps, without a header."""

    sequencing_date: Date | None = None
    sequencing_depth: float | None = None
    sequence: str = Field(
        min_length=_SHORTEST_SEQUENCE, pattern="^[WSKMYRVHDBNZNATCGUwskmyrvhdbnznatcgu-]+$"
    )

    def counts(self) -> SiteCounts:
        """Count its sites."""
        sites = self.sequence.upper()
        # By letter: a Counter takes ten times as long, in which the service answers nobody.
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
    """Those that name no sample."""

    missing_sample_ids: list[str]


class SubmissionTemplateRequest(BaseRequest):
    """The samples of a form, and for which repository it is."""

    sample_ids: Names[str]
    public_repository_name: str
