"""The lookup tables, with one row for each value that a column elsewhere may hold.

Columns that refer to them are loaded as the enums of `db.models.enums`.
"""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base


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
