"""The lookup tables, with one row for each value that a column elsewhere may hold.

Columns that refer to them are loaded as the enums of `aspen.database.models.lookups`.

The values of the lookup tables, as enums.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Mapped, mapped_column

from aspen.database.models.base import Base


class AccessionType(StrEnum):
    """The repository and kind of an accession number."""

    GENBANK = "GENBANK"
    GISAID_ISL = "GISAID_ISL"


class EntityType(StrEnum):
    """The type of an entity, which determines the class it is loaded as."""

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
    """The tool that assessed a sequence's quality."""

    NEXTCLADE = "NEXTCLADE"


class TreeType(StrEnum):
    """The method by which the samples of a phylogenetic tree were chosen."""

    NON_CONTEXTUALIZED = "NON_CONTEXTUALIZED"
    OVERVIEW = "OVERVIEW"
    TARGETED = "TARGETED"
    UNKNOWN = "UNKNOWN"


class WorkflowStatus(StrEnum):
    """The status of a workflow."""

    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    STARTED = "STARTED"


class WorkflowType(StrEnum):
    """The type of a workflow, which determines the class it is loaded as."""

    ALIGN_GISAID_DUMP = "ALIGN_GISAID_DUMP"
    ALIGN_PUBLIC_REPOSITORY_DATA = "ALIGN_PUBLIC_REPOSITORY_DATA"
    DOWNLOAD_PUBLIC_REPOSITORY_DATA = "DOWNLOAD_PUBLIC_REPOSITORY_DATA"
    PHYLO_RUN = "PHYLO_RUN"
    PROCESS_GISAID_DUMP = "PROCESS_GISAID_DUMP"


class LookupValue(sa.types.TypeDecorator[StrEnum]):
    """A VARCHAR that refers to a lookup table, read and written as an enum member.

    Writing or comparing with a value outside the enum raises a `ValueError`, which SQLAlchemy
    wraps in a `StatementError`. Reading one returns the plain string instead: a newer release
    of the service may have added rows to the lookup table, and one such row must not make a
    whole query unreadable.
    """

    impl = sa.String
    cache_ok = True

    def __init__(self, kind: type[StrEnum]):
        super().__init__()
        self.kind = kind

    def __repr__(self) -> str:
        return f"LookupValue({self.kind.__name__})"

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Return the string that the database stores."""
        del dialect
        return None if value is None else self.kind(value).value

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Return the enum member, or the string if there is none."""
        del dialect
        try:
            return None if value is None else self.kind(value)
        except ValueError:
            return value


class LookupMixin:
    """A mixin with the only column of a lookup table."""

    item_id: Mapped[str] = mapped_column(primary_key=True)


class AccessionTypeLookup(LookupMixin, Base):
    """The rows behind `AccessionType`."""

    __tablename__ = "accession_types"


class EntityTypeLookup(LookupMixin, Base):
    """The rows behind `EntityType`."""

    __tablename__ = "entity_types"


class LineageTypeLookup(LookupMixin, Base):
    """The rows behind `LineageType`."""

    __tablename__ = "lineage_types"


class MutationsCallerLookup(LookupMixin, Base):
    """The rows behind `MutationsCaller`."""

    __tablename__ = "mutations_callers"


class QCMetricCallerLookup(LookupMixin, Base):
    """The rows behind `QCMetricCaller`."""

    __tablename__ = "qc_metric_callers"


class TreeTypeLookup(LookupMixin, Base):
    """The rows behind `TreeType`."""

    __tablename__ = "tree_types"


class WorkflowStatusLookup(LookupMixin, Base):
    """The rows behind `WorkflowStatus`."""

    __tablename__ = "workflow_status_types"


class WorkflowTypeLookup(LookupMixin, Base):
    """The rows behind `WorkflowType`."""

    __tablename__ = "workflow_types"
