"""The database on the local server: its roles, schema, and privileges."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class
from psycopg2.extensions import encrypt_password
from sqlalchemy.pool import NullPool

from aspen.local.postgres.server import DATABASE, READER, SUPERUSER, WRITER, Cluster
from aspen.local.services import Steps

# The writer owns the schema and may create trusted extensions, so that it can migrate without being
# a superuser; the secret in Secrets Manager names it as the administrator. Default privileges cover
# what the writer or the superuser creates later.
_RIGHTS = """
GRANT CONNECT, TEMPORARY ON DATABASE {database} TO user_rw, user_ro;
GRANT CREATE ON DATABASE {database} TO user_rw;
GRANT USAGE, CREATE ON SCHEMA public TO user_rw;
GRANT USAGE ON SCHEMA aspen, public TO user_ro;
ALTER SCHEMA aspen OWNER TO user_rw;
DO $$
DECLARE found record;
BEGIN
    FOR found IN
        SELECT format('ALTER TABLE %s OWNER TO user_rw', c.oid::regclass) AS command
        FROM pg_class AS c
        WHERE c.relkind IN ('r', 'p', 'v', 'm') AND c.relowner <> 'user_rw'::regrole
            AND (c.relnamespace = 'aspen'::regnamespace
                 OR c.oid = to_regclass('public.alembic_version'))
    LOOP
        EXECUTE found.command;
    END LOOP;
END $$;
GRANT SELECT ON ALL TABLES IN SCHEMA aspen, public TO user_ro;
GRANT SELECT ON ALL SEQUENCES IN SCHEMA aspen TO user_ro;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA aspen
    GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES ON TABLES TO user_rw;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA aspen
    GRANT ALL ON SEQUENCES TO user_rw;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres, user_rw IN SCHEMA aspen
    GRANT SELECT ON TABLES TO user_ro;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres, user_rw IN SCHEMA aspen
    GRANT SELECT ON SEQUENCES TO user_ro;
"""


@dataclass(frozen=True)
class Prepared:
    """The result of preparing the database: if it is new, and its schema's revision."""

    created: bool
    revision: str


def prepare(
    cluster: Cluster, *, database: str = DATABASE, progress: Steps | None = None
) -> Prepared:
    """Create the roles and the database, migrate it to the latest schema, and grant privileges.

    This can be repeated at any time. The server must be running.
    """
    tell = progress or (lambda _step: None)
    with cluster.lock():
        created = _make_database(cluster, database)
        tell("migrating")
        revision = _migrate(cluster.url(database, SUPERUSER))
        _give_rights(cluster, database)
    return Prepared(created, revision)


def _make_database(cluster: Cluster, database: str) -> bool:
    passwords = cluster.passwords()
    with _superuser(cluster, "postgres") as cursor:
        for role in (WRITER, READER):
            _make_role(cursor, role, passwords[role])
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,))
        if cursor.fetchone():
            return False
        cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
        return True


def _make_role(cursor: Cursor, role: str, password: str) -> None:
    cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,))
    verb = "ALTER" if cursor.fetchone() else "CREATE"
    # Send only the verifier to the server, as statements end up in logs and pg_stat_statements.
    verifier = encrypt_password(password, role, scope=cursor.connection, algorithm="scram-sha-256")
    statement = sql.SQL(verb + " ROLE {} LOGIN PASSWORD {}")
    cursor.execute(statement.format(sql.Identifier(role), sql.Literal(verifier)))


def _migrate(address: str) -> str:
    # These load Alembic, which starting a server does not need.
    from aspen.database.errors import UnknownRevisionError
    from aspen.database.migrate import upgrade

    engine = sa.create_engine(address, poolclass=NullPool)  # it keeps no connections
    # Leave a database alone that is past the program's revisions (`db upgrade --directory`).
    with contextlib.suppress(UnknownRevisionError):
        upgrade(engine)
    with engine.connect() as session:
        return str(session.scalar(sa.text("SELECT version_num FROM public.alembic_version")))


def _give_rights(cluster: Cluster, database: str) -> None:
    with _superuser(cluster, database) as cursor:
        cursor.execute(sql.SQL(_RIGHTS).format(database=sql.Identifier(database)))
        cursor.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'pg_stat_statements'")
        if cursor.fetchone():
            cursor.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements SCHEMA public")
            cursor.execute(sql.SQL("GRANT pg_read_all_stats TO {}").format(sql.Identifier(WRITER)))


@contextmanager
def _superuser(cluster: Cluster, database: str) -> Iterator[Cursor]:
    driver = cluster.connect(database, application_name="aspencli local")
    with contextlib.closing(driver):
        driver.autocommit = True  # CREATE DATABASE requires it
        with driver.cursor() as cursor:
            yield cursor
