"""Addresses with several hosts."""

from __future__ import annotations

import pytest

from aspen.database.engine import Database
from aspencli.admin.psql import read_address

SHOWN = {
    "postgresql://u:s%40c@h1:5432,h2:5433/db": "postgresql://u:***@h1:5432,h2:5433/db",
    "postgresql://u@h1,h2/db": "postgresql://u@h1,h2/db",
    "postgresql://u@h1:5,h2/db": "postgresql://u@h1:5,h2/db",
    "postgresql://u@[::1]:5432,h2:5433/db": "postgresql://u@[::1]:5432,h2:5433/db",
    "postgresql://u@/db?host=h1:5432&host=h2:5433": "postgresql://u@h1:5432,h2:5433/db",
    "postgresql://u@/db?host=[::1]:4&host=h2": "postgresql://u@[::1]:4,h2/db",
    "postgresql://u@/db?host=h1,h2&port=1,2": "postgresql://u@h1:1,h2:2/db",
    "postgresql://u@h1,h2/db?sslmode=require": "postgresql://u@h1,h2/db?sslmode=require",
    "postgresql://hosts@h1:1,h2:2/hosts": "postgresql://hosts@h1:1,h2:2/hosts",
}


@pytest.mark.parametrize("address", SHOWN)
def test_driver_and_psql_parse_same_hosts(address: str) -> None:
    database = Database(address)
    assert database.display_url == SHOWN[address]
    given = database.engine.dialect.create_connect_args(database.url)[1]
    read = read_address(address)
    assert given["host"] == read["host"]
    assert str(given["port"]).strip(",") == read.get("port", "").strip(",")


@pytest.mark.parametrize(
    "address", ["postgresql://u@h1:5/db", "postgresql://u@/db?host=/tmp/x&port=5"]
)
def test_single_host_address_is_unchanged(address: str) -> None:
    assert Database(address).url.render_as_string() == address.replace(
        "postgresql:", "postgresql+psycopg2:"
    ).replace("/tmp/x", "%2Ftmp%2Fx")


def test_connection_tries_hosts_in_order(migrated_db: str) -> None:
    found = Database(migrated_db).url
    several = found.set(host=None, port=None).update_query_dict(
        {"host": f"{found.host},{found.host}", "port": f"1,{found.port}"}
    )
    database = Database(several.update_query_dict({"target_session_attrs": "read-write"}))
    with database.reading() as session:
        driver = session.connection().connection.driver_connection
        assert driver is not None
        assert driver.info.port == found.port
    database.dispose()
