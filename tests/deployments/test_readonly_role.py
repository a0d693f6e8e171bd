"""Reading sessions on production: who they sign in as, and that the server refuses every write."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.deployments.rig import PASSWORD, configured

if TYPE_CHECKING:
    from tests.deployments.rig import Deployment

# Each is run as it is in psql: nothing of ours looks at it.
WRITES = (
    "INSERT INTO aspen.pathogens (slug, name) VALUES ('x', 'x')",
    "UPDATE aspen.samples SET private = true",
    "DELETE FROM aspen.samples",
    "TRUNCATE aspen.samples CASCADE",
    "CREATE TABLE aspen.t (i int)",
    "CREATE TABLE public.t (i int)",
    "CREATE SCHEMA s",
    "CREATE ROLE r",
    "CREATE DATABASE d",
    "CREATE EXTENSION hstore",
    "CREATE VIEW aspen.v AS SELECT 1",
    "CREATE INDEX ON aspen.samples (private)",
    "CREATE FUNCTION aspen.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "DROP TABLE aspen.samples CASCADE",
    "DROP SCHEMA aspen CASCADE",
    "DROP DATABASE postgres",
    "ALTER TABLE aspen.samples ADD COLUMN c int",
    "ALTER ROLE reader SUPERUSER",
    "ALTER DATABASE aspen_db SET work_mem = '1MB'",
    "ALTER SYSTEM SET work_mem = '1MB'",
    "ALTER TABLE aspen.samples OWNER TO reader",
    "COPY aspen.pathogens FROM PROGRAM 'echo 1'",
    "COPY aspen.pathogens TO '/tmp/x'",
    "SELECT setval('aspen.samples_id_seq', 1)",
    "SELECT * FROM aspen.samples FOR UPDATE",
    "LOCK TABLE aspen.samples",
    "COMMENT ON TABLE aspen.samples IS 'x'",
)
# Ways out of a read-only mode, which a role that cannot write makes pointless.
_WAYS_OUT = "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE"
_OUT = (_WAYS_OUT, "BEGIN READ WRITE", "SET default_transaction_read_only = off")


@pytest.fixture
def prod(deployment: Deployment) -> Deployment:
    return deployment


def _state(deployment: Deployment) -> list[tuple[object, ...]]:
    return deployment.sql(
        "SELECT (SELECT count(*) FROM aspen.samples), (SELECT count(*) FROM aspen.pathogens),"
        " (SELECT count(*) FROM pg_class), (SELECT count(*) FROM pg_roles),"
        " (SELECT bool_or(private) FROM aspen.samples)"
    )


def test_server_refuses_every_write_of_read_only_user_on_production(prod: Deployment) -> None:
    before = _state(prod)
    # One psql for all: every statement goes on after the error of the one before.
    script = "\n".join(f"{out};\n{write};\nROLLBACK;" for write in WRITES for out in _OUT)
    done = prod.run("--env", "prod", "db", "psql", "--", "-v", "ON_ERROR_STOP=0", input=script)
    refused = [line for line in done.err.splitlines() if "ERROR" in line]
    assert len(refused) == len(WRITES) * len(_OUT), done.err
    assert all(
        any(word in line for word in ("denied", "must be", "transaction block")) for line in refused
    ), refused
    assert _state(prod) == before


def test_without_read_only_user_only_the_name_opens_psql_on_production(prod: Deployment) -> None:
    prod.put_secret("geprod", DB_ro_username=None)
    prod.sql("REVOKE pg_read_all_data FROM writer")  # so that there is no role to switch to
    prod.sql("GRANT USAGE ON SCHEMA aspen TO writer")
    prod.sql("GRANT ALL ON ALL TABLES IN SCHEMA aspen TO writer")
    try:
        words = ("--env", "prod", "db", "psql", "-c", "SELECT 1", "--", "-At")
        for more in ((), ("--yes",), ("--confirm", "staging")):
            done = prod.run(*more, *words)
            assert (done.code, done.out) == (3, ""), done.err
        assert "read-only by convention only" in prod.run(*words).err
        done = prod.run("--confirm", "prod", *words)
        assert (done.code, done.out) == (0, "1\n"), done.err
        checked = prod.run("--env", "prod", "target", "check", "-o", "tsv")
        assert "there is no role that can only read" in checked.out
    finally:
        prod.sql("GRANT pg_read_all_data TO writer")
        prod.sql("REVOKE ALL ON ALL TABLES IN SCHEMA aspen FROM writer")


def test_ensure_readonly_creates_role_that_reading_sessions_then_use(prod: Deployment) -> None:
    for stage in ("geprod", "gestaging"):
        prod.put_secret(stage, DB_ro_username=None)
    prod.sql("GRANT pg_read_all_data TO boss WITH ADMIN OPTION")
    words = ("--env", "staging", "db", "access", "ensure-readonly")
    try:
        planned = prod.run(*words, "--dry-run", "-o", "json")
        assert planned.code == 0, planned.err
        assert "CREATE ROLE aspen_readonly NOLOGIN" in planned.out
        assert prod.sql("SELECT 1 FROM pg_roles WHERE rolname = 'aspen_readonly'") == []
        assert prod.run(*words).code == 3
        made = prod.run(*words, "--yes")
        assert made.code == 0, made.err
        assert 'set read_only_role = "aspen_readonly"' in made.err
        again = prod.run(*words, "--yes")
        assert "Nothing to change" in again.err, again.err

        text = configured(prod.aws, prod.ca).replace(
            "[targets.prod]", '[targets.prod]\nread_only_role = "aspen_readonly"'
        )
        using = prod.with_config(text)
        done = using.run("--env", "prod", "db", "psql", "-c", "SELECT current_user", "--", "-At")
        assert (done.code, done.out) == (0, "aspen_readonly\n"), done.err
        code = "print(session.scalar(sa.text('SELECT current_user')))"
        done = using.run("--env", "prod", "db", "interact", "-c", code)
        assert (done.code, done.out) == (0, "aspen_readonly\n"), done.err
        done = using.run("--env", "prod", "target", "check", "-o", "tsv")
        assert "writer switches to aspen_readonly" in done.out, done.out
    finally:
        prod.sql("DROP OWNED BY aspen_readonly; DROP ROLE IF EXISTS aspen_readonly")


@pytest.mark.parametrize("key", ["DB_ro_password", "DB_rw_password"])
def test_password_appears_nowhere(deployment: Deployment, key: str) -> None:
    deployment.put_secret("gestaging", **{key: "wrong-" + PASSWORD})
    way = (
        ("db", "status")
        if key.startswith("DB_ro")
        else ("db", "psql", "--write", "--yes", "--reason", "x")
    )
    done = deployment.run("--env", "staging", "--debug", *way)
    assert done.code == 4, done.err
    assert PASSWORD not in done.out + done.err
    assert "wrong-" not in done.out + done.err
