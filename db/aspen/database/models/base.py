"""The base class of the models, and the lookup tables.

A lookup table has one row for each value that columns elsewhere may hold. Such columns are loaded
as enums.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from enum import StrEnum
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedColumn, mapped_column, relationship

from aspen.database.settings import SCHEMA

NAMING_CONVENTION = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(column_0_label)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}
"""The naming scheme for constraints in the live schema; the models state any exceptions."""


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


_LOOKUP_TABLES: Mapping[type[StrEnum], str] = {
    AccessionType: "accession_types",
    EntityType: "entity_types",
    LineageType: "lineage_types",
    MutationsCaller: "mutations_callers",
    QCMetricCaller: "qc_metric_callers",
    TreeType: "tree_types",
    WorkflowStatus: "workflow_status_types",
    WorkflowType: "workflow_types",
}


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


class Base(DeclarativeBase):
    """The base class of every model.

    Deletes never cascade: no relationship deletes rows, and none sets a foreign key to NULL
    (``passive_deletes="all"``), so PostgreSQL refuses to orphan rows.
    """

    metadata = sa.MetaData(schema=SCHEMA, naming_convention=NAMING_CONVENTION)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        float: sa.Double(),
        # None is stored as SQL NULL, never as the JSON value null.
        dict[str, Any]: JSONB(none_as_null=True),
    }
    repr_fields: ClassVar[Mapping[str, str]] = {}
    """The attributes that ``repr`` shows besides the key, by label."""

    def __repr__(self) -> str:
        key = self._key_attributes()
        known = self._known_values()
        parts = [type(self).__name__]
        if not known.keys() & set(key):
            parts.append("new")
        elif len(key) == 1:
            parts.append(_shown(known[key[0]]))
        parts += [
            f"{label}={_shown(known[attribute])}"
            for label, attribute in self.repr_fields.items()
            if attribute in known
        ]
        return f"<{' '.join(parts)}>"

    @classmethod
    def _key_attributes(cls) -> list[str]:
        mapper = sa.inspect(cls)
        return [mapper.get_property_by_column(column).key for column in mapper.primary_key]

    def _known_values(self) -> dict[str, Any]:
        """Return the key and the loaded values; reading others would query, or fail if detached."""
        state = sa.inspect(self)
        identity = zip(self._key_attributes(), state.identity or (), strict=False)
        return {**dict(identity), **state.dict}


def _shown(value: object) -> str:
    """Return the value as text, with control characters escaped."""
    if isinstance(value, date):
        return value.isoformat()
    return repr(value.value if isinstance(value, StrEnum) else value)


def dependents(back_populates: str, **options: Any) -> Any:
    """Return a relationship to the rows that refer to this one, which deleting it never changes."""
    return relationship(back_populates=back_populates, passive_deletes="all", **options)


def lookup_column(kind: type[StrEnum], **options: Any) -> MappedColumn[Any]:
    """Return a column that refers to a lookup table, and is loaded as an enum."""
    table = sa.ForeignKey(f"{_LOOKUP_TABLES[kind]}.item_id")
    return mapped_column(LookupValue(kind), table, **options)


class LookupMixin:
    """A mixin with the only column of a lookup table."""

    item_id: Mapped[str] = mapped_column(primary_key=True)


def _lookup(kind: type[StrEnum]) -> type[LookupMixin]:
    """Return the model of the rows behind an enum."""
    members = {
        "__doc__": f"The rows behind `{kind.__name__}`.",
        "__module__": __name__,
        "__tablename__": _LOOKUP_TABLES[kind],
    }
    return type(f"{kind.__name__}Lookup", (LookupMixin, Base), members)


AccessionTypeLookup = _lookup(AccessionType)
EntityTypeLookup = _lookup(EntityType)
LineageTypeLookup = _lookup(LineageType)
MutationsCallerLookup = _lookup(MutationsCaller)
QCMetricCallerLookup = _lookup(QCMetricCaller)
TreeTypeLookup = _lookup(TreeType)
WorkflowStatusLookup = _lookup(WorkflowStatus)
WorkflowTypeLookup = _lookup(WorkflowType)
