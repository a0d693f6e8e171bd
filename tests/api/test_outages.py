"""The service's answers while the database is unavailable, and its recovery afterward."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg2
import pytest
import sqlalchemy as sa

from aspen.database.engine import Database
from tests.api.conftest import Api
from tests.conftest import Server

AWAY = {"error": "the database cannot be reached"}
PATH = "/v2/users/me"


@contextmanager
def refusing(server: Server, database: Database) -> Iterator[None]:
    """Make the server refuse connections to the database, and end the existing ones."""
    name = database.url.database
    connection = psycopg2.connect(
        server.url("postgres").replace("postgresql+psycopg2", "postgresql")
    )
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
        )
        try:
            yield
        finally:
            cursor.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
            connection.close()


def test_service_recovers_as_soon_as_database_is_back(api: Api, postgres: Server) -> None:
    before = api("GET", PATH, "member")
    with refusing(postgres, api.database):
        answer = api("GET", PATH, "member")
        assert (answer.status_code, answer.json()) == (503, AWAY)
        assert answer.headers["retry-after"]
        # Requests that need no database still work.
        assert api("GET", "/v2/health/").status_code == 200
        assert api("GET", PATH).status_code == 401
    after = api("GET", PATH, "member")
    assert (after.status_code, after.json()) == (200, before.json())


def test_connection_lost_during_request_returns_503(api: Api) -> None:
    with (
        api.database.writing().engine.connect() as holding,
        ThreadPoolExecutor(1) as threads,
    ):
        holding.execute(sa.text("LOCK TABLE aspen.users IN ACCESS EXCLUSIVE MODE"))
        asked = threads.submit(api, "GET", PATH, "member")
        waiting = sa.text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'aspen-api' AND wait_event_type = 'Lock'"
            " AND datname = current_database()"
        )
        ended = False
        while not ended:
            assert not asked.done()
            with api.database.reading() as session:  # a transaction sees a single snapshot of it
                ended = bool(session.execute(waiting).all())
        answer = asked.result(30)
    assert (answer.status_code, answer.json()) == (503, AWAY)
    assert api("GET", PATH, "member").status_code == 200


def test_lock_wait_timeout_returns_503(api: Api) -> None:
    with api.database.writing().engine.connect() as holding:
        holding.execute(sa.text("LOCK TABLE aspen.users IN ACCESS EXCLUSIVE MODE"))
        answer = api("GET", PATH, "member")
    assert (answer.status_code, answer.json()) == (503, AWAY)
    assert api("GET", PATH, "member").status_code == 200


@pytest.mark.parametrize("many", [60])
def test_more_concurrent_requests_than_connections_all_succeed(api: Api, many: int) -> None:
    api("GET", PATH, "member")
    with ThreadPoolExecutor(many) as threads:
        answers = list(threads.map(lambda _: api("GET", PATH, "member"), range(many * 3)))
    assert {answer.status_code for answer in answers} == {200}
    with api.database.reading() as session:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'aspen-api'"
        assert (
            session.execute(sa.text(query + " AND datname = current_database()")).scalar_one() <= 20
        )
