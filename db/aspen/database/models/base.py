"""The base class of the models: schema, constraint names, column types, and ``repr``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from enum import StrEnum
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase

from aspen.database.settings import SCHEMA

NAMING_CONVENTION = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(column_0_label)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}
"""The naming scheme for constraints in the live schema; the models state any exceptions."""


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
