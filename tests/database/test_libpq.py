"""Addresses and variables of libpq: read in only one way, and never shown with a secret."""

from __future__ import annotations

import os

import psycopg2
import pytest
from sqlalchemy.exc import OperationalError

from aspen.database import settings
from aspen.database.engine import Database, normalize_url
from aspen.database.settings import InvalidDatabaseUrlError
from aspen.local.deployment import Laptop
from aspencli.admin.psql import read_address
from aspencli.cli.failures import explain
from aspencli.cli.main import run
from tests.conftest import cli_environment

WRONG = {
    "PGHOST": "no-such-host.invalid",
    "PGHOSTADDR": "10.255.255.1",
    "PGPORT": "99999",
    "PGUSER": "somebody",
    "PGDATABASE": "nonsense",
    "PGAPPNAME": "x" * 200,
    "PGOPTIONS": "-c nonsense=1",
    "PGSERVICE": "nosuch",
    "PGSERVICEFILE": "/nonexistent",
    "PGTARGETSESSIONATTRS": "nonsense",
    "PGLOADBALANCEHOSTS": "nonsense",
    "PGCLUSTER": "17/main",
}


@pytest.mark.parametrize(
    "password", ["a/b", "a#b", "a?b", "a[b", "a]b", "a%zz", "a:b", "a%2Fb", " "]
)
def test_both_address_parsers_read_same_password(password: str) -> None:
    address = f"postgresql://user:{password}@db.test:6543/aspen_db"
    url, parameters = normalize_url(address), read_address(address)
    expected = password.replace("%2F", "/")
    assert (url.host, url.port, url.database) == ("db.test", 6543, "aspen_db")
    assert url.password == parameters["password"] == expected
    assert (parameters["host"], parameters["port"]) == ("db.test", "6543")


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://user:pa@s3cr3t@db.test/aspen_db",
        "postgresql://user:pa@s3cr3t/x@db.test/aspen_db",
        "postgresql://user:pa@s3cr3t?x@db.test/aspen_db",
        "postgresql://user@s3cr3t:x@db.test/aspen_db",
        "postgresql://user:s3cr3t%00@db.test/aspen_db",
    ],
)
def test_ambiguous_address_is_refused_without_showing_password(address: str) -> None:
    with pytest.raises(InvalidDatabaseUrlError) as caught:
        Database(address)
    assert "s3cr3t" not in str(caught.value)
    assert explain(caught.value).code == 2


def test_address_query_may_contain_at_sign() -> None:
    url = normalize_url("postgresql://u:p@db.test/aspen_db?application_name=me@home")
    assert url.query["application_name"] == "me@home"


def test_misleading_libpq_variables_are_ignored(
    seeded: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert WRONG.keys() == settings.MISLEADING
    for name, value in {**cli_environment(seeded), **WRONG}.items():
        monkeypatch.setenv(name, value)
    assert run(["pathogens", "list"]) == 0, capsys.readouterr().err


def test_local_target_ignores_every_connection_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in settings.MISLEADING | settings.CONNECTION:
        monkeypatch.setenv(name, "nonsense")
    assert Laptop().endpoints() is None
    assert "PGSSLMODE" in os.environ  # no connection was needed yet
    assert Laptop().deployment is not None
    assert not (settings.MISLEADING | settings.CONNECTION) & os.environ.keys()


@pytest.mark.parametrize(
    "setting",
    [
        "port=99999",
        "port=abc",
        "port=0",
        "sslmode=verify",
        "connect_timeout=soon",
        "hostaddr=localhost",
        f"host=/{'x' * 200}",
        "host=a,b port=1,2,3",
        "service=nosuch",
        "target_session_attrs=writer",
        "channel_binding=x",
        "require_auth=x",
        "gssencmode=require",
        "ssl_min_protocol_version=TLSv9",
        "sslnegotiation=direct",
        "keepalives_idle=x",
        "load_balance_hosts=x",
        "sslcertmode=x",
    ],
)
def test_invalid_connection_setting_is_reported_as_bad_input(
    setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSSLCERTMODE", "disable")
    with pytest.raises(psycopg2.OperationalError) as caught:
        psycopg2.connect(f"host=127.0.0.1 port=1 password=s3cr3t {setting}")
    failure = explain(OperationalError("connect", None, caught.value))
    assert failure.code == 2, failure
    assert failure.message.startswith("Invalid database connection setting: ")
    assert "s3cr3t" not in str(failure)
    assert "PGSSLCERTMODE" in (failure.hint or "")
