"""Connections refused by a server, told apart in any language that it speaks."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from aspen.database.engine import Database, refusal_state
from aspen.local.postgres.server import SUPERUSER, Cluster
from aspencli.cli.failures import explain
from tests.conftest import Server

_PASSWORD = "a word that no one guesses"
_GERMAN = "de_DE.UTF-8"
_ADMIT = "\nhost all all 127.0.0.1/32 scram-sha-256\n"


class Admin:
    """A superuser of a server, with a role and a database that can be refused."""

    def __init__(self, address: str):
        self._url = make_url(address)
        self._engine = sa.create_engine(self._url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        self.name = f"aspen_test_{uuid.uuid4().hex[:8]}"
        self.sql(f"CREATE ROLE {self.name} LOGIN PASSWORD '{_PASSWORD}'")
        self.sql(f"CREATE DATABASE {self.name}")
        rules = Path(str(self.sql("SHOW hba_file")))
        if rules.exists() and _ADMIT not in rules.read_text():
            with rules.open("a") as file:
                file.write(_ADMIT)
            self.sql("SELECT pg_reload_conf()")

    def sql(self, statement: str) -> object:
        with self._engine.connect() as connection:
            result = connection.exec_driver_sql(statement)
            return result.scalar() if result.returns_rows else None

    @property
    def url(self) -> URL:
        return self._url.set(username=self.name, password=_PASSWORD, database=self.name)

    def close(self) -> None:
        self.sql(f"DROP DATABASE {self.name}")
        self.sql(f"DROP ROLE {self.name}")


@pytest.fixture(scope="module")
def german(server_folder: Path) -> Iterator[str]:
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    words = [
        folder
        for folder in binaries
        if Path(f"/usr/share/locale/de/LC_MESSAGES/postgres-{folder.parent.name}.mo").exists()
    ]
    known = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=False).stdout
    if not words or "de_DE.utf8" not in known:
        pytest.skip("needs Debian's PostgreSQL and the locale de_DE.UTF-8 for German messages")
    cluster = Cluster(server_folder / "german", settings={"fsync": "off", "lc_messages": _GERMAN})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASPEN_PG_BINDIR", str(words[-1]))
        try:
            cluster.up()
            yield cluster.url("postgres", SUPERUSER)
        finally:
            cluster.reset()


@pytest.fixture(params=["as it is", "German"])
def admin(request: pytest.FixtureRequest, postgres: Server) -> Iterator[Admin]:
    is_german = request.param == "German"
    address = request.getfixturevalue("german") if is_german else postgres.url("postgres")
    admin = Admin(address)
    yield admin
    admin.close()


CASES: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "wrong password": ("SELECT 1", {"password": "wrong"}, 4, "28P01"),
    "missing database": ("SELECT 1", {"database": "nonesuch"}, 6, "3D000"),
    "role without LOGIN": ("ALTER ROLE {name} NOLOGIN", {}, 4, "28000"),
    "expired password": ("ALTER ROLE {name} VALID UNTIL '2001-01-01'", {}, 4, "28P01"),
    "limit of the role": ("ALTER ROLE {name} CONNECTION LIMIT 0", {}, 5, "53300"),
    "limit of the database": ("ALTER DATABASE {name} CONNECTION LIMIT 0", {}, 5, "53300"),
    "no CONNECT": ("REVOKE CONNECT ON DATABASE {name} FROM PUBLIC", {}, 4, "42501"),
    "closed database": ("ALTER DATABASE {name} ALLOW_CONNECTIONS false", {}, 5, "55000"),
}


@pytest.mark.parametrize("case", CASES)
def test_refused_connection_is_classified_in_any_server_language(case: str, admin: Admin) -> None:
    statement, changes, code, state = CASES[case]
    admin.sql(statement.format(name=admin.name))
    database = Database(admin.url.set(**changes))
    with pytest.raises(OperationalError) as caught:
        database.engine.connect()
    assert refusal_state(caught.value.orig) == state
    failure = explain(caught.value)
    assert failure.code == code, failure
    assert "does not answer" not in failure.message


def test_missing_role_is_classified_as_sign_in_failure(admin: Admin) -> None:
    with pytest.raises(OperationalError) as caught:
        Database(admin.url.set(username="nonesuch")).engine.connect()
    assert explain(caught.value).code == 4


def test_unreachable_server_has_no_sqlstate() -> None:
    with pytest.raises(OperationalError) as caught:
        Database("postgresql://u:p@127.0.0.1:1/db").engine.connect()
    assert refusal_state(caught.value.orig) is None
    assert explain(caught.value).code == 5


def test_german_test_server_sends_german_messages(german: str) -> None:
    url = make_url(german)
    with pytest.raises(psycopg2.OperationalError, match="Passwort-Authentifizierung"):
        psycopg2.connect(host=url.host, port=url.port, user=SUPERUSER, password="wrong")
