"""The fields that identify a sample; options need them before anything else of samples."""

from __future__ import annotations

from enum import StrEnum

IDENTIFIERS = ("private_identifier", "public_identifier")
"""Columns that identify a sample; the private identifier, unique in its group, comes first."""


class SampleKey(StrEnum):
    """A field that identifies a sample."""

    ID = "id"
    PRIVATE_IDENTIFIER = "private_identifier"
    PUBLIC_IDENTIFIER = "public_identifier"
