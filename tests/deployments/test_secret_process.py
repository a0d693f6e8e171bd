"""The process that reads a secret behaves as if the command read it itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pexpect
import pytest

from aspencli.__main__ import _may_need_secret
from aspencli.config import Safety, Target
from aspencli.deployments.aws import Aws
from tests import zygote
from tests.deployments.rig import PASSWORD, descendants

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.deployments.rig import Deployment

_PATIENCE_S = 30.0
_LIST = ("--env", "staging", "pathogens", "list", "--via", "db")
_WITH_CODE = """
[profile genepi-dev]
region = us-west-2
role_arn = arn:aws:iam::123456789012:role/operator
source_profile = genepi-prod
mfa_serial = arn:aws:iam::123456789012:mfa/operator
endpoint_url = {aws}
[profile genepi-prod]
region = us-west-2
endpoint_url = {aws}
"""


def test_code_for_role_is_asked_on_the_terminal(deployment: Deployment) -> None:
    command = _asked_for_code(deployment)
    command.sendline("123456")
    command.expect("SC2")
    command.expect(pexpect.EOF)
    command.close()
    assert command.exitstatus == 0


def test_interrupt_at_the_code_restores_the_terminal(deployment: Deployment) -> None:
    command = _asked_for_code(deployment)
    readers = descendants(command.pid)
    assert readers
    command.sendintr()
    command.expect_exact("Interrupted")
    command.expect(pexpect.EOF)
    assert command.getecho()
    command.close()
    assert command.exitstatus == 130
    assert not [pid for pid in readers if _runs(pid)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_process_ends_with_its_command(
    deployment: Deployment, tmp_path: Path, number: signal.Signals
) -> None:
    started = tmp_path / "started"
    helper = tmp_path / "helper"
    helper.write_text(f"#!/bin/sh\necho $$ $PPID > {started}.new\nmv {started}.new {started}\n")
    helper.write_text(helper.read_text() + "exec sleep 20\n")
    helper.chmod(0o755)
    Path(deployment.environment["AWS_CONFIG_FILE"]).write_text(
        f"[profile genepi-dev]\nregion = us-west-2\ncredential_process = {helper}\n"
    )
    Path(deployment.environment["AWS_SHARED_CREDENTIALS_FILE"]).write_text("")
    command = zygote.start(
        _LIST, env=deployment.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _wait(started.exists)
    helper_pid, reader = map(int, started.read_text().split())
    assert reader != command.pid
    command.send_signal(number)
    command.wait(_PATIENCE_S)
    _wait(lambda: not _runs(reader))
    if _runs(helper_pid):
        os.kill(helper_pid, 9)


@pytest.mark.parametrize(
    ("words", "is_needed"),
    [
        ("--env staging db psql", True),
        ("--env=prod db interact -c 1", True),
        ("db status --env rdev --stack x", True),
        ("--env staging samples list --via db", True),
        ("--env staging samples list --via=db", True),
        ("--env staging samples list", False),
        ("--env local db psql", False),
        ("db psql", False),
        ("--env staging db psql --help", False),
        ("", False),
    ],
)
def test_process_is_started_early_only_for_a_remote_database(words: str, is_needed: bool) -> None:
    assert _may_need_secret(words.split()) is is_needed


def test_command_without_secret_ends_the_early_process(
    deployment: Deployment, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[targets.staging]\ndatabase_url = 'postgresql://u:p@127.0.0.1:1/d'\n")
    command = subprocess.Popen(
        [sys.executable, "-m", "aspencli", "--env", "staging", "db", "status"],
        env={**deployment.environment, "ASPEN_CONFIG": str(config)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    started: set[int] = set()
    while command.poll() is None:
        started |= {pid for pid in descendants(command.pid) if "secret_process" in _words(pid)}
        time.sleep(0.005)
    assert command.returncode == 5
    assert started
    _wait(lambda: not any(map(_runs, started)))


def _words(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


@pytest.fixture(autouse=True)
def new_processes(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the process that reads the secret as for an operator, not by a fork."""
    monkeypatch.setitem(deployment.environment, zygote.FRESH, "1")


def test_secret_is_in_no_argument_or_variable(deployment: Deployment) -> None:
    seen: set[str] = set()
    command = zygote.start(
        _LIST, env=deployment.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    readers = 0
    while command.poll() is None:
        for pid in descendants(command.pid):
            for name in ("cmdline", "environ"):
                try:
                    text = Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace")
                except OSError:
                    continue
                readers += "secret_process" in text
                seen.add(text)
    assert command.returncode == 0
    assert readers
    assert not [text for text in seen if PASSWORD in text]


def test_secret_is_read_here_if_no_process_can_be_started(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    target = _staging(deployment, monkeypatch)
    for program in ("/bin/false", str(tmp_path / "missing")):
        with ExitStack() as exits, monkeypatch.context() as patch:
            patch.setattr(sys, "executable", program)
            aws = Aws(target, interactive=False)
            aws.begin_reading_secret(exits)
            assert aws.secret.require("DB_ro_password") == PASSWORD


def test_long_work_without_a_terminal_is_not_taken_for_missing_credentials(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aspencli.deployments.aws._PATIENCE_S", 0.5)
    aws = Aws(_staging(deployment, monkeypatch), interactive=False)

    def work(client: Any) -> str:
        time.sleep(1)  # such as the download of a large file
        return str(client.get_caller_identity()["Account"])

    assert aws.use("ask AWS who you are", "sts", work) == "123456789012"


def _staging(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> Target:
    """Return a target, whose credentials are in this process's environment."""
    for name, value in deployment.environment.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    return Target(
        "staging",
        Safety.SHARED,
        secret_name="gestaging/genepi-config",
        aws_profile="genepi-dev",
        aws_region="us-west-2",
        aws_endpoint_url=deployment.aws,
    )


def _asked_for_code(deployment: Deployment) -> pexpect.spawn[str]:
    """Run the list on a terminal, until AWS's code is asked for."""
    config = Path(deployment.environment["AWS_CONFIG_FILE"])
    config.write_text(_WITH_CODE.format(aws=deployment.aws))
    command = pexpect.spawn(
        sys.executable,
        ["-m", "aspencli", *_LIST],
        env={**deployment.environment, "TERM": "dumb"},
        encoding="utf-8",
        timeout=_PATIENCE_S,
        echo=True,
    )
    command.expect("Enter MFA code for [^ ]+: ?")
    _wait(lambda: not command.getecho())
    return command


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _wait(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)
