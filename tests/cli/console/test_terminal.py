"""The console at a terminal, as an operator sees and uses it."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.cli.commands.proxy import CommitProxy
from tests.cli.console.terminal import Terminal

GREEN, YELLOW, RED = (f"\x1b[0;38;5;{shade};1m" for shade in (28, 136, 196))


@pytest.fixture(autouse=True)
def own_ipython(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return an IPython folder for the test, not that of whoever runs the tests."""
    folder = tmp_path / "ipython"
    monkeypatch.setenv("IPYTHONDIR", str(folder))
    return folder


@pytest.fixture
def watcher(migrated_db: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(migrated_db, isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


def test_session_from_runbook_works_at_prompt(migrated_db: str) -> None:
    with Terminal(migrated_db) as console:
        name = sa.make_url(migrated_db).database
        assert "Aspen console on local (local): read-only" in console.banner
        assert f"database {name} on " in console.banner
        assert console.banner.endswith("local In [1]:")
        console.run("session = engine.make_session()")
        assert "Out[2]: []\n" in console.run("session.query(User).all()")
        assert "Out[3]: True" in console.run("db is engine and sa.select is select")
        assert console.leave()[0] == 0


def test_tab_completes_model_names_at_first_prompt(migrated_db: str) -> None:
    with Terminal(migrated_db) as console:
        console.type("PathogenL\t")
        console.until("ineage")
        assert "'pathogen_lineages'" in console.run(".__tablename__")


def test_failed_statement_is_reported_briefly_and_rolled_back(migrated_db: str) -> None:
    with Terminal(migrated_db) as console:
        console.run("own = engine.make_session(); own.scalar(sa.text('SELECT 1'))")
        told = console.run("x = own.execute(sa.text('SELECT nothing'))")
        assert 'Error: UndefinedColumn: column "nothing" does not exist' in told
        assert "Traceback" not in told
        assert "Warning: Statement failed; transaction rolled back." in told
        assert "Out[3]: 1" in console.run("own.scalar(sa.text('SELECT 1'))")
        whole = console.run("%tb")
        assert "Traceback (most recent call last)" in whole
        assert "_execute_context" in whole
        kept = console.run("get_ipython().history_manager.exceptions[2]['traceback']")
        assert "does not exist" in kept
        assert "_execute_context" not in kept
        # IPython shows errors that do not come from the database.
        assert "ZeroDivisionError: division by zero" in console.run("1 / 0")


def test_write_magic_enables_writes_and_write_off_disables_them(
    migrated_db: str, watcher: sa.Engine
) -> None:
    create = "x = session.execute(sa.text('CREATE TABLE t ()'))"
    with Terminal(migrated_db) as console:
        refused = console.run(create)
        assert "ReadOnlySqlTransaction" in refused
        assert "Type %write to allow writes." in refused
        granted = console.run("%write")
        assert "Now READ-WRITE on local" in granted
        assert granted.endswith("local WRITE In [3]:")
        console.run(create)
        assert "1 session has uncommitted changes" in console.run("%write off")
        console.run("session.commit()")
        assert console.run("%write off").endswith("local In [7]:")
        assert "This console is read-only" in console.run("with db.begin(): pass")
    with watcher.connect() as connection:
        assert connection.scalar(sa.text("SELECT to_regclass('aspen.t')")) is not None


def test_declined_write_confirmation_keeps_console_read_only(migrated_db: str) -> None:
    with Terminal(migrated_db, "--answer", "no") as console:
        declined = console.run("%write")
        assert "Not confirmed; the console is still read-only" in declined
        assert declined.endswith("local In [2]:")
        assert "UsageError: Use %write, or %write off" in console.run("%write please")


def test_exit_with_uncommitted_changes_warns_and_discards_them(
    migrated_db: str, watcher: sa.Engine
) -> None:
    with Terminal(migrated_db, "--write") as console:
        assert "(local): READ-WRITE" in console.banner
        assert console.banner.endswith("local WRITE In [1]:")
        console.run("x = session.execute(sa.text('CREATE TABLE t ()'))")
        code, last = console.leave()
    assert code == 0
    assert "Warning: Uncommitted changes were not saved" in last
    with watcher.connect() as connection:
        assert connection.scalar(sa.text("SELECT to_regclass('aspen.t')")) is None


def test_profile_magic_turns_profiling_off(migrated_db: str) -> None:
    with Terminal(migrated_db, "--profile") as console:
        assert "DEBUG:sqltime:Start Query: SELECT 1" in console.run(
            "session.scalar(sa.text('SELECT 1'))"
        )
        console.run("%write")
        assert "DEBUG:sqltime:Total Time: 0." in console.run("session.scalar(sa.text('SELECT 2'))")
        assert "Profiling is off" in console.run("%profile off")
        assert "DEBUG" not in console.run("session.scalar(sa.text('SELECT 3'))")
        assert "Profiling is off" in console.run("%profile")
        assert "UsageError: Use %profile on, %profile off, or %profile report" in console.run(
            "%profile maybe"
        )


def test_interrupt_cancels_statement_and_keeps_connection(
    migrated_db: str, watcher: sa.Engine
) -> None:
    with Terminal(migrated_db) as console:
        console.run("me = session.scalar(sa.text('SELECT pg_backend_pid()'))")
        console.enter("session.scalar(sa.text('SELECT pg_sleep(60)'))")
        wait_until_sleeping(watcher)
        interrupted = time.monotonic()
        console.interrupt()
        told = console.next_prompt()
        assert time.monotonic() - interrupted < 50
        assert "Error: Interrupted" in told
        assert "transaction rolled back" in told
        same = console.run("session.scalar(sa.text('SELECT pg_backend_pid()')) == me")
        assert "Out[3]: True" in same


def test_lost_connection_is_reported_with_its_transaction_and_opened_again(
    migrated_db: str,
) -> None:
    with CommitProxy(migrated_db, deliver=True) as proxy, Terminal(proxy.address) as console:
        console.run("session.scalar(sa.text('SELECT 1'))")
        proxy.drop()
        shown = console.run("session.scalar(sa.text('SELECT 2'))")
        assert "Warning: Connection lost; its transaction was rolled back." in shown
        assert "The next statement opens a new connection." in shown
        assert "Out[3]: 3" in console.run("session.scalar(sa.text('SELECT 3'))")


@pytest.mark.parametrize("deliver", [True, False], ids=["committed", "not_committed"])
def test_connection_lost_at_commit_leaves_outcome_unknown(migrated_db: str, deliver: bool) -> None:
    update = "session.execute(sa.text('UPDATE aspen.samples SET private = false'))"
    with (
        CommitProxy(migrated_db, deliver=deliver) as proxy,
        Terminal(proxy.address, "--write") as console,
    ):
        console.run(update)
        console.enter("session.commit()")
        assert proxy.asked.wait(60)
        proxy.drop()
        shown = " ".join(console.next_prompt().split())
        assert "it is unknown whether the changes were written" in shown
        assert "Check the data before you repeat the change." in shown
        assert "rolled back" not in shown
        assert "Out[3]: 3" in console.run("session.scalar(sa.text('SELECT 3'))")


@pytest.mark.parametrize(
    ("safety", "color"), [("local", GREEN), ("shared", YELLOW), ("production", RED)]
)
def test_prompt_color_matches_safety_of_target(migrated_db: str, safety: str, color: str) -> None:
    with Terminal(migrated_db, "--safety", safety, "--label", "rdev/mine") as console:
        assert f"{color}rdev/mine" in console.seen


def test_no_color_variable_disables_colors(migrated_db: str) -> None:
    with Terminal(migrated_db, "--safety", "production", env={"NO_COLOR": "1"}) as console:
        console.run("'text'")
        assert not [code for code in ("\x1b[0;3", "\x1b[3", "\x1b[38") if code in console.seen]


def test_unreachable_database_ends_console_before_prompt() -> None:
    console = Terminal("postgresql://nobody@127.0.0.1:1/nowhere")
    code, last = console.end()
    assert code == 5
    assert "Error: The database is not responding" in last


def test_console_history_is_per_target_and_omits_secrets(
    migrated_db: str, aspen_home: Path
) -> None:
    address = "postgresql://me:hidden1@elsewhere/db"
    with Terminal(migrated_db, "--label", "rdev/mine") as console:
        console.run(f"address = '{address}'")
        console.run("password = 'hidden2'")
        console.run("harmless = 'shown'")
        assert console.leave()[0] == 0
    path = aspen_home / "state" / "console" / "rdev-mine.sqlite"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    held = path.read_bytes()
    assert b"harmless" in held
    assert b"hidden" not in held
    with Terminal(migrated_db, "--label", "rdev/mine") as console:
        console.type("\x1b[A\x1b[A\r")  # exit is never saved
        assert "# omitted from the history" in console.next_prompt()


def test_console_starts_with_warning_when_history_cannot_be_saved(
    migrated_db: str, aspen_home: Path
) -> None:
    aspen_home.mkdir()
    (aspen_home / "state").write_text("in the way")
    with Terminal(migrated_db) as console:
        assert "Warning: The history cannot be saved" in console.banner
        assert "Out[1]: 2" in console.run("1 + 1")


def test_user_ipython_profile_is_applied(migrated_db: str, own_ipython: Path) -> None:
    profile = own_ipython / "profile_default"
    (profile / "startup").mkdir(parents=True)
    (profile / "startup" / "mine.py").write_text("mine = 'from my start-up file'\n")
    (profile / "ipython_config.py").write_text(
        "c.TerminalIPythonApp.display_banner = False\nc.HistoryManager.hist_file = '/nowhere/x'\n"
    )
    with Terminal(migrated_db) as console:
        assert "Aspen console on local" in console.banner
        assert "from my start-up file" in console.run("mine")
        console.run("%reset -f")
        assert "read-only" in console.run("engine")


def test_database_password_is_never_shown(migrated_db: str) -> None:
    password = sa.make_url(migrated_db).password
    assert password
    with Terminal(migrated_db) as console:
        console.run("engine")
        console.run("engine.url, session.bind")
        assert password not in console.seen


def wait_until_sleeping(engine: sa.Engine) -> None:
    query = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"
        " AND state = 'active' AND datname = current_database()"
    )
    deadline = time.monotonic() + 120
    with engine.connect() as connection:
        while not connection.scalar(query):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_sql_magic_runs_statement_verbatim_and_shows_table(migrated_db: str) -> None:
    with Terminal(migrated_db) as console:
        told = console.run("%sql SELECT '{1,2}'::int[] AS list, 'a%' LIKE 'a%' AS \"like it\";")
        assert "[1, 2]" in told
        assert "like it" in told
        assert "true" in told
        assert "Only the first 100 rows are shown" in console.run(
            "%sql SELECT * FROM generate_series(1, 101)"
        )
        console.run("wanted = select(Role.id).where(Role.name == 'a:b%')")
        assert "No rows." in console.run("%sql wanted")
        assert 'Error: UndefinedTable: relation "nothing"' in console.run("%sql TABLE nothing")
        assert "session.commit()" in console.run("%sql COMMIT")
        assert "ReadOnlySqlTransaction" in console.run("%sql CREATE TABLE aspen.t ()")


def test_explain_magic_shows_plan_and_rolls_back_analyzed_statement(
    migrated_db: str, watcher: sa.Engine
) -> None:
    with Terminal(migrated_db) as console:
        assert "Scan" in console.run("%explain SELECT * FROM aspen.roles WHERE name = '{x}'")
        assert "rows=" in console.run("%explain select(Role).where(Role.id.in_([1, 2]))")
        console.run("%write")
        assert "actual" in console.run(
            "%explain analyze INSERT INTO aspen.roles (name) VALUES ('made up')"
        )
        console.run("session.commit()")
    with watcher.connect() as connection:
        made = sa.text("SELECT count(*) FROM aspen.roles WHERE name = 'made up'")
        assert connection.scalar(made) == 0
