"""The schema that the migrations build is the live service's, down to the last name.

The live schema is recorded in ``tests/database/schema.json``; the migrated one is read from
PostgreSQL's own catalog.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.pool import NullPool

from aspen.database import migrate
from aspen.database.models import Base, LookupValue
from aspen.database.tables import ALL

CONTRACT: dict[str, Any] = json.loads(Path(__file__).with_name("schema.json").read_text())

COLUMNS = """
    SELECT c.relname, a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type,
           NOT a.attnotnull AS nullable, pg_get_expr(d.adbin, d.adrelid) AS default
    FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'aspen'::regnamespace AND c.relkind IN ('r', 'p', 'f')
    ORDER BY c.relname, a.attnum
"""

# PostgreSQL 18 lists NOT NULL here, too (contype n); the columns already say that.
CONSTRAINTS = """
    SELECT c.relname, k.contype, k.conname AS name, k.confupdtype AS on_update,
           k.confdeltype AS on_delete, k.condeferrable AS deferrable, k.convalidated AS validated,
           pg_get_constraintdef(k.oid) AS definition,
           fn.nspname || '.' || f.relname AS ref_table,
           ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS u (num, pos)
                 JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num
                 ORDER BY u.pos) AS columns,
           ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS u (num, pos)
                 JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num
                 ORDER BY u.pos) AS ref_columns
    FROM pg_constraint k
    JOIN pg_class c ON c.oid = k.conrelid
    LEFT JOIN pg_class f ON f.oid = k.confrelid
    LEFT JOIN pg_namespace fn ON fn.oid = f.relnamespace
    WHERE c.relnamespace = 'aspen'::regnamespace AND k.contype <> 'n'
    ORDER BY c.relname, k.conname
"""

INDEXES = """
    SELECT c.relname, i.relname AS name, x.indisunique AS unique, x.indisprimary AS primary,
           pg_get_indexdef(i.oid) AS definition
    FROM pg_index x
    JOIN pg_class i ON i.oid = x.indexrelid
    JOIN pg_class c ON c.oid = x.indrelid
    WHERE c.relnamespace = 'aspen'::regnamespace
    ORDER BY c.relname, i.relname
"""

SEQUENCES = """
    SELECT s.relname AS name, format_type(q.seqtypid, NULL) AS type,
           n.nspname || '.' || t.relname || '.' || a.attname AS owned_by
    FROM pg_class s
    JOIN pg_sequence q ON q.seqrelid = s.oid
    LEFT JOIN pg_depend d ON d.objid = s.oid AND d.classid = 'pg_class'::regclass
                         AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'a'
    LEFT JOIN pg_class t ON t.oid = d.refobjid
    LEFT JOIN pg_namespace n ON n.oid = t.relnamespace
    LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
    WHERE s.relnamespace = 'aspen'::regnamespace AND s.relkind = 'S'
    ORDER BY s.relname
"""

EXTENSIONS = """
    SELECT e.extname AS name, n.nspname AS schema
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace ORDER BY e.extname
"""


def rows(connection: Connection, query: str) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.exec_driver_sql(query).mappings()]


def without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


def tables(connection: Connection) -> dict[str, dict[str, Any]]:
    """Return the tables in the contract's format."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows(connection, COLUMNS):
        table = found.setdefault(
            row.pop("relname"),
            {
                "columns": [],
                "primary_key": None,
                "unique": [],
                "foreign_keys": [],
                "check": [],
                "indexes": [],
            },
        )
        table["columns"].append(row)
    for row in rows(connection, CONSTRAINTS):
        assert row["validated"]
        assert not row["deferrable"]
        table = found[row["relname"]]
        named = {"name": row["name"], "columns": row["columns"]}
        match row["contype"]:
            case "p":
                table["primary_key"] = named
            case "u":
                table["unique"].append(named)
            case "f":
                reference = ("ref_table", "ref_columns", "on_update", "on_delete")
                table["foreign_keys"].append(named | {name: row[name] for name in reference})
            case _:
                table["check"].append({"name": row["name"], "definition": row["definition"]})
    for row in rows(connection, INDEXES):
        found[row.pop("relname")]["indexes"].append(row)
    return found


