"""The SQL of an assistant: what is refused before it is sent."""

from __future__ import annotations

import pytest

from aspen.database.engine import Database
from aspencli.cli.assistant.statements import called_names, require_reading
from aspencli.errors import BadInputError, RefusedError

READING = (
    "select count(*) from samples",
    "SELECT 1;",
    "(select 1) union (select 2)",
    "with a as (select 1) select * from a",
    "table samples",
    "values (1), (2)",
    "select ';', '\\', $$ ; delete $$ -- ; drop",
    "select lower('x'), now(), random(), pg_total_relation_size('aspen.samples')",
)
NOT_ONE_READING = (
    "",
    " ; -- nothing",
    "select 1; select 2",
    "select 1; delete from samples",
    "begin read write",
    "begin; set transaction read write; delete from samples; commit",
    "set session characteristics as transaction read write",
    "copy samples to program 'touch /tmp/x'",
    "copy (select 1) to '/tmp/x'",
    "do $$ begin delete from samples; end $$",
    "delete from samples",
    "explain analyze delete from samples",
    "call something()",
    "execute something",
    "\\! touch /tmp/x",
    "select 1 \\g |touch /tmp/x",
    "select 1 \\gexec",
)
WITH_SIDE_EFFECTS = (
    "select set_config('transaction_read_only', 'off', false)",
    "select SET_CONFIG ('role', 'postgres', false)",
    "select \"set_config\"('role', 'postgres', false)",
    "select pg_catalog . set_config /* here */ ('role', 'postgres', false)",
    "select pg_read_file('/etc/passwd')",
    "select * from pg_ls_dir('/')",
    "select lo_export(1, '/tmp/x')",
    "select pg_terminate_backend(pid) from pg_stat_activity",
    "select query_to_xml('delete from aspen.samples', true, true, '')",
    "select nextval('aspen.samples_id_seq')",
    "select pg_sleep(100)",
    "with a as (select pg_reload_conf()) select * from a",
    "select pg_notify('x', 'y'), pg_advisory_lock(1)",
)


def test_statements_that_read_are_accepted(database: Database) -> None:
    for sql in READING:
        require_reading(database, sql)
    assert called_names("select lower ('x'), a.b(1)") == ["lower", "b"]


@pytest.mark.parametrize("sql", NOT_ONE_READING)
def test_other_statements_and_several_are_refused(sql: str) -> None:
    with pytest.raises(BadInputError):
        called_names(sql)


def test_functions_with_side_effects_are_refused(database: Database) -> None:
    for sql in WITH_SIDE_EFFECTS:
        with pytest.raises(RefusedError, match="side effects"):
            require_reading(database, sql)


def test_escaped_names_are_refused(database: Database) -> None:
    with pytest.raises(RefusedError, match="Unicode escapes"):
        require_reading(database, 'select U&"\\0070g_sleep"(1)')


def test_functions_of_an_extension_are_refused(database: Database) -> None:
    with database.begin() as session:
        session.connection().exec_driver_sql("create extension dblink")
    with pytest.raises(RefusedError, match="dblink_exec"):
        require_reading(database, "select dblink_exec('dbname=x', 'delete from aspen.samples')")
