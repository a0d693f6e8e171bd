"""Settings for comparing models and database, the same for `check` and for new revisions."""

from __future__ import annotations

from typing import Any, Literal

from alembic.autogenerate.api import AutogenContext

from db.models import SCHEMA, Base, LookupValue

VERSION_TABLE_SCHEMA = "public"


def include_name(name: str | None, kind: str, parents: object) -> bool:
    """Return True if Alembic should look at it: schema ``aspen`` only, with all its contents."""
    del parents
    return kind != "schema" or name == SCHEMA


def render_item(kind: str, item: object, context: AutogenContext) -> str | Literal[False]:
    """Return the text of a type for a revision, which must not depend on the current models."""
    del context
    return "sa.String()" if kind == "type" and isinstance(item, LookupValue) else False


def options() -> dict[str, Any]:
    """Return the options for Alembic's migration context, besides its connection."""
    return {
        "target_metadata": Base.metadata,
        "include_schemas": True,
        "include_name": include_name,
        "render_item": render_item,
        "version_table_schema": VERSION_TABLE_SCHEMA,
        "compare_type": True,
        "compare_server_default": True,
        # The live schema has no comments; comments added by hand are ignored.
        "autogenerate_plugins": ["alembic.autogenerate.*", "~alembic.autogenerate.comments"],
        "transaction_per_migration": True,
    }
