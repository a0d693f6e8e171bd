"""The places that hold secrets: files that only their owner can read, and the system keyring."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from aspencli.errors import ConflictError, CredentialsError
from aspencli.files import make_folder, read_private, write_private

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

T = TypeVar("T")
SERVICE = "aspencli"
"""The service name of our keyring entries, which the old tool used too."""
_PROBE = "probe"  # the key of test values
_LONG_S = 3.0
_WAITING = "Waiting for the system keyring; it may be showing a prompt ..."
_LOCK_S = 90  # longer than a refresh may take


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, across processes.

    Raises:
        ConflictError: Another process holds it for too long.
    """
    from filelock import FileLock, Timeout

    make_folder(path.parent)
    lock = FileLock(path.with_name(f"{path.name}.lock"), timeout=_LOCK_S, mode=0o600)
    try:
        with lock:
            yield
    except Timeout:
        raise ConflictError(
            f"Another command has been renewing or changing the sign-in for {_LOCK_S} s.",
            hint=f"Wait for it to finish, or stop it. Its lock file is {path}.lock",
        ) from None


class FileBox:
    """Files in a directory that only their owner can read.

    A key has one writer at a time, which holds the lock of its target.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    def where(self, key: str) -> str:
        """Return the path of the file."""
        return f"file {self._path(key)}"

    def check(self) -> None:
        """Check that the box can be used."""

    def get(self, key: str) -> str | None:
        """Return the secret, or None if there is none."""
        return read_private(self._path(key))

    def put(self, key: str, secret: str) -> None:
        """Store a secret."""
        write_private(self._path(key), secret)

    def drop(self, key: str) -> None:
        """Delete a secret, if there is one."""
        self._path(key).unlink(missing_ok=True)

    def clear(self, prefix: str) -> None:
        """Delete incomplete files, of processes that were killed, for all keys with a prefix."""
        for part in self._folder.glob(f".{prefix}*.json.*"):
            part.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"


class KeyringBox:
    """The system keyring.

    Args:
        tell: Called with a message if the keyring is slow to respond.
    """

    def __init__(self, tell: Callable[[str], None] = lambda _words: None):
        self._tell = tell

    def where(self, _key: str) -> str:
        """Return the name of the keyring."""
        return f"keyring ({self._backend().name})"

    def check(self) -> None:
        """Check that the keyring responds.

        Raises:
            KeyringError: It does not.
        """
        self.get(_PROBE)

    def get(self, key: str) -> str | None:
        """Return the secret, or None if there is none."""
        return self._asked(lambda: self._backend().get_password(SERVICE, key))

    def put(self, key: str, secret: str) -> None:
        """Store a secret."""
        self._asked(lambda: self._backend().set_password(SERVICE, key, secret))

    def drop(self, key: str) -> None:
        """Delete a secret, if there is one."""
        if self.get(key) is not None:
            self._asked(lambda: self._backend().delete_password(SERVICE, key))

    def probe(self) -> None:
        """Check that the keyring stores secrets.

        Raises:
            KeyringError: It does not.
        """
        secret = secrets.token_hex(8)
        key = f"{_PROBE}-{secret}"  # another process may be testing the keyring too
        self.put(key, secret)
        kept = self.get(key)
        if kept != secret:
            raise KeyringError("a test value could not be read back")
        self.drop(key)

    def _backend(self) -> KeyringBackend:
        import keyring

        return self._asked(keyring.get_keyring)

    def _asked(self, ask: Callable[[], T]) -> T:
        timer = threading.Timer(_LONG_S, self._tell, [_WAITING])
        timer.daemon = True
        timer.start()
        try:
            return ask()
        except KeyringError:
            raise
        except Exception as error:
            raise KeyringError(_reason(error)) from error
        finally:
            timer.cancel()


class KeyringError(CredentialsError):
    """A system keyring that cannot be used."""

    def __init__(self, reason: str):
        super().__init__(
            f"Could not use the system keyring: {reason}",
            hint="Unlock it, or store sign-ins in a file: aspencli auth login --store file. "
            "In scripts, set ASPEN_TOKEN.",
        )


def _reason(error: Exception) -> str:
    from keyring.errors import NoKeyringError

    if isinstance(error, NoKeyringError):  # its own message is about installing Python packages
        return "none found"
    return str(error).partition("\n")[0] or type(error).__name__
