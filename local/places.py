"""The files of the local PostgreSQL: in the home folder, or where its account can reach them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from aspencli.errors import AspenError, BadInputError, ConflictError, RefusedError
from aspencli.files import make_folder, write_whole
from local.account import Account, passage_mode
from local.binaries import Binaries

SYSTEM_FOLDER = Path("/var/lib/aspencli")
"""The folder for the data of root's servers, if their account cannot enter the home folder."""
ROLES = ("postgres", "user_rw", "user_ro")
"""The database roles, named as in the service's own local deployment."""
SUPERUSER, WRITER, READER = ROLES


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
                f"the folder {self.folder} cannot be made: {error.strerror}",
                hint="Name another home with ASPEN_HOME, or mend the permissions.",
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
                f"{self.folder / 'state.json'} is damaged",
                hint="Delete that file; the port is chosen anew at the next start.",
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
                f"the local deployment in {self.folder} belongs to another user",
                hint="Run the command as that user, or name a home of your own with ASPEN_HOME.",
            )

    def _reachable_place(self, account: Account) -> Path:
        name = hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:12]
        place = SYSTEM_FOLDER / name
        place.mkdir(parents=True, exist_ok=True)
        for folder in (SYSTEM_FOLDER, place):
            folder.chmod(0o711)
        if not account.can_enter(place):
            raise AspenError(
                f"the account {account.name} can reach neither {self.folder} nor {place}",
                hint="Name a home that it can reach with ASPEN_HOME.",
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
            f"the passwords of the local database are lost: {self.passwords_file} {problem}",
            hint="Put the file back from a backup, or give the data up: 'aspencli local reset'.",
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
            f"the account {account.name} may not run {binaries.bindir / 'postgres'}",
            hint="Install PostgreSQL where every account can reach it, such as below /usr.",
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
