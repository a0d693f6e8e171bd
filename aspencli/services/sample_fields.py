"""The fields of a sample that options name; the standard library only."""

from __future__ import annotations

from enum import StrEnum


class SampleSort(StrEnum):
    """What a list of samples can be sorted by; ties are in ascending id."""

    ID = "id"
    PRIVATE_IDENTIFIER = "private_identifier"
    PUBLIC_IDENTIFIER = "public_identifier"
    COLLECTION_DATE = "collection_date"


class SampleKey(StrEnum):
    """What a sample can be named by."""

    ID = "id"
    PRIVATE_IDENTIFIER = "private_identifier"
    PUBLIC_IDENTIFIER = "public_identifier"
