"""The building blocks for keeping parts running."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aspen.local import logs, processes, services
from aspen.local.logs import RotatingLog
from aspen.local.processes import HOST, SERVICES_FIRST, is_own_connection, may_own
from aspen.local.services import (
    PARTS,
    SERVICES,
    Phase,
    Service,
    check_installed,
    installed_parts,
    service,
    with_needed,
)
from aspen.local.state import (
    DeploymentFiles,
    KnownProcess,
    PartRecord,
    Timing,
    read_record,
    write_record,
)
from aspen.local.supervisor import is_check
from aspencli import machine
from aspencli.errors import AspenError, RefusedError, UnreachableError
from tests.local.conftest import root_only

# Processes


def test_process_is_identified_by_pid_and_start_time() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        process = KnownProcess.of(child.pid)
        alive = process.lives
        assert alive
        assert not KnownProcess(child.pid, "another").lives
        child.kill()
        while machine.command_of(child.pid):
            time.sleep(0.005)
        assert not process.lives  # a zombie until its parent waits for it
    assert not process.lives
    assert machine.start_of(child.pid) == ""


def test_process_start_time_is_found_without_proc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_PROC", tmp_path)  # as on macOS
    assert machine.start_of(os.getpid())
    assert machine.start_of(os.getpid()) == machine.start_of(os.getpid())
    assert machine.start_of(2**22 + 1) == ""


def test_owner_of_listening_port_is_recognized() -> None:
    with socket.create_server((HOST, 0)) as listening:
        port = listening.getsockname()[1]
        assert may_own(os.getpid(), port)
        assert not may_own(os.getppid(), port)
    assert not may_own(os.getpid(), port)


@pytest.fixture(params=["asked", "listed"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a kernel that can look up one socket, or whose full socket table is read."""
    if request.param == "listed":
        monkeypatch.setattr(processes, "_SOCKET_MONITORING", 31)  # a protocol that does not exist


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_connection_of_own_account_is_recognized_while_open(family: socket.AddressFamily) -> None:
    with socket.create_server((HOST, 0)) as listening, socket.socket(family) as client:
        own_port = listening.getsockname()[1]
        client.connect((HOST if family == socket.AF_INET else f"::ffff:{HOST}", own_port))
        port = client.getsockname()[1]
        accepted = listening.accept()[0]
        assert is_own_connection(port, own_port)
        assert not is_own_connection(own_port, port + 1)  # listening is not a connection
        client.close()
        assert not is_own_connection(port, own_port)
        accepted.close()
        assert not is_own_connection(port, own_port)


_CONNECT = """
import os, socket, sys
os.setuid(54321)
with socket.socket() as connection:
    connection.connect((sys.argv[1], int(sys.argv[2])))
    sys.stdin.read()
"""


@root_only
@pytest.mark.usefixtures("kernel")
def test_connection_of_another_account_is_recognized() -> None:
    with socket.create_server((HOST, 0)) as listening:
        listening.settimeout(60)
        own_port = listening.getsockname()[1]
        words = [sys.executable, "-c", _CONNECT, HOST, str(own_port)]
        with subprocess.Popen(words, stdin=subprocess.PIPE) as stranger:
            accepted, (_host, port) = listening.accept()
            assert not is_own_connection(port, own_port)
            accepted.close()
            stranger.communicate()
    assert stranger.returncode == 0


# Records


def test_supervisor_record_round_trips(tmp_path: Path) -> None:
    record = {
        "api": PartRecord(Phase.RESTARTING, 1.5, None, 3, 1.0, "why", conflict=True),
        "aws": PartRecord(Phase.RUNNING, 2.5, KnownProcess(7, "then"), how="fast"),
    }
    write_record(tmp_path / "record.json", record)
    assert read_record(tmp_path / "record.json") == record


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"api": {}}', '{"api": 3}', '{"api": {"phase": "odd"}}']
)
def test_damaged_supervisor_record_is_read_as_empty(tmp_path: Path, text: str) -> None:
    (tmp_path / "record.json").write_text(text)
    assert read_record(tmp_path / "record.json") == {}
    assert KnownProcess.read(tmp_path / "record.json") is None


# Logs


