"""The deployment's own files, beside those of its parts: ports, records, logs, and locks."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

from aspencli.errors import AspenError, BadInputError, RefusedError
from aspencli.files import make_folder, write_whole
from local.account import passage_mode
from local.locking import file_lock
from local.ports import SERVICES_FIRST, free_port, is_free
from local.services import Service


class State:
    """The files of a deployment that do not belong to a part.

    Args:
        home: The folder of the whole deployment.
    """

    def __init__(self, home: Path):
        self.home = home.expanduser().absolute()
        self.folder = self.home / "supervisor"

    @property
    def record(self) -> Path:
        """Return the file with the supervisor's record of the parts."""
        return self.folder / "record.json"

    @property
    def alive(self) -> Path:
        """Return the file that the supervisor locks for as long as it is alive."""
        return self.folder / "alive"

    @property
    def filling(self) -> Path:
        """Return the marker file that exists while test data is added to the database."""
        return self.folder / "filling"

    def log(self, part: str) -> Path:
        """Return the log file of a part, or of the ``supervisor``."""
        return self.folder / "logs" / f"{part}.log"

    def part(self, name: str) -> Path:
        """Return the folder of a part."""
        return self.home / name

    def make(self) -> None:
        """Create the folders.

        Raises:
            BadInputError: The folders cannot be created.
            RefusedError: The folders belong to another user.
        """
        self.check_owner()
        try:
            make_folder(self.home, passage_mode())
            make_folder(self.log("").parent)
        except OSError as error:
            raise BadInputError(
                f"the folder {self.folder} cannot be made: {error.strerror}",
                hint="Name another home with ASPEN_HOME, or mend the permissions.",
            ) from error

    def check_owner(self) -> None:
        """Check that the deployment does not belong to another user.

        Raises:
            RefusedError: It belongs to another user.
        """
        if self.folder.exists() and os.geteuid() not in {0, self.folder.stat().st_uid}:
            raise RefusedError(
                f"the local deployment in {self.home} belongs to another user",
                hint="Run the command as that user, or name a home of your own with ASPEN_HOME.",
            )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other commands from starting or stopping the deployment."""
        self.make()
        with file_lock(self.folder / "lock"):
            yield

    def ports(self) -> dict[str, int]:
        """Return the port of each service for which one was chosen.

        Raises:
            AspenError: The file is damaged.
        """
        try:
            kept = json.loads(self._ports.read_text())
            return {str(name): int(port) for name, port in kept.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError) as error:
            raise AspenError(
                f"{self._ports} is damaged",
                hint="Delete that file; the ports are chosen anew at the next start.",
            ) from error

    def choose_ports(self, services: Iterable[Service]) -> list[str]:
        """Choose the ports of services that are not running yet; return notes for the operator.

        Each keeps the port of its last start, unless another program has taken it.
        """
        kept, notes = self.ports(), list[str]()
        before, start = dict(kept), crc32(str(self.home).encode())
        for one in services:
            wanted = kept.pop(one.name, one.port)
            if wanted not in kept.values() and is_free(wanted):
                kept[one.name] = wanted
                continue
            avoid = {*kept.values(), *before.values(), *(other.port for other in services)}
            kept[one.name] = free_port(start, first=SERVICES_FIRST, avoid=avoid)
            notes.append(
                f"port {wanted} is taken by another program; {one.name} is now on {kept[one.name]}"
            )
        if kept != before:
            write_whole(self._ports, json.dumps(kept))
        return notes

    def clear(self) -> None:
        """Delete the files, except the lock, which other processes may be waiting for."""
        shutil.rmtree(self.log("").parent, ignore_errors=True)
        for path in (self.record, self.filling, self._ports):
            path.unlink(missing_ok=True)

    @property
    def _ports(self) -> Path:
        return self.folder / "ports.json"
