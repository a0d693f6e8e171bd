"""Sequences of samples, and the results of their analysis."""

from __future__ import annotations

from aspen.api.schemas.base import BaseRequest, BaseResponse, Names


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
