"""User imports that are interrupted, run concurrently, or end with an unknown outcome."""

from __future__ import annotations

import re
import signal
import time

import pytest
import sqlalchemy as sa

from aspen.database.bulk import sql_apply
from aspen.database.bulk.columns import EMAIL, USERS
from aspen.database.bulk.spec import Spec
from aspen.database.bulk.staging import compare
from aspencli.changes.undo import read_origin, read_undo
from aspencli.tabular.table import Fault
from tests.cli.commands.accounts_lab import MIXED, NEW_USER, Accounts

_PATIENCE_S = 120


def test_interrupted_import_changes_nothing(accounts: Accounts) -> None:
    before = accounts.tables
    file = accounts.write(MIXED)
    with accounts.database.begin() as session:
        session.execute(sa.text("SELECT FROM aspen.users WHERE id = 3 FOR UPDATE"))
        with accounts.begin("users", "import", str(file), "--yes") as process:
            _wait_for_lock(accounts)
            process.send_signal(signal.SIGINT)
            _out, err = process.communicate(timeout=_PATIENCE_S)
    assert process.returncode == 130, err
    assert accounts.tables == before
    assert accounts.users(MIXED).code == 0


def test_killed_import_is_reported_rolled_back_and_can_be_rerun(accounts: Accounts) -> None:
    before = accounts.tables
    file = accounts.write(MIXED)
    with accounts.database.begin() as session:
        session.execute(sa.text("SELECT FROM aspen.users WHERE id = 3 FOR UPDATE"))
        with accounts.begin("users", "import", str(file), "--yes") as process:
            _wait_for_lock(accounts)
            process.kill()
            process.communicate(timeout=_PATIENCE_S)
    (run,) = accounts.cli("history", "--output", "json").json
    assert (run["outcome"], run["command"]) == ("unknown", "users import")
    deadline = time.monotonic() + _PATIENCE_S  # until the server notices the lost client
    while (checked := accounts.cli("history", "check", run["run"])).code == 7:
        assert time.monotonic() < deadline, checked.err
    assert checked.code == 0, checked.err
    assert "rolled back" in checked.out
    assert accounts.tables == before
    assert accounts.users(MIXED).code == 0
    assert accounts.roles("ada@lab.example.org") == {"RCPHL": "admin", "BDPH": "viewer"}


def _wait_for_lock(accounts: Accounts) -> None:
    query = (
        "SELECT FROM pg_stat_activity "
        "WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    deadline = time.monotonic() + _PATIENCE_S
    while not accounts.rows(query):
        assert time.monotonic() < deadline, "nobody waits for a lock"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("meanwhile", "says"),
    [
        (
            NEW_USER.format(email="Ada@lab.example.org"),
            'line 2: user "ada@lab.example.org" exists now',
        ),
        (
            "UPDATE aspen.users SET auth0_user_id = 'auth0|ada' WHERE id = 1",
            '"auth0|ada" is now used by user "sysadmin@example.org"',
        ),
        (
            "UPDATE aspen.users SET name = 'Else' WHERE id = 3",
            'line 5: user "member@example.org" now has name "Else", expected "Morgan Member"',
        ),
        (
            "INSERT INTO aspen.user_roles (user_id, group_id, role_id) VALUES (11, 3, 1)",
            'user "nogroup@example.org" now has role ',
        ),
        (
            "DELETE FROM aspen.user_roles WHERE user_id = 10 AND group_id = 1",
            'user "multi@example.org" now has role nothing, expected "member"',
        ),
        ("UPDATE aspen.users SET email = 'gone@example.org' WHERE id = 3", "has email"),
    ],
    ids=["address", "auth0", "name", "role came", "role went", "renamed"],
)
def test_concurrent_change_is_named_and_nothing_is_written(
    meanwhile: str, says: str, accounts: Accounts
) -> None:
    """The locked row makes the run wait after it has made its plan."""
    file = accounts.write(MIXED)
    with accounts.database.begin() as session:
        session.execute(sa.text(sql_apply.lock(Spec(USERS, EMAIL, (EMAIL,)))))
        with accounts.begin("users", "import", str(file), "--yes") as process:
            _wait_for_lock(accounts)
            accounts.execute(meanwhile)
            before = accounts.tables
            session.rollback()
            _out, err = process.communicate(timeout=_PATIENCE_S)
    assert process.returncode == 7, err
    assert says in err
    assert "Another user changed users in this file after the plan was made" in err
    assert accounts.tables == before
    assert not accounts.undo_files


def test_taken_user_id_is_not_reported_as_concurrent_change(accounts: Accounts) -> None:
    """A sequence can fall behind, for example after manual inserts; the next number is free."""
    accounts.execute("SELECT setval('aspen.users_id_seq', 2)")
    before = accounts.tables
    ended = accounts.users(MIXED)
    assert (ended.code, accounts.tables) == (7, before)
    assert "The database rejected the changes; nothing was written" in ended.err
    assert re.search(r"Key \(id\)=\([34]\) already exists\.", ended.err)
    assert "somebody else" not in ended.err
    accounts.execute("SELECT setval('aspen.users_id_seq', 100)")
    assert accounts.users(MIXED).code == 0


def test_concurrent_imports_of_one_file_write_it_once(accounts: Accounts) -> None:
    file = accounts.write(MIXED)
    runs = [accounts.begin("users", "import", str(file), "--yes") for _ in range(2)]
    ended = [(run.communicate(timeout=_PATIENCE_S), run.returncode) for run in runs]
    assert {code for _streams, code in ended} <= {0, 7}, ended
    assert 0 in {code for _streams, code in ended}
    assert accounts.roles("ada@lab.example.org") == {"RCPHL": "admin", "BDPH": "viewer"}
    assert len(accounts.rows("SELECT FROM aspen.users")) == 13
    assert accounts.users(MIXED).code == 0


@pytest.mark.parametrize("undone", [False, True])
def test_undo_file_shows_whether_run_was_written(undone: bool, accounts: Accounts) -> None:
    """`history check` compares like this if the server no longer knows the transaction."""
    assert accounts.users(MIXED).code == 0
    if undone:
        assert accounts.undo("users").code == 0
    faults: list[Fault] = []
    for number, file in enumerate(map(str, accounts.undo_files)):
        origin = read_origin(file)
        rows = compare(accounts.database, origin.spec, None, read_undo(file, origin, faults.append))
        is_written = undone == (number == 1)
        assert (rows.written, rows.before) == ((7, 0) if is_written else (0, 7))
        assert (rows.otherwise, rows.gone, faults) == (0, 0, [])
