"""The process: state that survives it, files that only the owner can read, and failed starts."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from aspen.local.auth0.store import rotate_key
from tests import zygote
from tests.local.auth0.lab import CLIENT, Identity, running_identity

MEMBER = "member@example.org"


def published(identity: Identity) -> KeySet:
    return KeySet.import_key_set(identity.http.get(".well-known/jwks.json").json())


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return zygote.run_text(arguments, module="aspen.local.auth0", env=os.environ, timeout=60)


@pytest.mark.parametrize("end", [Identity.stop, Identity.kill])
def test_restart_keeps_keys_refresh_tokens_and_device_requests(tmp_path: Path, end: object) -> None:
    with running_identity(tmp_path / "state") as identity:
        tokens, pending = identity.tokens(MEMBER), identity.ask()
        identity.decide(pending["user_code"], MEMBER)
        assert callable(end)
        end(identity)
        identity.start()
        assert jwt.decode(tokens["id_token"], published(identity), ["RS256"]).claims["sub"]
        sent = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
        assert identity.token(**sent).status_code == 200
        assert identity.poll(pending["device_code"]).status_code == 200


def test_killed_identity_provider_restarts_with_intact_state(tmp_path: Path) -> None:
    with running_identity(tmp_path / "state") as identity:
        current = identity.tokens(MEMBER)["refresh_token"]
        for _ in range(3):
            sent = {"client_id": CLIENT, "grant_type": "refresh_token", "refresh_token": current}
            with httpx.Client() as client:
                begun = client.build_request("POST", f"{identity.issuer}oauth/token", data=sent)
                worker = subprocess.Popen(
                    [sys.executable, "-c", _HAMMER, f"{identity.issuer}oauth/device/code"]
                )
                try:
                    current = client.send(begun).raise_for_status().json()["refresh_token"]
                    identity.kill()
                finally:
                    worker.kill()
                    worker.wait()
            identity.start()
        with sqlite3.connect(identity.folder / "identity.sqlite3") as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        db.close()
        sent = {"grant_type": "refresh_token", "refresh_token": current}
        assert identity.token(**sent).status_code == 200


_HAMMER = f"""
import sys, httpx
try:
    while True:
        httpx.post(sys.argv[1], data={{"client_id": {CLIENT!r}}})
except httpx.TransportError:
    pass
"""


def test_sigterm_stops_identity_provider_cleanly(tmp_path: Path) -> None:
    with running_identity(tmp_path / "state") as identity:
        assert identity.stop() == 0
        events = [json.loads(line)["event"] for line in identity.log.splitlines()]
        assert (events[0], events[-1]) == ("provider.started", "provider.stopped")


def test_identity_provider_files_are_accessible_to_owner_only(tmp_path: Path) -> None:
    with running_identity(tmp_path / "state") as identity:
        identity.ask()
        assert stat.S_IMODE(identity.folder.stat().st_mode) == 0o700
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in identity.folder.iterdir()}
        assert "identity.sqlite3-wal" in modes
        assert set(modes.values()) == {0o600}


def test_key_rotation_by_another_process_takes_effect_immediately(tmp_path: Path) -> None:
    with running_identity(tmp_path / "state") as identity:
        old = identity.tokens(MEMBER)["id_token"]
        kid = rotate_key(identity.folder)
        new = identity.tokens(MEMBER)["id_token"]
        keys = published(identity)
        assert jwt.decode(new, keys, ["RS256"]).header["kid"] == kid
        assert jwt.decode(old, keys, ["RS256"]).header["kid"] != kid


def test_requests_with_unknown_host_header_are_refused(tmp_path: Path) -> None:
    with running_identity(tmp_path / "state", "--issuer", "http://identity.test:8080") as identity:

        def status(host: str) -> int:
            return identity.http.get("healthz", headers={"Host": host}).status_code

        assert status("evil.example") == 400
        assert status("localhost:99") == status("identity.test:8080") == 200
        found = identity.http.get(".well-known/openid-configuration").json()
        assert found["issuer"] == "http://identity.test:8080/"


def test_port_in_use_is_conflict(tmp_path: Path) -> None:
    with running_identity(tmp_path / "state") as identity:
        done = run("--port", str(identity.port), "--folder", str(tmp_path / "other"))
        assert done.returncode == 7
        assert f"Port {identity.port} is in use" in done.stderr


def test_state_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    done = run("--port", "1", "--folder", str(file))
    assert (done.returncode, "Cannot open the identity provider's data" in done.stderr) == (2, True)


def test_damaged_or_other_version_state_is_refused(tmp_path: Path) -> None:
    (tmp_path / "identity.sqlite3").write_text("this is no database, and long enough to tell so")
    done = run("--port", "1", "--folder", str(tmp_path))
    assert (done.returncode, "local reset" in done.stderr) == (2, True)
    (tmp_path / "identity.sqlite3").unlink()
    with sqlite3.connect(tmp_path / "identity.sqlite3") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    done = run("--port", "1", "--folder", str(tmp_path))
    assert (done.returncode, "another version" in done.stderr) == (2, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_state_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    done = run("--port", "1", "--folder", str(tmp_path))
    assert (done.returncode, "belongs to another user" in done.stderr) == (3, True)


@pytest.mark.parametrize(
    "wrong",
    [
        ["--port", "0"],
        ["--port", "65536"],
        ["--dialect", "latin"],
        ["--rate", "0"],
        ["--burst", "0"],
        ["--issuer", "no address"],
    ],
)
def test_invalid_option_is_named_in_usage_error(tmp_path: Path, wrong: list[str]) -> None:
    done = run("--port", "1", "--folder", str(tmp_path), *wrong)
    assert (done.returncode, wrong[0] in done.stderr) == (2, True)
