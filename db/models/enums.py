"""The values of the look-up tables, as Python knows them."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect


class AccessionType(StrEnum):
    """Who gave a sample its accession number."""

    GENBANK = "GENBANK"
    GISAID_ISL = "GISAID_ISL"


class EntityType(StrEnum):
    """What an entity is; decides the class that it is loaded as."""

    ALIGNED_GISAID_DUMP = "ALIGNED_GISAID_DUMP"
    ALIGNED_PATHOGEN_GENOME = "ALIGNED_PATHOGEN_GENOME"
    ALIGNED_PUBLIC_REPOSITORY_DATA = "ALIGNED_PUBLIC_REPOSITORY_DATA"
    PHYLO_TREE = "PHYLO_TREE"
    PROCESSED_GISAID_DUMP = "PROCESSED_GISAID_DUMP"
    PROCESSED_PUBLIC_REPOSITORY_DATA = "PROCESSED_PUBLIC_REPOSITORY_DATA"
    RAW_GISAID_DUMP = "RAW_GISAID_DUMP"
    RAW_PUBLIC_REPOSITORY_DATA = "RAW_PUBLIC_REPOSITORY_DATA"
    UPLOADED_PATHOGEN_GENOME = "UPLOADED_PATHOGEN_GENOME"


class LineageType(StrEnum):
    """The tool that called a lineage."""

    NEXTCLADE = "NEXTCLADE"
    PANGOLIN = "PANGOLIN"


class MutationsCaller(StrEnum):
    """The tool that called mutations."""

    NEXTCLADE = "NEXTCLADE"


class QCMetricCaller(StrEnum):
    """The tool that judged a sequence's quality."""

    NEXTCLADE = "NEXTCLADE"


class TreeType(StrEnum):
    """How the samples of a phylogenetic tree were chosen."""

    NON_CONTEXTUALIZED = "NON_CONTEXTUALIZED"
    OVERVIEW = "OVERVIEW"
    TARGETED = "TARGETED"
    UNKNOWN = "UNKNOWN"


class WorkflowStatus(StrEnum):
    """How far a workflow has come."""

    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    STARTED = "STARTED"


class WorkflowType(StrEnum):
    """What a workflow does; decides the class that it is loaded as."""

    ALIGN_GISAID_DUMP = "ALIGN_GISAID_DUMP"
    ALIGN_PUBLIC_REPOSITORY_DATA = "ALIGN_PUBLIC_REPOSITORY_DATA"
    DOWNLOAD_PUBLIC_REPOSITORY_DATA = "DOWNLOAD_PUBLIC_REPOSITORY_DATA"
    PHYLO_RUN = "PHYLO_RUN"
    PROCESS_GISAID_DUMP = "PROCESS_GISAID_DUMP"


class LookupValue(sa.types.TypeDecorator[StrEnum]):
    """A VARCHAR that refers to a look-up table, read and written as a member of an enum.

    Writing (and comparing with) a value outside the enum is a `ValueError`, which SQLAlchemy
    wraps in a `StatementError`. Reading one is not: a newer release of the service may have
    added rows to the look-up table, and one such row must not make a whole query unreadable.
    It then comes as the plain string.
    """

    impl = sa.String
    cache_ok = True

    def __init__(self, kind: type[StrEnum]):
        super().__init__()
        self.kind = kind

    def __repr__(self) -> str:
        return f"LookupValue({self.kind.__name__})"

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """The string that the database keeps."""
        del dialect
        return None if value is None else self.kind(value).value

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """The member of the enum, or the string when there is none."""
        del dialect
        try:
            return None if value is None else self.kind(value)
        except ValueError:
            return value
