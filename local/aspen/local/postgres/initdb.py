"""New PostgreSQL data folders, and the settings of a server that shares a laptop."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from aspen.local import processes
from aspen.local.postgres.binaries import Binaries
from aspen.local.postgres.paths import ROLES, Account
from aspencli.errors import AspenError
from aspencli.files import make_folder, write_whole
from aspencli.machine import running

SETTINGS_FILE = "aspencli.conf"
_UNFINISHED = "data.new-"
_BUILTIN_LOCALES = 17  # the first version with its own C.UTF-8

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


def server_environment() -> dict[str, str]:
    """Return the environment for the server and initdb, without PG* variables or secrets."""
    return {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C", "LANG": "C"}


def initialize(
    binaries: Binaries, data: Path, account: Account, password: str, *, durable: bool = True
) -> None:
    """Create a data folder; it appears complete or not at all.

    Args:
        binaries: The PostgreSQL to create it with.
        data: The folder, which must not exist.
        account: The account that the server will run as.
        password: The superuser's password.
        durable: True to wait until everything is on disk.
    """
    sweep(data)
    unfinished = data.with_name(f"{_UNFINISHED}{secrets.token_hex(6)}")
    make_folder(unfinished)
    account.give(unfinished)
    secret = unfinished.with_name(f"{unfinished.name}.pw")
    try:
        _write_secret(secret, password, account)
        _run_initdb(binaries, unfinished, secret, account, durable=durable)
    finally:
        secret.unlink(missing_ok=True)
    settings = unfinished / "postgresql.conf"
    line = f"\ninclude_if_exists = '{SETTINGS_FILE}'  # rewritten at each start\n"
    write_whole(settings, settings.read_text() + line)
    account.give(settings)
    write_whole(unfinished / "pg_hba.conf", _ACCESS)
    account.give(unfinished / "pg_hba.conf")
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
    path = data / SETTINGS_FILE
    write_whole(path, "# Written by aspencli at each start.\n" + "".join(lines))
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


def _write_secret(path: Path, password: str, account: Account) -> None:
    write_whole(path, password)
    account.give(path)


_HAS_NO_INSTRUCTIONS = 14


def _run_initdb(
    binaries: Binaries, data: Path, secret: Path, account: Account, *, durable: bool
) -> None:
    command = [
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
    done = subprocess.run(  # noqa: S603 - a list, no shell
        command,
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


def _locale(binaries: Binaries) -> list[str]:
    if binaries.major >= _BUILTIN_LOCALES:
        return ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    return ["--locale=C.UTF-8" if sys.platform == "linux" else "--locale=C"]
