"""The operating system account that a server runs as; PostgreSQL refuses to run as root."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aspencli.errors import RefusedError

_PREFERRED = ("postgres", "nobody")
_SHELL = "/bin/sh"


@dataclass(frozen=True)
class Account:
    """An operating system account to run a server as.

    Attributes:
        uid: The user ID.
        gid: The group ID.
        name: The account name, for messages.
        switched: True if this is not the account of this process.
    """

    uid: int
    gid: int
    name: str
    switched: bool

    def run_as(self) -> dict[str, Any]:
        """Return the keyword arguments that make ``subprocess`` run a program as this account."""
        if not self.switched:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def give(self, path: Path) -> None:
        """Give this account ownership of a file or folder."""
        if self.switched:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def can_enter(self, folder: Path) -> bool:
        """Return True if this account can enter a folder and every folder above it."""
        if not self.switched:
            return os.access(folder, os.X_OK)
        return self._passes('test -x "$1"', str(folder))

    def can_run(self, program: Path) -> bool:
        """Return True if this account can run a program file."""
        if not self.switched:
            return os.access(program, os.X_OK)
        return self._passes('test -r "$1" && test -x "$1"', str(program))

    def works(self) -> bool:
        """Return True if this process can become this account (a container may not map its ID)."""
        try:
            return self._passes("exit 0")
        except (OSError, subprocess.SubprocessError):
            return False

    def _passes(self, script: str, *arguments: str) -> bool:
        command = [_SHELL, "-c", script, "sh", *arguments]
        done = subprocess.run(command, cwd="/", check=False, **self.run_as())  # noqa: S603 - our own script
        return done.returncode == 0


def passage_mode() -> int:
    """Return the mode for a folder that holds a server's data.

    A server started by root runs as another account, which needs to traverse but not list it.
    """
    return 0o711 if os.geteuid() == 0 else 0o700


def own_account() -> Account:
    """Return the account of this process."""
    return Account(os.geteuid(), os.getegid(), _name(os.geteuid()), switched=False)


def server_account(data: Path) -> Account:
    """Return this process's account or, for root, the owner of the data or an unprivileged account.

    Args:
        data: The data folder, which need not exist yet.

    Raises:
        RefusedError: This process is root, and no other account is usable.
    """
    if os.geteuid() != 0:
        return own_account()
    if data.exists() and data.stat().st_uid != 0:
        owner = data.stat()
        return Account(owner.st_uid, owner.st_gid, _name(owner.st_uid), switched=True)
    for account in _unprivileged():
        if account.works():
            return account
    raise RefusedError(
        "PostgreSQL does not run as root, and there is no other account to run it as",
        hint="Run this as an ordinary user, or add an account named postgres.",
    )


def _unprivileged() -> Iterator[Account]:
    entries = {entry.pw_name: entry for entry in pwd.getpwall() if entry.pw_uid != 0}
    first = [entries[name] for name in _PREFERRED if name in entries]
    for entry in first + [e for name, e in entries.items() if name not in _PREFERRED]:
        yield Account(entry.pw_uid, entry.pw_gid, entry.pw_name, switched=True)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a container may run under a user ID that has no name
        return str(uid)
