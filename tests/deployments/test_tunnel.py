"""Tunnels leave nothing behind, however their user ends."""

from __future__ import annotations

import contextlib
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pexpect
import pytest

from tests import zygote
from tests.deployments.rig import BASTION, PASSWORD, descendants

if TYPE_CHECKING:
    from tests.deployments.rig import Deployment

_PATIENCE_S = 60.0
_SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGHUP)
_USERS = {
    "console": ("db", "interact", "-c", "session.execute(sa.text('SELECT pg_sleep(60)'))"),
    "psql": ("db", "psql", "-c", "SELECT pg_sleep(60)"),
    "tunnel": ("db", "tunnel", "--", "psql", "-c", "SELECT pg_sleep(60)"),
}


@pytest.fixture(params=["no", "auto", "persist"])
def deployment_with_master(
    deployment: Deployment, request: pytest.FixtureRequest
) -> Iterator[Deployment]:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        control = f"ControlPath {short}/%C"
        options = {
            "no": (),
            "auto": ("ControlMaster auto", control),
            "persist": ("ControlMaster auto", control, "ControlPersist 60"),
        }
        yield deployment.with_ssh(*options[request.param])
        ssh = deployment.environment["PATH"].partition(os.pathsep)[0] + "/ssh"
        subprocess.run([ssh, "-O", "exit", BASTION], check=False, capture_output=True)


@pytest.mark.parametrize("user", _USERS)
def test_nothing_is_left_after_any_end(deployment_with_master: Deployment, user: str) -> None:
    deployment = deployment_with_master
    for number in _SIGNALS:
        process = zygote.start(
            ["--env", "staging", *_USERS[user]],
            env=deployment.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )
        _wait(lambda: any("pg_sleep" in one[3] for one in deployment.sessions()))
        time.sleep(random.random() / 5)
        process.send_signal(number)
        process.wait(timeout=_PATIENCE_S)
        _wait(lambda: not deployment.bastion.forwarding())
        _wait(lambda: not deployment.sessions())
        assert descendants(process.pid) == []


def test_psql_on_a_terminal_behaves_as_without_a_tunnel(
    deployment_with_master: Deployment,
) -> None:
    deployment = deployment_with_master
    shell = pexpect.spawn(
        "bash",
        ["--norc", "-i"],
        env={**deployment.environment, "PS1": "ready$ ", "PSQLRC": "/dev/null"},
        encoding="utf-8",
        timeout=60,
        echo=False,
    )
    shell.expect_exact("ready$ ")
    command = [sys.executable, "-m", "aspencli", "--env", "staging", "db", "psql"]
    shell.sendline(f"{shlex.join(command)} -- -X")
    shell.expect_exact("staging aspen_db=> ")
    shell.sendline(r"SELECT pg_backend_pid() AS pid \gset")
    shell.expect_exact("staging aspen_db=> ")
    shell.sendline("SELECT pg_sleep(60);")
    _wait(lambda: any("pg_sleep(60)" in one[3] for one in deployment.sessions()))
    shell.sendintr()
    shell.expect_exact("canceling statement due to user request")
    shell.expect_exact("staging aspen_db=> ")
    shell.sendline("SELECT pg_backend_pid() = :pid AS is_same;")
    shell.expect(r"is_same.*\bt\b")
    shell.expect_exact("staging aspen_db=> ")
    shell.sendcontrol("z")
    shell.expect_exact("ready$ ")
    shell.sendline("fg")
    time.sleep(0.5)  # psql prints no prompt when it continues
    shell.sendline("SELECT 41 + 2;")
    shell.expect(r"\b43\b")
    shell.sendline("\\q")
    shell.expect_exact("ready$ ")
    shell.sendline("echo code $?")
    shell.expect_exact("code 0")
    shell.close(force=True)
    _wait(lambda: not deployment.bastion.forwarding())


@pytest.mark.parametrize("is_slow", [True, False], ids=["slow", "at_once"])
def test_operator_is_reminded_while_ssh_waits_for_a_key(
    deployment: Deployment, tmp_path: Path, is_slow: bool
) -> None:
    own, _, rest = deployment.environment["PATH"].partition(os.pathsep)
    programs = tmp_path / "slow"
    programs.mkdir()
    (programs / "ssh").write_text(
        f'#!/bin/sh\ncase "$*" in *" -W "*) sleep {5 * is_slow} ;; esac\nexec {own}/ssh "$@"\n'
    )
    (programs / "ssh").chmod(0o755)
    path = os.pathsep.join((str(programs), own, rest))
    shell = pexpect.spawn(
        sys.executable,
        ["-m", "aspencli", "--env", "staging", "db", "psql", "-c", "SELECT pg_sleep(4), 'shown'"],
        env={**deployment.environment, "PATH": path, "PSQLRC": "/dev/null"},
        encoding="utf-8",
        timeout=60,
        dimensions=(24, 140),
    )
    shell.expect_exact("shown")
    said = "Waiting for ssh to sign in to the bastion" in shell.before
    shell.expect(pexpect.EOF)
    shell.close()
    assert (shell.exitstatus, said) == (0, is_slow), shell.before


@pytest.mark.parametrize(
    ("words", "stdin", "code"),
    [
        (("--", "-f", "FILE"), None, 0),
        ((), "SELECT 1/0;", 3),
        (("-c", "SELECT 1/0"), None, 1),
        ((), "SELECT 'from stdin';", 0),
    ],
)
def test_psql_exit_code_files_and_stdin_through_tunnel(
    deployment: Deployment, words: tuple[str, ...], stdin: str | None, code: int
) -> None:
    script = deployment.folder / "script.sql"
    script.write_text("SELECT 'from a file';\n")
    given = [str(script) if word == "FILE" else word for word in words]
    done = deployment.run("--env", "staging", "db", "psql", *given, input=stdin)
    assert done.code == code, done.err
    if not code:
        assert "from" in done.out


def test_statement_survives_bastion_that_stops_for_a_while(deployment: Deployment) -> None:
    process = zygote.start(
        [
            *("--env", "staging", "db", "interact", "-c"),
            "print(session.scalar(sa.text('SELECT 42 FROM pg_sleep(3)')))",
        ],
        env=deployment.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _wait(lambda: any("pg_sleep" in one[3] for one in deployment.sessions()))
    deployment.bastion.pause(10)
    out, err = process.communicate(timeout=_PATIENCE_S)
    assert (process.returncode, out) == (0, "42\n"), err


@pytest.mark.parametrize(
    "write", [[], ["--write", "--yes", "--reason", "x"]], ids=["reading", "writing"]
)
def test_server_watches_for_the_end_of_programs_in_a_tunnel(
    deployment: Deployment, write: list[str]
) -> None:
    asked = ("psql", "-At", "-c", "SHOW client_connection_check_interval")
    done = deployment.run("--env", "staging", "db", "tunnel", *write, "--", *asked)
    assert (done.code, done.out) == (0, "1s\n"), done.err


def test_password_is_in_no_command_line(deployment: Deployment) -> None:
    process = zygote.start(
        ["--env", "staging", *_USERS["tunnel"]],
        env=deployment.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _wait(lambda: any("pg_sleep" in one[3] for one in deployment.sessions()))
    lines = [_command_line(path) for path in Path("/proc").glob("[0-9]*/cmdline")]
    process.kill()
    process.wait()
    assert any(b"pg_sleep" in line for line in lines)
    assert not any(PASSWORD[:8].encode() in line for line in lines)


def _command_line(path: Path) -> bytes:
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""


def _wait(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, condition
        time.sleep(0.05)
