"""Tunnels leave nothing behind, however their user ends."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests import zygote
from tests.deployments.conftest import BASTION, descendants

if TYPE_CHECKING:
    from tests.deployments.conftest import Deployment

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


def ours() -> list[str]:
    """Return the ssh processes that a tunnel has started."""
    found = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True)
    return [
        line for line in found.stdout.splitlines() if f"-- {BASTION}" in line and " -W " in line
    ]


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
        _wait(lambda: not ours())
        _wait(lambda: not deployment.sessions())
        assert descendants(process.pid) == []


def _wait(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, condition
        time.sleep(0.05)
