"""Changes of stored accounts that end in the middle: the old state or the new one is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.auth.conftest import KEYRING, Lab
from tests.auth.steps import INTERRUPTED, OPERATIONS

ROOT = Path(__file__).parents[2]


def _states(folder: Path, operation: str, how: str) -> list[dict[str, Any]]:
    (folder / "testkeyring.py").write_text(KEYRING)
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
        "PYTHON_KEYRING_BACKEND": "testkeyring.Keyring",
        "KEYRING_FILE": str(folder / "none.keyring"),
    }
    words = [sys.executable, "-m", "tests.auth.steps", str(folder), operation, how]
    done = subprocess.run(
        words, env=env, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("how", ["kill", "interrupt"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_change_that_ends_at_any_step_leaves_old_or_new_accounts(
    tmp_path: Path, operation: str, how: str
) -> None:
    before, *ended, after = _states(tmp_path, operation, how)
    expected = -signal.SIGKILL if how == "kill" else INTERRUPTED
    assert {state["code"] for state in ended} == {expected}
    assert len(ended) > 2
    assert after["code"] == 0
    wanted = [{key: state[key] for key in ("accounts", "active")} for state in (before, after)]
    assert wanted[0] != wanted[1]
    for state in (before, *ended, after):
        assert {key: state[key] for key in ("accounts", "active")} in wanted
        assert state["stray"] == []  # the next change deletes secrets that no account uses
        for account in state["accounts"].values():
            assert account["sign_in"]["subject"] == account["subject"]


def test_killed_login_leaves_accounts_unchanged(lab: Lab) -> None:
    assert lab.login("member@example.org").code == 0
    before = lab.kept()
    for number in (signal.SIGKILL, signal.SIGINT):
        process = lab.start("auth", "login", "--as", "admin")
        lab.until(process, "shows the code")
        process.send_signal(number)
        process.communicate(timeout=120)
        assert process.returncode in {-signal.SIGKILL, INTERRUPTED}
        assert lab.kept() == before
        assert lab.run("auth", "status").code == 0
    assert lab.login("gadmin@example.org", "--as", "admin").code == 0
    assert len(lab.kept()) == 2
