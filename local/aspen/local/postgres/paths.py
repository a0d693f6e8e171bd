"""The files of the local PostgreSQL: its port, passwords, data folder, and settings.

The data is in the home folder, or where the account of the server can reach it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from aspen.local import processes
from aspen.local.postgres.binaries import SYSTEM_FOLDER, Binaries, make_passage
from aspen.local.processes import Account, check_owner, making, passage_mode
from aspencli.errors import AspenError, ConflictError
from aspencli.files import make_folder, write_whole
from aspencli.machine import running

ROLES = ("postgres", "user_rw", "user_ro")
"""The database roles, named as in the service's own local deployment."""
SUPERUSER, WRITER, READER = ROLES

_SETTINGS_FILE = "aspencli.conf"
_UNFINISHED = "data.new-"
_BUILTIN_LOCALES = 17  # the first version with its own C.UTF-8
_HAS_NO_INSTRUCTIONS = 14

LAPTOP: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    # Socket paths are limited to about 107 bytes, and the home folder's may be longer.
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    # Nothing replicates from a laptop, so write less WAL.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    # One file per weekday, overwritten each week, so that only a week of messages is kept.
    "logging_collector": "on",
    "log_filename": "postgresql-%a.log",
    "log_truncate_on_rotation": "on",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
    "log_line_prefix": "%m [%p] %q%u@%d %a: ",
}
_ACCESS = f"""\
# Written by aspencli: local connections only, with a password.
host all {",".join(ROLES)} 127.0.0.1/32 scram-sha-256
"""


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
    """The files of one local PostgreSQL, in the folder of a deployment."""

    def __init__(self, home: Path):
        self.folder = home.expanduser().absolute() / "postgres"
        self.lock = self.folder / "lock"
        """The lock file, held while the server is started, stopped, or changed."""
        self.passwords_file = self.folder / "passwords.json"

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
        with making(self.folder, self.folder):
            make_folder(self.folder, passage_mode())
            if self.folder.stat().st_uid == os.geteuid():
                self.folder.chmod(passage_mode())  # folders made by earlier versions, too

    def remembered(self) -> Remembered:
        """Return the values kept since the last start.

        Raises:
            RefusedError: The folder belongs to another user.
        """
        check_owner(self.folder, self.folder)
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
        place = None if account.can_use(self.folder) else str(self._reachable_place(account))
        self.remember(replace(self.remembered(), place=place))

    def _reachable_place(self, account: Account) -> Path:
        name = hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:12]
        place = SYSTEM_FOLDER / name
        make_passage(SYSTEM_FOLDER)
        make_passage(place)
        if not account.can_use(place):
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


def size_of(folder: Path) -> int:
    """Return the total size of all files in a folder, in bytes."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a running server may remove files
            total += path.lstat().st_size
    return total


def server_environment() -> dict[str, str]:
    """Return the environment for the server and initdb, without PG* variables or secrets."""
    return {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C", "LANG": "C"}


def initialize(
    binaries: Binaries, data: Path, account: Account, password: str, *, durable: bool = True
) -> None:
    """Create a data folder; it appears complete or not at all, and on disk if ``durable``."""
    sweep(data)
    unfinished = data.with_name(f"{_UNFINISHED}{secrets.token_hex(6)}")
    make_folder(unfinished)
    account.give(unfinished)
    secret = unfinished.with_name(f"{unfinished.name}.pw")
    try:
        write_for(account, secret, password)
        _run_initdb(binaries, unfinished, secret, account, durable=durable)
    finally:
        secret.unlink(missing_ok=True)
    settings = unfinished / "postgresql.conf"
    line = f"\ninclude_if_exists = '{_SETTINGS_FILE}'  # rewritten at each start\n"
    write_for(account, settings, settings.read_text() + line)
    write_for(account, unfinished / "pg_hba.conf", _ACCESS)
    unfinished.rename(data)


def sweep(data: Path) -> None:
    """Remove what an interrupted start left behind, including its processes."""
    for left in data.parent.glob(f"{_UNFINISHED}*"):
        processes.end(lambda name=str(left): _mentioning(name), patience=0)  # type: ignore[misc]
        if left.is_dir():
            _remove_tree(left)
        else:
            left.unlink(missing_ok=True)


def write_settings(data: Path, account: Account, settings: Mapping[str, str]) -> None:
    """Write the settings for the next start of the server."""
    lines = [f"{name} = {_quoted(value)}\n" for name, value in settings.items()]
    text = "# Written by aspencli at each start.\n" + "".join(lines)
    write_for(account, data / _SETTINGS_FILE, text)


def write_for(account: Account, path: Path, text: str) -> None:
    """Write a file that belongs to the server's account."""
    write_whole(path, text)
    account.give(path)


def _remove_tree(folder: Path) -> None:
    """Remove a folder, to which a child of a killed initdb may still be writing for a moment."""

    def is_gone() -> bool:
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()

    if not processes.wait_until(is_gone, 10):
        raise AspenError(
            f"Cannot remove {folder}, left behind by an interrupted start.",
            hint="Remove it manually, then try again.",
        )


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _mentioning(name: str) -> list[int]:
    return [pid for pid, command in running() if name in command and pid != os.getpid()]


def _run_initdb(
    binaries: Binaries, data: Path, secret: Path, account: Account, *, durable: bool
) -> None:
    done = subprocess.run(  # noqa: S603 - a list, no shell
        _initdb_command(binaries, data, secret, durable=durable),
        cwd="/",
        env=server_environment(),
        capture_output=True,
        text=True,
        check=False,
        **account.run_as(),
    )
    if done.returncode:
        shutil.rmtree(data, ignore_errors=True)
        raise AspenError(
            "Cannot create PostgreSQL's data folder.",
            hint=f"Check the free space and the permissions of {data.parent}.",
            details=done.stderr.strip().splitlines()[-5:],
        )


def _initdb_command(binaries: Binaries, data: Path, secret: Path, *, durable: bool) -> list[str]:
    return [
        binaries.program("initdb"),
        f"--pgdata={data}",
        f"--username={ROLES[0]}",
        f"--pwfile={secret}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        *(["--no-instructions"] if binaries.major >= _HAS_NO_INSTRUCTIONS else []),
        *_locale(binaries),
        *([] if durable else ["--no-sync"]),
    ]


def _locale(binaries: Binaries) -> list[str]:
    if binaries.major >= _BUILTIN_LOCALES:
        return ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    return ["--locale=C.UTF-8" if sys.platform == "linux" else "--locale=C"]