@pytest.fixture
def migrated(migrated_db: str) -> Iterator[Connection]:
    engine = sa.create_engine(migrated_db, poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


@pytest.mark.parametrize(
    "part", ["columns", "primary_key", "unique", "foreign_keys", "check", "indexes"]
)
def test_table_parts_match_live_schema(migrated: Connection, part: str) -> None:
    found = tables(migrated)

    assert {name: table[part] for name, table in found.items()} == {
        name: table[part] for name, table in CONTRACT["tables"].items()
    }


def test_tables_match_live_schema(migrated: Connection) -> None:
    assert len(CONTRACT["tables"]) == 47
    assert sorted(tables(migrated)) == sorted(CONTRACT["tables"])


def test_sequences_match_live_schema(migrated: Connection) -> None:
    assert rows(migrated, SEQUENCES) == CONTRACT["sequences"]


def test_extensions_are_installed_in_public(migrated: Connection) -> None:
    expected = [without(extension, "version") for extension in CONTRACT["extensions"]]

    assert rows(migrated, EXTENSIONS) == expected


def test_schema_holds_no_views_functions_types_or_triggers(migrated: Connection) -> None:
    others = """
        SELECT relname FROM pg_class
        WHERE relnamespace = 'aspen'::regnamespace AND relkind NOT IN ('r', 'i', 'S')
        UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'aspen'::regnamespace
        UNION ALL SELECT typname FROM pg_type
        WHERE typnamespace = 'aspen'::regnamespace AND typtype NOT IN ('c', 'b')
        UNION ALL SELECT tgname FROM pg_trigger WHERE NOT tgisinternal
    """

    assert CONTRACT["views"] == CONTRACT["pg_enum_types"] == []
    assert rows(migrated, others) == []


def test_lookup_tables_have_live_values(migrated: Connection) -> None:
    found = {
        name: sorted(row["item_id"] for row in rows(migrated, f"SELECT item_id FROM aspen.{name}"))
        for name in CONTRACT["enum_tables"]
    }

    assert found == CONTRACT["enum_tables"]


def test_seed_rows_of_migrations_match_live_rows(migrated: Connection) -> None:
    found = {
        name: rows(migrated, f"SELECT * FROM aspen.{name} ORDER BY id")
        for name in CONTRACT["seed_rows_from_migrations"]
    }

    assert found == CONTRACT["seed_rows_from_migrations"]


def test_tables_without_seed_rows_are_empty(migrated: Connection) -> None:
    filled = {*CONTRACT["enum_tables"], *CONTRACT["seed_rows_from_migrations"]}

    for name in set(CONTRACT["tables"]) - filled:
        assert rows(migrated, f"SELECT * FROM aspen.{name} LIMIT 1") == []


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("roles", 4),
        ("pathogens", 4),
        ("public_repositories", 3),
        ("pathogen_repo_configs", 6),
        ("samples", 1),
    ],
)
def test_next_id_follows_seed_rows(migrated: Connection, table: str, expected: int) -> None:
    assert migrated.scalar(sa.text(f"SELECT nextval('aspen.{table}_id_seq')")) == expected


def test_migrated_revision_is_recorded_in_public_schema(migrated: Connection) -> None:
    found = migrated.scalars(sa.text("SELECT version_num FROM public.alembic_version")).all()

    assert found == CONTRACT["alembic_version"]


def test_public_schema_has_only_version_table(migrated: Connection) -> None:
    assert sa.inspect(migrated).get_table_names(schema="public") == ["alembic_version"]


def test_schema_is_same_after_downgrade_and_upgrade(migrated_db: str) -> None:
    engine = sa.create_engine(migrated_db, poolclass=NullPool)

    migrate.downgrade(engine, "base")
    with engine.connect() as connection:
        assert tables(connection) == {}
        assert rows(connection, SEQUENCES) == []
    migrate.upgrade(engine)

    with engine.connect() as connection:
        assert tables(connection) == CONTRACT["tables"]
        assert rows(connection, SEQUENCES) == CONTRACT["sequences"]


def test_create_all_from_models_matches_live_schema(empty_db: str) -> None:
    """The models are also exact where `check` compares only a part: names, order, sequences."""
    engine = sa.create_engine(empty_db, poolclass=NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA aspen")
        Base.metadata.create_all(connection)

    with engine.connect() as connection:
        assert tables(connection) == CONTRACT["tables"]
        assert rows(connection, SEQUENCES) == CONTRACT["sequences"]


def test_enums_match_values_of_their_lookup_tables() -> None:
    seen = set()
    for table in Base.metadata.tables.values():
        for column in table.columns:
            if isinstance(column.type, LookupValue):
                (key,) = column.foreign_keys
                seen.add(key.column.table.name)
                assert sorted(column.type.kind) == CONTRACT["enum_tables"][key.column.table.name]

    assert seen == set(CONTRACT["enum_tables"])


@pytest.mark.parametrize("table", ALL, ids=lambda table: table.name)
def test_light_table_has_columns_of_model(table: sa.TableClause) -> None:
    model = Base.metadata.tables[f"{table.schema}.{table.name}"]
    assert set(table.c.keys()) <= set(model.c.keys())
