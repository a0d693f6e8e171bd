from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool

from aspen.database import migrate


@pytest.fixture
def migrated(migrated_db: str) -> Engine:
    return sa.create_engine(migrated_db, poolclass=NullPool)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            "ALTER TABLE {}.samples ALTER COLUMN host TYPE varchar(20)",
            [
                (
                    "column aspen.samples.host: type is VARCHAR(20) in the database, "
                    "VARCHAR in the models"
                )
            ],
        ),
        (
            "ALTER TABLE {}.samples ADD CONSTRAINT short CHECK (length(host) < 9)",
            ["check short of aspen.samples exists only in the database: length(host::text) < 9"],
        ),
        (
            (
                "CREATE FUNCTION {0}.drop_it() RETURNS trigger LANGUAGE plpgsql AS "
                "'BEGIN RETURN NULL; END'; CREATE TRIGGER discard BEFORE INSERT ON {0}.samples "
                "FOR EACH ROW EXECUTE FUNCTION {0}.drop_it()"
            ),
            [
                "function aspen.drop_it() exists only in the database",
                "trigger discard of aspen.samples exists only in the database",
            ],
        ),
        (
            "CREATE RULE ignore AS ON INSERT TO {}.samples DO INSTEAD NOTHING",
            ["rule ignore of aspen.samples exists only in the database"],
        ),
        (
            "CREATE VIEW {0}.names AS SELECT id FROM {0}.samples",
            ["view aspen.names exists only in the database"],
        ),
        (
            "CREATE MATERIALIZED VIEW {0}.kept AS SELECT id FROM {0}.samples",
            ["materialized view aspen.kept exists only in the database"],
        ),
        (
            "ALTER TABLE {}.samples ENABLE ROW LEVEL SECURITY",
            ["row level security enabled of aspen.samples exists only in the database"],
        ),
        (
            (
                "ALTER TABLE {0}.samples DROP COLUMN host;"
                " ALTER TABLE {0}.samples ADD COLUMN host varchar"
                " GENERATED ALWAYS AS (organism) STORED"
            ),
            [
                (
                    "column aspen.samples.host: generated as organism in the database, "
                    "not generated in the models"
                )
            ],
        ),
        ("CREATE SEQUENCE {}.spare", ["sequence aspen.spare exists only in the database"]),
        ("CREATE TYPE {}.mood AS ENUM ('ok')", ["enum aspen.mood exists only in the database"]),
        (
            "ALTER TABLE {}.usher_options SET UNLOGGED",
            ["storage unlogged of aspen.usher_options exists only in the database"],
        ),
        ("DROP TABLE {}.usher_options", ["table aspen.usher_options is missing from the database"]),
        ("CREATE TABLE {}.sites (id integer)", ["table aspen.sites exists only in the database"]),
        (
            "ALTER TABLE {}.samples DROP COLUMN host",
            ["column aspen.samples.host is missing from the database"],
        ),
        (
            "ALTER TABLE {}.samples ADD COLUMN site text",
            ["column aspen.samples.site exists only in the database"],
        ),
        (
            "DROP INDEX {}.uq_users_split_id",
            ["index uq_users_split_id on aspen.users is missing from the database"],
        ),
        (
            "ALTER TABLE {}.groups DROP CONSTRAINT uq_groups_prefix",
            ["constraint uq_groups_prefix of aspen.groups is missing from the database"],
        ),
        (
            "ALTER TABLE {}.samples DROP CONSTRAINT fk_samples_locations",
            ["constraint fk_samples_locations of aspen.samples is missing from the database"],
        ),
        (
            "ALTER TABLE {}.samples ALTER COLUMN private TYPE integer USING private::integer",
            [
                (
                    "column aspen.samples.private: type is INTEGER in the database, "
                    "BOOLEAN in the models"
                )
            ],
        ),
        (
            "ALTER TABLE {}.samples ALTER COLUMN host SET NOT NULL",
            ["column aspen.samples.host: nullable is False in the database, True in the models"],
        ),
        (
            "ALTER TABLE {}.samples ALTER COLUMN authors DROP DEFAULT",
            [
                (
                    "column aspen.samples.authors: default is none in the database, "
                    "'[]'::jsonb in the models"
                )
            ],
        ),
        (
            "ALTER TABLE {}.accessions ADD PRIMARY KEY (sample_id)",
            [
                (
                    "primary key of aspen.accessions: accessions_pkey (sample_id) in the database, "
                    "none in the models"
                )
            ],
        ),
        (
            "ALTER TABLE {}.roles RENAME CONSTRAINT roles_pkey TO pk_roles",
            [
                (
                    "primary key of aspen.roles: pk_roles (id) in the database, "
                    "roles_pkey (id) in the models"
                )
            ],
        ),
    ],
)
def test_schema_check_describes_each_difference(
    migrated: Engine, change: str, expected: list[str]
) -> None:
    with migrated.begin() as connection:
        connection.exec_driver_sql(change.format("aspen"))

    assert migrate.check(migrated) == expected


def test_schema_check_ignores_other_schemas_and_comments(
    migrated: Engine,
) -> None:
    with migrated.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE public.notes (id integer)")
        connection.exec_driver_sql("CREATE SCHEMA reports CREATE TABLE weekly (id integer)")
        connection.exec_driver_sql("COMMENT ON TABLE aspen.samples IS 'one a specimen'")
        connection.exec_driver_sql("COMMENT ON COLUMN aspen.samples.host IS 'the species'")

    assert migrate.check(migrated) == []


def test_schema_check_of_empty_database_lists_every_table(empty_db: str) -> None:
    found = migrate.check(sa.create_engine(empty_db, poolclass=NullPool))

    assert len(found) == 47
    assert all(line.endswith("is missing from the database") for line in found)
