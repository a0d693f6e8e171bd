"""A database in trouble: sessions that block each other, and users with few privileges."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import NullPool

from aspencli.cli.main import run
from tests.cli.commands.ending import Ended, ended
from tests.conftest import use_target
from tests.pooler import direct

PASSWORD = "a word that nobody guesses"
_EVERYBODY = "\nhost all all 127.0.0.1/32 scram-sha-256\n"


class TroubledSite:
    """An empty database that commands target, and other sessions on it."""

    def __init__(
        self, address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ):
        self.url = make_url(address)
        self._patch = monkeypatch
        self._capsys = capsys
        self._sessions: list[Any] = []
        self._threads: list[threading.Thread] = []
        self.roles: list[str] = []
        self.log_in(self.url)

    def log_in(self, url: URL) -> None:
        """Make the commands connect as the user in an address."""
        self._user = url
        self._use(())

    def _use(self, arguments: tuple[str, ...]) -> None:
        use_target(self._patch, arguments, self._user, Path(os.environ["ASPEN_HOME"]))

    def __call__(self, *arguments: str) -> Ended:
        self._use(arguments)
        self._capsys.readouterr()
        words = ["db", *arguments]
        return ended(words, run(words), self._capsys)

    def sql(self, statements: str) -> list[Any]:
        """Run statements, each in its own transaction, and return the rows of the last."""
        engine = sa.create_engine(
            direct(self.url), poolclass=NullPool, isolation_level="AUTOCOMMIT"
        )
        with engine.connect() as connection:
            for statement in statements.split(";\n"):
                result = connection.exec_driver_sql(statement.replace("%", "%%"))
            return list(result) if result.returns_rows else []

    def role(self, attributes: str = "") -> URL:
        """Create a user who may log in, and return the address to connect with."""
        name = f"aspen_test_{uuid.uuid4().hex[:10]}"
        self.sql(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}' {attributes}")
        self.roles.append(name)
        self._admit()
        address = self.url.set(username=name, password=PASSWORD)
        self.wait_for(lambda: _answers(address))
        return address

    def _admit(self) -> None:
        """Make the tests' server accept every user, as a shared server does."""
        rules = Path(self.sql("SHOW hba_file")[0][0])
        if rules.exists() and _EVERYBODY not in rules.read_text():  # else it is not ours
            with rules.open("a") as file:
                file.write(_EVERYBODY)
            self.sql("SELECT pg_reload_conf()")

    def session(self, name: str, *statements: str, url: URL | None = None) -> Session:
        """Open another session, in a transaction."""
        opened = Session(direct(url or self.url), name)
        self._sessions.append(opened)
        for statement in statements:
            opened.run(statement)
        return opened

    def start(self, session: Session, statement: str, *, until: str = "active") -> None:
        """Start a long statement in a session, and wait until it runs.

        Args:
            session: The session.
            statement: The statement; it may fail.
            until: ``active``, or ``waiting`` if it should wait for a lock.
        """

        def work() -> None:
            try:
                session.run(statement)
            except psycopg2.Error as error:
                session.error = error

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        self._threads.append(thread)
        condition = "wait_event_type = 'Lock'" if until == "waiting" else "state = 'active'"
        self.wait_for(
            lambda: self.sql(
                f"SELECT 1 FROM pg_stat_activity WHERE pid = {session.pid} AND {condition}"
            )
        )

    @staticmethod
    def wait_for(condition: Callable[[], object], seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not come to pass"
            time.sleep(0.02)

    def close(self) -> None:
        pids = [session.pid for session in self._sessions]
        self.sql(f"SELECT pg_terminate_backend(pid) FROM unnest(ARRAY{pids}::int[]) AS pid")
        for thread in self._threads:
            thread.join(10)
        for session in self._sessions:
            session.close()
        for role in self.roles:
            self.sql(f"DROP OWNED BY {role};\nDROP ROLE {role}")


class Session:
    """A session of another user."""

    def __init__(self, url: URL, name: str):
        self._connection: Any = psycopg2.connect(
            host=url.host,
            port=url.port,
            user=url.username,
            password=url.password,
            dbname=url.database,
            application_name=name,
        )
        self.pid: int = self._connection.get_backend_pid()
        self.error: Exception | None = None

    def run(self, statement: str) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)

    def close(self) -> None:
        self._connection.close()


def _answers(url: URL) -> bool:
    try:
        Session(url, "a try").close()
    except psycopg2.OperationalError:
        return False
    return True


@contextmanager
def troubled(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[TroubledSite]:
    site = TroubledSite(address, monkeypatch, capsys)
    try:
        yield site
    finally:
        site.close()
