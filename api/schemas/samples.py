"""Samples."""

from __future__ import annotations

from datetime import date

from pydantic import Field

from api.schemas.base import BaseRequest, BaseResponse, Date, RowId, StrictText, UtcTime
from api.schemas.locations import LocationResponse
from api.schemas.pathogens import PathogenResponse
from db.models import LineageType, QCMetricCaller

_LONGEST = 128


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

    samples: list[UpdateSamplesBaseRequest]
