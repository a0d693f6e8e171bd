"""A provider, a service that trusts it, and commands that sign in to both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from aspencli.auth.session import SignInTarget, read_token
from aspencli.auth.store import SERVICE, KeyringBox, Store
from tests import zygote
from tests.api.conftest import serving as serving_app
from tests.api.conftest import settings_for
from tests.conftest import CliResult, Server
from tests.local.auth0.fixtures import identity, identity_process
from tests.local.auth0.lab import CLIENT, Identity
from tests.remote.conftest import serving

__all__ = ["identity", "identity_process", "serving"]

KEYRING = """
import fcntl, json, os
from contextlib import contextmanager
from pathlib import Path
from keyring.backend import KeyringBackend


class Keyring(KeyringBackend):
    \"\"\"A keyring in a file, that keeps what it is given, as the real ones do.\"\"\"

    priority = 1
    path = Path(os.environ["KEYRING_FILE"])

    def _all(self):
        return json.loads(self.path.read_text()) if self.path.exists() else {}

    @contextmanager
    def _changing(self):
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            entries = self._all()
            yield entries
            part = self.path.with_suffix(".part")
            part.write_text(json.dumps(entries))
            part.replace(self.path)

    def get_password(self, service, username):
        return self._all().get(f"{service}/{username}")

    def set_password(self, service, username, password):
        with self._changing() as entries:
            entries[f"{service}/{username}"] = password

    def delete_password(self, service, username):
        with self._changing() as entries:
            del entries[f"{service}/{username}"]
"""
_PATIENCE_S = 120


class _KeptKeyring(KeyringBox):
    """The keyring of the commands, for the tests' own process."""

    def __init__(self, path: Path):
        super().__init__()
        self._path = path

    def get(self, key: str) -> str | None:
        return self._all().get(f"{SERVICE}/{key}")

    def put(self, key: str, secret: str) -> None:
        self._path.write_text(json.dumps({**self._all(), f"{SERVICE}/{key}": secret}))

    def _all(self) -> dict[str, str]:
        return dict(json.loads(self._path.read_text())) if self._path.exists() else {}


@dataclass
class Lab:
    """A runner of commands against a provider and a service.

    Attributes:
        identity: The provider.
        api_url: The service's address.
        env: The variables that make ``mylab`` the target of the commands.
        home: The commands' home directory.
        began: The length of the provider's log when the test began.
    """

    identity: Identity
    api_url: str
    env: dict[str, str]
    home: Path
    began: int = 0

    def run(
        self, *arguments: str, env: Mapping[str, str | None] | None = None, timeout: float = 180
    ) -> CliResult:
        """Run a command to its end."""
        done = zygote.run_text(arguments, env=self.environment(env), timeout=timeout)
        return CliResult(done.returncode, done.stdout, done.stderr)

    def start(
        self, *arguments: str, env: Mapping[str, str | None] | None = None
    ) -> subprocess.Popen[str]:
        """Start a command."""
        return zygote.start(
            arguments,
            env=self.environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def events(self, name: str) -> int:
        """Return how often the provider has logged an event since the test began."""
        log = self.identity.log[self.began :]
        return sum(json.loads(line).get("event") == name for line in log.splitlines())

    def kept(self) -> dict[str, Any]:
        """Return the contents of the keyring."""
        path = Path(self.env["KEYRING_FILE"])
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "aspencli", *arguments]

    def environment(self, changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
        """Return the environment of a command; None removes a variable."""
        wanted = {**os.environ, **self.env, **(changes or {})}
        return {name: value for name, value in wanted.items() if value is not None}

    def login(
        self,
        email: str = "member@example.org",
        *arguments: str,
        approve: bool = True,
        env: Mapping[str, str | None] | None = None,
    ) -> CliResult:
        """Sign in, with a user on the page who approves or denies it."""
        process = self.start("auth", "login", *arguments, env=env)
        lines = self.until(process, "shows the code")
        self.identity.decide(lines[-1].split()[-1], email, approve=approve)
        out, err = process.communicate(timeout=_PATIENCE_S)
        return CliResult(process.returncode, out, "".join(lines) + err)

    def keep(self, email: str, name: str | None = None, target: str = "mylab") -> None:
        """Store a sign-in as a login of an account does; the account becomes the active one."""
        granted = self.identity.tokens(email)
        found, issuer, (client,) = read_token(granted["id_token"])
        place = SignInTarget(target, self.api_url, issuer, client)
        box = _KeptKeyring(Path(self.env["KEYRING_FILE"]))
        store = Store(self.home / "state" / "sign-ins", place, box)
        found = replace(found, refresh_token=granted["refresh_token"])
        with store.lock():
            store.replace(found, "keyring", name=name)

    def until(self, process: subprocess.Popen[str], words: str) -> list[str]:
        """Return the output of a process up to the line with the given words."""
        assert process.stderr is not None
        timer = threading.Timer(_PATIENCE_S, process.kill)
        timer.start()
        lines = []
        for line in process.stderr:
            lines.append(line)
            if words in line:
                timer.cancel()
                return lines
        timer.cancel()
        raise AssertionError(f"it ended before it said {words!r}: {''.join(lines)}")


@pytest.fixture(scope="module")
def service(identity_process: Identity, postgres: Server, _seeded_template: str) -> Iterator[str]:
    """Yield the address of a service that trusts the provider; its database is read-only."""
    with postgres.cloned(_seeded_template) as database:
        issuer = identity_process.issuer.rstrip("/")
        with serving_app(lambda url: settings_for(database, issuer, url)) as settings:
            yield settings.api_url


@pytest.fixture
def lab(identity: Identity, service: str, aspen_home: Path, tmp_path: Path) -> Lab:
    """Return a lab with a provider, a service, and a working keyring."""
    identity.turn(interval=1)
    (tmp_path / "testkeyring.py").write_text(KEYRING)
    (tmp_path / "config.toml").write_text(
        f'[targets.mylab]\nsafety = "shared"\napi_url = "{service}"\n'
        f'auth_url = "{identity.issuer.rstrip("/")}"\nauth_client_id = "{CLIENT}"\n'
    )
    env = {
        "ASPEN_ENV": "mylab",
        "ASPEN_CONFIG": str(tmp_path / "config.toml"),
        "PYTHONPATH": str(tmp_path),
        "PYTHON_KEYRING_BACKEND": "testkeyring.Keyring",
        "KEYRING_FILE": str(tmp_path / "keyring.json"),
    }
    return Lab(identity, service, env, aspen_home, len(identity.log))