def test_rotated_log_is_followed_without_losing_lines(tmp_path: Path) -> None:
    path = tmp_path / "api.log"
    log = RotatingLog(path, longest=200)
    log.write("first")
    follower = logs.Follower(lambda: path, 5)
    assert [line[28:] for line in follower.last] == ["first"]
    seen: list[str] = []
    for number in range(40):
        log.write(f"line {number}\n")
        if number % 3 == 0:
            seen += follower.fresh()
    log.close()
    seen += follower.fresh()
    assert [line[28:] for line in seen] == [f"line {number}" for number in range(40)]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["api.log", "api.log.1", "api.log.2"]


def test_lines_of_several_logs_are_merged_by_time() -> None:
    lines = {
        "api": ["2026-01-01 00:00:01.000 UTC a", "2026-01-01 00:00:03.000 UTC c", "  more of c"],
        "aws": ["2026-01-01 00:00:02.000 UTC b", "2026-01-01 00:00:04.000 UTC d"],
    }
    assert [line.split()[-1] for _, line in logs.merged(lines)] == ["a", "b", "c", "c", "d"]


@pytest.mark.parametrize(
    ("name", "request_line", "status", "left_out"),
    [
        ("api", "GET /v2/health/", 200, True),
        ("api", "GET /v2/health/", 503, False),
        ("api", "GET /v2/health/ready", 200, True),
        ("api", "GET /v2/health/ready", 503, True),
        ("api", "GET /v2/health/ready", 500, False),
        ("api", "GET /v2/users/me", 200, False),
        ("api", "GET /v2/users/me", 503, False),
        ("aws", "GET /_health", 200, True),
        ("aws", "GET /_health", 503, False),
    ],
)
def test_only_health_checks_are_omitted_from_log(
    name: str, request_line: str, status: int, left_out: bool
) -> None:
    line = f'127.0.0.1:1 - "{request_line} HTTP/1.1" {status}'
    assert is_check(line, service(name)) is left_out


# Pauses, parts, and ports


def test_restart_pause_grows_until_part_stays_up() -> None:
    timing, pauses, pause = Timing(), [], None
    for lived in (100, 1, 1, 1, 1, 1, 1, 1, 61):
        pause = timing.after(pause, lived)
        pauses.append(pause)
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 0.5]


def test_starting_part_includes_its_dependencies() -> None:
    assert with_needed(["postgres"]) == ("postgres",)
    assert with_needed(["aws"]) == ("postgres", "aws")
    assert with_needed(["api"]) == ("postgres", "aws", "identity", "api")
    assert with_needed(["worker"]) == ("postgres", "aws", "worker")


def test_worker_is_a_part_only_where_its_packages_are_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def find(name: str) -> object:
        asked.append(name)
        return None if name == "dbos" else object()

    monkeypatch.setattr(services, "find_spec", find)
    assert installed_parts() == tuple(name for name in PARTS if name != "worker")
    assert "dbos" in asked
    with pytest.raises(UnreachableError, match=r"The worker requires .*: dbos") as caught:
        check_installed([service("worker")])
    assert "aspencli[local,workflows]" in str(caught.value.hint)
    monkeypatch.setattr(services, "find_spec", lambda _name: object())
    assert installed_parts() == PARTS
    check_installed([service("worker")])


@pytest.fixture
def state(tmp_path: Path) -> DeploymentFiles:
    state = DeploymentFiles(tmp_path / "home")
    state.make()
    return state


def test_chosen_ports_persist_and_avoid_ports_in_use(state: DeploymentFiles) -> None:
    with socket.create_server((HOST, 0)) as other:
        taken = other.getsockname()[1]
        chosen = [Service("one", taken, "/", (), ()), Service("two", taken + 1, "/", (), ())]
        notes = state.choose_ports(chosen)
        ports = state.ports()
        assert (
            f"Port {taken} is in use by another program; one uses {ports['one']} instead." in notes
        )
        assert ports["one"] >= SERVICES_FIRST
        assert len(set(ports.values())) == 2
        assert state.choose_ports(chosen) == []
    assert state.choose_ports(chosen) == []
    assert state.ports() == ports  # the first choice is free again, but is not reused


def test_damaged_port_file_is_reported(state: DeploymentFiles) -> None:
    (state.folder / "ports.json").write_text("{")
    with pytest.raises(AspenError, match="Damaged") as caught:
        state.ports()
    assert "Delete the file" in str(caught.value.hint)


@root_only
def test_deployment_of_another_user_is_refused(
    state: DeploymentFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(RefusedError, match="belongs to another user"), state.lock():
        pass


def test_every_service_has_launcher() -> None:
    from aspen.local.launch import _PARTS

    assert set(_PARTS) == {service.name for service in SERVICES}
