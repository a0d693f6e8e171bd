"""Credential backends for sign-ins: the system keyring, and files."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from aspencli.clients.private_files import read_private, write_private
from aspencli.errors import CredentialsError

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

T = TypeVar("T")
SERVICE = "aspencli"
"""The service name of our keyring entries, which the old tool used too."""
_PROBE = "probe"
_LONG_S = 3.0
_WAITING = "waiting for the keyring; it may show a window that wants to be answered ..."


class Box(Protocol):
    """A credential backend, which stores secrets by name."""

    @property
    def kind(self) -> str:
        """Return ``keyring`` or ``file``."""

    def where(self, key: str) -> str:
        """Return a description of where the secret is stored."""

    def get(self, key: str) -> str | None:
        """Return the secret, or None if there is none."""

    def put(self, key: str, secret: str) -> None:
        """Store a secret."""

    def drop(self, key: str) -> None:
        """Delete a secret, if there is one."""


class FileBox:
    """Files in a directory that only their owner can read."""

    kind = "file"

    def __init__(self, folder: Path):
        self._folder = folder

    def where(self, key: str) -> str:
        """Return a description of the file."""
        return f"file {self._path(key)}"

    def get(self, key: str) -> str | None:
        """Return the secret, or None if there is none."""
        return read_private(self._path(key))

    def put(self, key: str, secret: str) -> None:
        """Store a secret."""
        write_private(self._path(key), secret)

    def drop(self, key: str) -> None:
        """Delete a secret, if there is one."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"


class KeyringBox:
    """The system keyring.

    Args:
        tell: Called with a message if the keyring is slow to respond.
    """

    kind = "keyring"

    def __init__(self, tell: Callable[[str], None] | None = None):
        self._tell = tell

    def where(self, _key: str) -> str:
        """Return the name of the keyring."""
        return f"keyring ({self._backend().name})"

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
        self.put(_PROBE, secret)
        kept = self.get(_PROBE)
        if kept != secret:
            raise KeyringError("it forgets what it is given")
        self.drop(_PROBE)

    def _backend(self) -> KeyringBackend:
        import keyring

        return self._asked(keyring.get_keyring)

    def _asked(self, ask: Callable[[], T]) -> T:
        timer = threading.Timer(_LONG_S, self._tell or _nobody, [_WAITING])
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
    """A system keyring that cannot be used.

    Args:
        reason: The reason.
    """

    def __init__(self, reason: str):
        super().__init__(
            f"the keyring of this system cannot be used: {reason}",
            hint="Unlock it, or keep sign-ins in a file: aspencli auth login --store file; "
            "for a machine, set ASPEN_TOKEN.",
        )


def _nobody(_words: str) -> None:
    """Ignore the message."""


def _reason(error: Exception) -> str:
    from keyring.errors import NoKeyringError

    if isinstance(error, NoKeyringError):  # its own message is about installing Python packages
        return "there is none"
    return str(error).partition("\n")[0] or type(error).__name__
