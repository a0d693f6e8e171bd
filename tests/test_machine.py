"""The addresses of the local deployment, used only while its own processes are behind them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from aspencli.machine import Endpoints, born, endpoints_file, read_endpoints, write_endpoints

PORT = 54321


@pytest.fixture
def server(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a process that looks like the PostgreSQL server of ``tmp_path``."""
    command = [sys.executable, "-c", "input()", "-D", str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


@pytest.fixture
def endpoints(tmp_path: Path, server: subprocess.Popen[bytes]) -> Endpoints:
    """Return the endpoints of a deployment whose every process is ``server``."""
    record = tmp_path / "record.json"
    process = {"pid": server.pid, "born": born(server.pid)}
    record.write_text(json.dumps({"api": {"process": process}, "aws": {"process": None}}))
    lines = (server.pid, tmp_path, 1700000000, PORT, "", "127.0.0.1")
    (tmp_path / "postmaster.pid").write_text("\n".join(map(str, lines)))
    return Endpoints(
        database="postgresql://user_rw@127.0.0.1/aspen_db",
        admin="postgresql://postgres@127.0.0.1/aspen_db",
        port=PORT,
        data=str(tmp_path),
        services={"api": "http://127.0.0.1:3000"},
        client_id="aspencli-local",
        record=str(record),
    )


def test_running_server_and_service_are_recognized(endpoints: Endpoints) -> None:
    assert endpoints.has_running_database
    assert endpoints.runs("api")


def test_killed_server_and_service_are_not_running(
    endpoints: Endpoints, server: subprocess.Popen[bytes]
) -> None:
    server.kill()
    server.wait()
    assert not endpoints.has_running_database
    assert not endpoints.runs("api")


def test_service_without_process_is_not_running(endpoints: Endpoints) -> None:
    assert not endpoints.runs("api", "aws")
    assert not endpoints.runs("identity")


def test_reused_process_id_is_not_the_service(endpoints: Endpoints) -> None:
    record = Path(endpoints.record)
    record.write_text(record.read_text().replace('"born": "', '"born": "another-boot'))
    assert not endpoints.runs("api")


def test_reused_process_id_is_not_the_server(endpoints: Endpoints) -> None:
    assert not replace(endpoints, data=endpoints.data + "/other").has_running_database
    pid_file = Path(endpoints.data) / "postmaster.pid"
    pid_file.write_text(pid_file.read_text().replace(pid_file.read_text().split()[0], "1"))
    assert not endpoints.has_running_database


def test_server_on_another_port_is_not_used(endpoints: Endpoints) -> None:
    assert not replace(endpoints, port=PORT + 1).has_running_database


@pytest.mark.parametrize("content", ["", "12\n", "x\n" * 8, "\x00"])
def test_damaged_postmaster_pid_file_means_no_server(endpoints: Endpoints, content: str) -> None:
    (Path(endpoints.data) / "postmaster.pid").write_text(content)
    assert not endpoints.has_running_database


def test_endpoints_file_round_trips_and_is_private(endpoints: Endpoints, tmp_path: Path) -> None:
    write_endpoints(tmp_path, endpoints)
    assert read_endpoints(tmp_path) == endpoints
    assert endpoints_file(tmp_path).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [None, "", "[]", "{", '{"database": "x"}', "null"])
def test_missing_or_damaged_endpoints_file_is_ignored(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        endpoints_file(tmp_path).write_text(content)
    assert read_endpoints(tmp_path) is None


def test_copied_folder_has_no_endpoints(endpoints: Endpoints, tmp_path: Path) -> None:
    copy = tmp_path.parent / f"{tmp_path.name}-copy"
    copy.mkdir()
    write_endpoints(copy, endpoints)
    assert read_endpoints(copy) is None
    link = tmp_path.parent / f"{tmp_path.name}-link"
    link.symlink_to(tmp_path)
    write_endpoints(tmp_path, endpoints)
    assert read_endpoints(link) == endpoints


def test_process_without_a_known_start_is_not_running(endpoints: Endpoints) -> None:
    record = {"api": {"process": {"pid": 2**22 + 1, "born": ""}}}
    Path(endpoints.record).write_text(json.dumps(record))
    assert not endpoints.runs("api")
