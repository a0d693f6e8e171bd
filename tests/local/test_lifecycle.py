"""Starting and stopping the local PostgreSQL, whatever happened before."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from pathlib import Path

import psycopg2
import pytest

from aspen.local import logs
from aspen.local.postgres import server as process
from aspen.local.postgres.server import SUPERUSER, Cluster
from aspen.local.processes import HOST, server_account
from aspen.local.services import Phase as State
from aspencli import machine
from aspencli.errors import ConflictError, NotFoundError
from tests.local.conftest import FAST, Script, query


def test_second_up_finds_running_server(shared: Cluster) -> None:
    again = shared.up()
    assert again.already_running
    assert again.pid == shared.status().pid


def test_status_shows_port_version_size_and_uptime(shared: Cluster) -> None:
    status = shared.status()
    assert status.state is State.RUNNING
    assert status.port == int(query(shared.url("postgres", SUPERUSER), "SHOW port"))
    assert status.version
    assert status.size > 10_000_000
    assert status.uptime is not None
    assert 0 <= status.uptime < 300


def test_server_listens_on_loopback_only(shared: Cluster) -> None:
    address = shared.url("postgres", SUPERUSER)
    assert query(address, "SHOW listen_addresses") == "127.0.0.1"
    assert query(address, "SHOW unix_socket_directories") == ""


@pytest.mark.skipif(shutil.which("ps") is None, reason="there is no ps")
def test_server_processes_are_found_without_proc(
    shared: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = set(process.family(shared.data))
    monkeypatch.setattr(machine, "_PROC", tmp_path)  # as on macOS
    assert shared.status().state is State.RUNNING
    assert members & set(process.family(shared.data))
    assert machine.command_of(shared.up().pid).endswith(str(shared.data))


def test_wrong_password_is_refused(shared: Cluster) -> None:
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(
            host=HOST,
            port=shared.status().port,
            user=SUPERUSER,
            password="guessed",
            dbname="postgres",
        )


def test_password_file_is_readable_by_owner_only(shared: Cluster, home: Path) -> None:
    kept = shared.data.parent / "passwords.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert len(set(shared.passwords().values())) == 3


def test_server_is_detached_from_terminal(shared: Cluster) -> None:
    pid = shared.status().pid
    assert pid is not None
    assert os.getsid(pid) != os.getsid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="about root")
def test_server_started_by_root_runs_as_another_user(shared: Cluster) -> None:
    assert Path(f"/proc/{shared.status().pid}").stat().st_uid != 0


def test_server_survives_interrupt_of_starting_process(home: Path, run_script: Script) -> None:
    script = run_script(
        home, "print(cluster.up().pid, flush=True); sys.stdin.read(1); os.kill(0, 2)"
    )
    assert script.stdout is not None
    pid = int(script.stdout.readline())
    os.killpg(script.pid, signal.SIGINT)
    os.killpg(script.pid, signal.SIGHUP)
    script.wait(timeout=120)
    assert Cluster(home).status().pid == pid


def test_concurrent_starts_start_one_server(home: Path, run_script: Script) -> None:
    script = "started = cluster.up(); print(started.pid, started.already_running)"
    both = [run_script(home, script), run_script(home, script)]
    (first, was_first), (second, was_second) = (one.communicate()[0].split() for one in both)
    assert first == second
    assert {was_first, was_second} == {"True", "False"}


def test_killed_server_is_repaired_and_keeps_data(cluster: Cluster) -> None:
    started = cluster.up()
    address = cluster.url("postgres", SUPERUSER)
    query(address, "CREATE TABLE kept AS SELECT 42 AS answer")
    os.kill(started.pid, signal.SIGKILL)
    _gone(started.pid)
    assert cluster.status().state is State.CRASHED
    again = cluster.up()
    assert again.repaired
    assert query(address, "SELECT answer FROM kept") == 42


def test_stale_pid_file_of_another_process_is_repaired(cluster: Cluster) -> None:
    cluster.up()
    pid_file = cluster.data / "postmaster.pid"
    stale = pid_file.read_text().splitlines()
    cluster.down()
    account = server_account(cluster.data)
    with subprocess.Popen(["sleep", "60"], cwd="/", **account.run_as()) as other:
        pid_file.write_text("\n".join([str(other.pid), *stale[1:]]) + "\n")
        assert cluster.up().repaired
        assert other.poll() is None
        assert cluster.down().how != "killed"
        other.kill()


def test_down_leaves_no_process_and_no_listener(cluster: Cluster) -> None:
    port = cluster.up().port
    client = psycopg2.connect(cluster.url("postgres", SUPERUSER).replace("+psycopg2", ""))
    stopped = cluster.down()
    assert stopped.was_running
    assert stopped.how == "fast"
    assert process.family(cluster.data) == []
    with socket.socket() as probe:
        assert probe.connect_ex((HOST, port)) != 0
    client.close()
    assert cluster.status().state is State.STOPPED


def test_down_kills_frozen_server(cluster: Cluster) -> None:
    os.kill(cluster.up().pid, signal.SIGSTOP)
    began = time.monotonic()
    assert cluster.down(patience=0.2).how == "killed"
    assert time.monotonic() - began < 60
    assert process.family(cluster.data) == []


def test_down_without_running_server_does_nothing(home: Path) -> None:
    cluster = Cluster(home, settings=FAST)
    assert not cluster.down().was_running
    cluster.up()
    cluster.down()
    assert not cluster.down().was_running


def test_reset_removes_data_and_passwords(cluster: Cluster) -> None:
    cluster.up()
    before = cluster.passwords()
    assert cluster.reset()
    assert cluster.status().state is State.ABSENT
    assert not cluster.reset()
    with pytest.raises(NotFoundError, match="local database was never started"):
        cluster.url()
    assert cluster.up().created
    assert cluster.passwords() != before


def test_port_is_kept_unless_in_use(cluster: Cluster) -> None:
    port = cluster.up().port
    cluster.down()
    assert cluster.up().port == port
    cluster.down()
    with socket.create_server((HOST, port)):
        moved = cluster.up()
        assert moved.port != port
        assert f"Port {port} is in use" in moved.notes[0]
        cluster.down()
    assert cluster.up().port == moved.port


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_interrupted_first_start_is_repaired(
    home: Path, run_script: Script, number: signal.Signals
) -> None:
    script = run_script(home, "cluster.up()")
    while not list(home.glob("postgres/data.new-*/PG_VERSION")):
        assert script.poll() is None, script.communicate()
        time.sleep(0.002)
    os.kill(script.pid, number)
    script.wait(timeout=120)
    assert not (home / "postgres" / "data").exists()
    cluster = Cluster(home, settings=FAST)
    assert cluster.up().created
    assert not list(home.glob("postgres/data.new-*"))


def test_missing_password_file_is_reported(cluster: Cluster) -> None:
    cluster.up()
    cluster.down()
    (cluster.data.parent / "passwords.json").unlink()
    with pytest.raises(ConflictError, match="local database's password file is"):
        cluster.up()


def test_moved_home_keeps_data(cluster: Cluster, home: Path) -> None:
    cluster.up()
    query(cluster.url("postgres", SUPERUSER), "CREATE TABLE kept AS SELECT 42 AS answer")
    cluster.down()
    moved = Cluster(home.rename(home.with_name("moved")), settings=FAST)
    try:
        assert not moved.up().created
        assert query(moved.url("postgres", SUPERUSER), "SELECT answer FROM kept") == 42
    finally:
        moved.reset()


def test_server_log_can_be_read_and_followed(cluster: Cluster) -> None:
    cluster.up()
    address = cluster.url("postgres", SUPERUSER)
    assert any("ready to accept connections" in line for line in cluster.logs(50))
    found = logs.follow_all(
        {"postgres": lambda: logs.current_log(cluster.data)},
        50,  # more than there are; PostgreSQL may have added some
        until=lambda: machine.read_postmaster(cluster.data) is None,
    )
    messages = (line for _, line in found)
    query(address, "DO $$ BEGIN RAISE LOG 'first'; END $$")
    followed = []
    for line in messages:
        followed.append(line)
        if "first" in line:
            break
    query(address, "DO $$ BEGIN RAISE LOG 'second'; END $$")
    cluster.down()
    followed += list(messages)
    text = "\n".join(followed)
    assert text.index("ready to accept") < text.index("first") < text.index("second")
    assert "database system is shut down" in text


def test_invalid_server_setting_error_shows_server_output(home: Path) -> None:
    cluster = Cluster(home, settings={**FAST, "shared_buffers": "much"})
    with pytest.raises(Exception, match="exited during startup") as caught:
        cluster.up()
    assert any("shared_buffers" in line for line in caught.value.details)  # type: ignore[attr-defined]


def _gone(pid: int) -> None:
    while Path(f"/proc/{pid}").exists():
        time.sleep(0.005)
