"""Sequences of samples, and what was found in them."""

from __future__ import annotations

from api.schemas.base import BaseRequest, BaseResponse, Names


class SequenceRequest(BaseRequest):
    """Samples, by identifiers of either kind."""

    sample_ids: Names[str]
    public_repository_name: str | None = None
    """Sequences are called by public identifiers, as this repository writes them."""


class FastaURLRequest(BaseRequest):
    """Samples, by identifiers of either kind."""

    samples: Names[str]
    downstream_consumer: str | None = None
    """Who reads the sequences, such as ``USHER``."""


class FastaURLResponse(BaseResponse):
    """A link that anybody can fetch the sequences from, for an hour."""

    url: str


class QcMutationsRequest(BaseRequest):
    """Samples, by identifiers of either kind."""

    sample_ids: Names[str]
