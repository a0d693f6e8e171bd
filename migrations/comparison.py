"""How models and database are compared, the same for `check` and for new revisions."""

from __future__ import annotations

from typing import Any, Literal

from alembic.autogenerate.api import AutogenContext

from db.models import SCHEMA, Base, LookupValue

VERSION_TABLE_SCHEMA = "public"


def include_name(name: str | None, kind: str, parents: object) -> bool:
    """Whether Alembic shall look at it: only schema ``aspen``, and all that is in there."""
    del parents
    return kind != "schema" or name == SCHEMA


def render_item(kind: str, item: object, context: AutogenContext) -> str | Literal[False]:
    """The text of a type in a revision: it must not lean on the models of the day."""
    del context
    return "sa.String()" if kind == "type" and isinstance(item, LookupValue) else False


def options() -> dict[str, Any]:
    """What Alembic's migration context is told, beside its connection."""
    return {
        "target_metadata": Base.metadata,
        "include_schemas": True,
        "include_name": include_name,
        "render_item": render_item,
        "version_table_schema": VERSION_TABLE_SCHEMA,
        "compare_type": True,
        "compare_server_default": True,
        # The live schema carries no comments; those that someone adds by hand are theirs.
        "autogenerate_plugins": ["alembic.autogenerate.*", "~alembic.autogenerate.comments"],
        "transaction_per_migration": True,
    }
