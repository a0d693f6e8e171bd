"""The sample fields that options refer to; uses only the standard library."""

from __future__ import annotations

from enum import StrEnum


class SampleSort(StrEnum):
    """A field to sort samples by; ties are broken by ascending ID."""

    ID = "id"
    PRIVATE_IDENTIFIER = "private_identifier"
    PUBLIC_IDENTIFIER = "public_identifier"
    COLLECTION_DATE = "collection_date"


class SampleKey(StrEnum):
    """A field that identifies a sample."""

    ID = "id"
    PRIVATE_IDENTIFIER = "private_identifier"
    PUBLIC_IDENTIFIER = "public_identifier"
