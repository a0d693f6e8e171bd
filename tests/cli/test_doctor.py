"""`aspencli doctor`."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from aspen.database.engine import Database
from aspencli.cli.completion.scripts import SCRIPTS, installed_file
from tests.conftest import CliRunner, cli_environment

CHECKS = [
    *("installation", "extra local", "extra workflows", "program psql", "program ssh"),
    *("program session-manager-plugin", "program npm", "program iqtree2"),
    *("program nextclade", "program pangolin"),
    *("keyring", "network", "config file", "folder config", "folder data", "folder state"),
    *("folder cache", "completion", "target local", "target rdev", "target staging"),
    "target prod",
]
NOWHERE = "http://127.0.0.1:9"
NO_TARGETS = {f"ASPEN_API_URL_{name}": NOWHERE for name in ("STAGING", "PROD")}


class _Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"healthy": true}' if self.path == "/v2/health/" else b"{}"
        self.send_response(200 if "Authorization" not in self.headers else 500)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: Any) -> None:
        """Print nothing."""


@pytest.fixture
def api() -> Iterator[str]:
    """Return the address of an API that is healthy."""
    server = HTTPServer(("127.0.0.1", 0), _Healthy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class Doctor:
    """Runs the command, and returns the rows by check."""

    def __init__(self, run_cli: CliRunner):
        self._run_cli = run_cli

    def __call__(self, *words: str, code: int = 0, **env: str) -> dict[str, dict[str, str | None]]:
        done = self._run_cli("doctor", "-o", "json", *words, env={**NO_TARGETS, **env})
        assert done.code == code, done.err
        return {row["check"]: row for row in json.loads(done.out)}


@pytest.fixture
def doctor(run_cli: CliRunner) -> Doctor:
    return Doctor(run_cli)


def test_every_check_has_one_line_and_nothing_is_written(doctor: Doctor, aspen_home: Path) -> None:
    found = doctor()
    assert list(found) == CHECKS
    assert {row["state"] for row in found.values()} <= {"ok", "note", "warning"}
    assert all(row["step"] for row in found.values() if row["state"] != "ok")
    assert not aspen_home.exists()


def test_table_has_state_finding_and_next_step(run_cli: CliRunner) -> None:
    done = run_cli("doctor", "-o", "table", env=NO_TARGETS)
    assert done.code == 0
    lines = done.out.splitlines()
    assert any(line.startswith("ok       config file ") for line in lines)
    at = next(n for n, line in enumerate(lines) if line.startswith("warning  target local "))
    assert lines[at + 1].strip() == "aspencli local up"
    assert "warnings" in done.err


def test_invalid_config_file_fails_and_other_checks_run(doctor: Doctor, aspen_home: Path) -> None:
    (aspen_home / "config").mkdir(parents=True)
    (aspen_home / "config" / "config.toml").write_text('[defaults]\noutptu = "json"\n')
    found = doctor(code=1)
    assert found["config file"]["state"] == "failed"
    assert "outptu (did you mean output?)" in str(found["config file"]["found"])
    assert found["folder config"]["check"] == "folder config"


def test_unknown_default_target_fails(doctor: Doctor) -> None:
    found = doctor(code=1, ASPEN_ENV="nowhere")
    assert "the target 'nowhere' is unknown" in str(found["config file"]["found"])


def test_folder_open_to_others_is_a_warning(doctor: Doctor, aspen_home: Path) -> None:
    folder = aspen_home / "state"
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    row = doctor()["folder state"]
    assert (row["state"], "mode 0755" in str(row["found"])) == ("warning", True)
    assert f"chmod 700 '{folder}'" in str(row["step"])
    doctor("--strict", code=1)
    folder.chmod(0o711)  # PostgreSQL's account passes through the data folder
    assert doctor()["folder state"]["state"] == "ok"


def test_targets_are_reached_without_sign_in(doctor: Doctor, api: str, seeded: Database) -> None:
    address = cli_environment(seeded)["ASPEN_DATABASE_URL_LOCAL"]
    row = doctor(ASPEN_API_URL_STAGING=api, ASPEN_DATABASE_URL_STAGING=address)["target staging"]
    assert row["state"] == "ok"
    assert f"API: {api} answers" in str(row["found"])
    assert f"database: {seeded.url.host}:{seeded.url.port} answers" in str(row["found"])


@pytest.mark.parametrize("port", ["abc", "99999", "0"])
def test_invalid_port_is_named(doctor: Doctor, port: str) -> None:
    address = f"postgresql://u@127.0.0.1:{port}/d"
    row = doctor(ASPEN_DATABASE_URL_STAGING=address)["target staging"]
    assert f"database: invalid port '{port}' in its address" in str(row["found"])


def test_unreachable_target_fails_only_if_chosen(doctor: Doctor) -> None:
    row = doctor()["target staging"]
    assert (row["state"], NOWHERE in str(row["found"])) == ("warning", True)
    row = doctor("--env", "staging", code=1)["target staging"]
    assert row["state"] == "failed"


def test_target_that_does_not_answer_is_given_up(doctor: Doctor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        row = doctor(ASPEN_API_URL_STAGING=f"http://127.0.0.1:{port}")["target staging"]
    assert row["state"] == "warning"


def test_unusable_proxy_and_missing_certificates_fail(doctor: Doctor) -> None:
    row = doctor(code=1, HTTPS_PROXY="ftp://u:secret@proxy")["network"]
    assert row["state"] == "failed"
    assert "secret" not in json.dumps(row)
    row = doctor(code=1, SSL_CERT_FILE="/nowhere.pem")["network"]
    assert "SSL_CERT_FILE names /nowhere.pem, which does not exist" in str(row["found"])


@pytest.mark.parametrize("shell", SCRIPTS)
def test_completion_is_missing_older_or_current(doctor: Doctor, shell: str, tmp_path: Path) -> None:
    env = {"SHELL": f"/usr/bin/{shell}", "HOME": str(tmp_path)}
    row = doctor(code=0, **env)["completion"]
    assert (row["state"], row["step"]) == ("note", f"aspencli completion {shell} --install")
    path = installed_file(shell, tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text("# older")
    assert doctor(code=0, **env)["completion"]["state"] == "warning"
    path.write_text(SCRIPTS[shell])
    assert doctor(code=0, **env)["completion"]["state"] == "ok"
