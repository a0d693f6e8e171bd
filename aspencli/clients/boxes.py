"""Where sign-ins can be kept: the keyring of the system, or a file."""

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
"""The name under which the keyring shows our entries; the old tool's, too."""
_PROBE = "probe"
_LONG_S = 3.0
_WAITING = "waiting for the keyring; it may show a window that wants to be answered ..."


class Box(Protocol):
    """A place for secrets, by name."""

    @property
    def kind(self) -> str:
        """``keyring`` or ``file``."""

    def where(self, key: str) -> str:
        """Where that is, for people."""

    def get(self, key: str) -> str | None:
        """The secret; None where there is none."""

    def put(self, key: str, secret: str) -> None:
        """Keep a secret."""

    def drop(self, key: str) -> None:
        """Forget a secret; nothing to do where there is none."""


class FileBox:
    """Files in a folder, for their owner only."""

    kind = "file"

    def __init__(self, folder: Path):
        self._folder = folder

    def where(self, key: str) -> str:
        """The file."""
        return f"file {self._path(key)}"

    def get(self, key: str) -> str | None:
        """The secret; None where there is none."""
        return read_private(self._path(key))

    def put(self, key: str, secret: str) -> None:
        """Keep a secret."""
        write_private(self._path(key), secret)

    def drop(self, key: str) -> None:
        """Forget a secret."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"


class KeyringBox:
    """The keyring of the system.

    Args:
        tell: Told when it keeps us waiting, in words.
    """

    kind = "keyring"

    def __init__(self, tell: Callable[[str], None] | None = None):
        self._tell = tell

    def where(self, _key: str) -> str:
        """Which keyring it is."""
        return f"keyring ({self._backend().name})"

    def get(self, key: str) -> str | None:
        """The secret; None where there is none."""
        return self._asked(lambda: self._backend().get_password(SERVICE, key))

    def put(self, key: str, secret: str) -> None:
        """Keep a secret."""
        self._asked(lambda: self._backend().set_password(SERVICE, key, secret))

    def drop(self, key: str) -> None:
        """Forget a secret."""
        if self.get(key) is not None:
            self._asked(lambda: self._backend().delete_password(SERVICE, key))

    def probe(self) -> None:
        """Make sure that it keeps what it is given.

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
    """The keyring of the system cannot be used.

    Args:
        reason: Why.
    """

    def __init__(self, reason: str):
        super().__init__(
            f"the keyring of this system cannot be used: {reason}",
            hint="Unlock it, or keep sign-ins in a file: aspencli auth login --store file; "
            "for a machine, set ASPEN_TOKEN.",
        )


def _nobody(_words: str) -> None:
    """Nobody wants to know."""


def _reason(error: Exception) -> str:
    from keyring.errors import NoKeyringError

    if isinstance(error, NoKeyringError):  # its own words are about installing Python packages
        return "there is none"
    return str(error).partition("\n")[0] or type(error).__name__
