"""The files of the local PostgreSQL, and the operating system account that its server runs as.

PostgreSQL refuses to run as root. The files are in the home folder, or where that account can reach
them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pwd
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from aspen.local.postgres.binaries import Binaries
from aspencli.errors import AspenError, BadInputError, ConflictError, RefusedError
from aspencli.files import make_folder, write_whole

SYSTEM_FOLDER = Path("/var/lib/aspencli")
"""The folder for the data of root's servers, if their account cannot enter the home folder."""
ROLES = ("postgres", "user_rw", "user_ro")
"""The database roles, named as in the service's own local deployment."""
SUPERUSER, WRITER, READER = ROLES

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
        "PostgreSQL cannot run as root, and there is no other account to run it as.",
        hint="Run this as a regular user, or add an account named postgres.",
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


@dataclass
class Remembered:
    """The values kept from one start to the next.

    Attributes:
        port: The server's port; None before the first start.
        place: The folder that contains the data folder; None if it is next to this file, so that
            the home folder can be moved.
    """

    port: int | None = None
    place: str | None = None


class Places:
    """The files of one local PostgreSQL.

    Args:
        home: The folder of the whole local deployment.
    """

    def __init__(self, home: Path):
        self.folder = home.expanduser().absolute() / "postgres"

    @property
    def lock(self) -> Path:
        """Return the lock file, held while the server is started, stopped, or changed."""
        return self.folder / "lock"

    @property
    def passwords_file(self) -> Path:
        """Return the file with the roles' passwords."""
        return self.folder / "passwords.json"

    @property
    def data(self) -> Path:
        """Return PostgreSQL's data folder."""
        return Path(self.remembered().place or self.folder) / "data"

    def make(self) -> None:
        """Create the folder.

        Raises:
            BadInputError: The folder cannot be created.
            RefusedError: The folder belongs to another user.
        """
        self._check_owner()
        try:
            make_folder(self.folder, passage_mode())
            if self.folder.stat().st_uid == os.geteuid():
                self.folder.chmod(passage_mode())  # folders made by earlier versions, too
        except OSError as error:
            raise BadInputError(
                f"Cannot create the folder {self.folder}: {error.strerror}",
                hint="Set ASPEN_HOME to another folder, or fix the permissions.",
            ) from error

    def remembered(self) -> Remembered:
        """Return the values kept since the last start.

        Raises:
            RefusedError: The folder belongs to another user.
        """
        self._check_owner()
        try:
            return Remembered(**json.loads((self.folder / "state.json").read_text()))
        except FileNotFoundError:
            return Remembered()
        except (ValueError, TypeError) as error:
            raise AspenError(
                f"Damaged file: {self.folder / 'state.json'}",
                hint="Delete the file; a new port is chosen at the next start.",
            ) from error

    def remember(self, remembered: Remembered) -> None:
        """Save values for the next start."""
        write_whole(self.folder / "state.json", json.dumps(asdict(remembered)))

    def settle(self, account: Account) -> None:
        """Choose the place for new data: this folder, or one that the account can reach."""
        place = None if account.can_enter(self.folder) else str(self._reachable_place(account))
        self.remember(replace(self.remembered(), place=place))

    def _check_owner(self) -> None:
        if self.folder.exists() and os.geteuid() not in {0, self.folder.stat().st_uid}:
            raise RefusedError(
                f"The local deployment in {self.folder} belongs to another user.",
                hint="Run the command as that user, or set ASPEN_HOME to a folder of your own.",
            )

    def _reachable_place(self, account: Account) -> Path:
        name = hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:12]
        place = SYSTEM_FOLDER / name
        place.mkdir(parents=True, exist_ok=True)
        for folder in (SYSTEM_FOLDER, place):
            folder.chmod(0o711)
        if not account.can_enter(place):
            raise AspenError(
                f"The account {account.name} cannot access {self.folder} or {place}.",
                hint="Set ASPEN_HOME to a folder that it can access.",
            )
        return place

    def passwords(self, *, make: bool = False) -> dict[str, str]:
        """Return the password of each role, creating them if there are none and ``make`` is set.

        Raises:
            ConflictError: The file is missing or damaged.
        """
        try:
            kept = json.loads(self.passwords_file.read_text())
            return {role: str(kept[role]) for role in ROLES}
        except FileNotFoundError:
            if make:
                made = {role: secrets.token_urlsafe(24) for role in ROLES}
                write_whole(self.passwords_file, json.dumps(made))
                return made
            problem = "is missing"
        except (ValueError, KeyError, TypeError):
            problem = "is damaged"
        raise ConflictError(
            f"The local database's password file {problem}: {self.passwords_file}",
            hint="Restore the file from a backup, or delete the data: aspencli local reset",
        )

    def delete(self) -> bool:
        """Delete everything; return True if there was any data."""
        data = self.data
        existed = data.exists()
        if data.parent != self.folder:
            shutil.rmtree(data.parent, ignore_errors=True)
        for entry in [*self.folder.glob("*")] if self.folder.exists() else []:
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry != self.lock:  # another process may be waiting for it
                entry.unlink(missing_ok=True)
        return existed


def reachable_binaries(
    binaries: Binaries, account: Account, *, root: Path = SYSTEM_FOLDER
) -> Binaries:
    """Return program files that the account can run: the original ones, or a copy made once.

    Raises:
        ConflictError: The account cannot run them, and they are not those of the package, so their
            layout is unknown.
    """
    if account.can_run(binaries.bindir / "postgres"):
        return binaries
    package = binaries.bindir.parent.parent
    if binaries.bindir.parent.name != "pginstall":
        raise ConflictError(
            f"The account {account.name} is not allowed to run {binaries.bindir / 'postgres'}.",
            hint="Install PostgreSQL where every account can run it, such as under /usr.",
        )
    copy = root / f"{package.name}-{binaries.version}"
    if not copy.exists():
        _copy_package(package, copy)
    return Binaries(
        copy / package.name / "pginstall" / "bin",
        binaries.version,
        f"{binaries.source} (copied)",
        binaries.extensions,
    )


def size_of(folder: Path) -> int:
    """Return the total size of all files in a folder, in bytes."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a running server may remove files
            total += path.lstat().st_size
    return total


def _copy_package(package: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.parent.chmod(0o711)
    unfinished = copy.with_name(f"{copy.name}.{secrets.token_hex(4)}")
    ignored = shutil.ignore_patterns("include", "__pycache__", "*.a", "*.py")
    # The programs find their libraries by a relative path, in the folder next to the package.
    for folder in (package, package.with_name(f"{package.name}.libs")):
        if folder.exists():
            shutil.copytree(folder, unfinished / folder.name, ignore=ignored, symlinks=True)
    for folder in [unfinished, *(path for path in unfinished.rglob("*") if path.is_dir())]:
        folder.chmod(0o755)
    try:
        unfinished.rename(copy)
    except OSError:
        if not copy.exists():  # otherwise another process was faster, and its copy is as good
            raise
        shutil.rmtree(unfinished)
