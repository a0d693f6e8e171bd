"""The database on the local server: its roles, its schema, and who may do what."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg2
import sqlalchemy as sa
from psycopg2 import sql
from psycopg2.extensions import connection as DriverConnection  # noqa: N812 - a class
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class
from psycopg2.extensions import encrypt_password
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from local.parts import Steps
from local.postgres import DATABASE, READER, SUPERUSER, WRITER, Cluster

# The writer owns the schema and may make trusted extensions, so that it can migrate without being a
# superuser: it is also the administrator whom the secret in Secrets Manager names. What the
# superuser makes later is covered by the default privileges of both.
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
    """What preparing the database did.

    Attributes:
        created: The database was made from nothing.
        revision: The schema's revision now.
        seconds: How long it took.
    """

    created: bool
    revision: str
    seconds: float


def prepare(
    cluster: Cluster, *, database: str = DATABASE, progress: Steps | None = None
) -> Prepared:
    """Make the roles and the database, migrate it to the newest schema, and give the rights.

    It may be run again at any time. The server must be running.
    """
    began = time.monotonic()
    tell = progress or (lambda _step: None)
    with cluster.lock():
        passwords = cluster.passwords()
        created = _make_database(cluster.url("postgres", SUPERUSER), database, passwords)
        tell("migrating")
        revision = _migrate(cluster.url(database, SUPERUSER))
        _give_rights(cluster.url(database, SUPERUSER), database)
    return Prepared(created, revision, time.monotonic() - began)


def _make_database(address: str, database: str, passwords: dict[str, str]) -> bool:
    with _superuser(address) as driver, driver.cursor() as cursor:
        for role in (WRITER, READER):
            _make_role(driver, cursor, role, passwords[role])
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,))
        if cursor.fetchone():
            return False
        cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
        return True


def _make_role(driver: DriverConnection, cursor: Cursor, role: str, password: str) -> None:
    cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,))
    verb = "ALTER" if cursor.fetchone() else "CREATE"
    # Only the verifier goes to the server: statements end up in logs and in pg_stat_statements.
    verifier = encrypt_password(password, role, scope=driver, algorithm="scram-sha-256")
    statement = sql.SQL(verb + " ROLE {} LOGIN PASSWORD {}")
    cursor.execute(statement.format(sql.Identifier(role), sql.Literal(verifier)))


def _migrate(address: str) -> str:
    # They load Alembic, which starting a server does not need.
    from migrations.errors import UnknownRevisionError
    from migrations.runner import upgrade

    engine = sa.create_engine(address, poolclass=NullPool)
    try:
        # A database that went beyond the program's own revisions (`db upgrade --directory`) stays
        # where it is.
        with contextlib.suppress(UnknownRevisionError):
            upgrade(engine)
        with engine.connect() as session:
            revision = session.scalar(sa.text("SELECT version_num FROM public.alembic_version"))
    finally:
        engine.dispose()
    return str(revision)


def _give_rights(address: str, database: str) -> None:
    with _superuser(address) as driver, driver.cursor() as cursor:
        cursor.execute(sql.SQL(_RIGHTS).format(database=sql.Identifier(database)))
        cursor.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'pg_stat_statements'")
        if cursor.fetchone():
            cursor.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements SCHEMA public")
            cursor.execute(sql.SQL("GRANT pg_read_all_stats TO {}").format(sql.Identifier(WRITER)))


@contextmanager
def _superuser(address: str) -> Iterator[DriverConnection]:
    """A connection on which each statement commits by itself, as CREATE DATABASE asks for."""
    url = make_url(address)
    driver = psycopg2.connect(
        host=url.host,
        port=url.port,
        user=url.username,
        password=url.password,
        dbname=url.database,
        application_name="aspencli local",
    )
    try:
        driver.autocommit = True
        yield driver
    finally:
        driver.close()
