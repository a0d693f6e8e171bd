"""The stored sign-ins of this user, each in the system keyring or in a file.

A ledger next to the files, which contains no secrets, records the credential backend of each
sign-in. So the keyring is not queried for sign-ins in files, and sign-ins can be listed, which
keyrings do not support.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import urlsplit

from aspencli.auth.models import Place, SignIn
from aspencli.auth.tokens import claims_of, sign_in_of
from aspencli.errors import ConflictError, CredentialsError
from aspencli.files import make_folder, read_private, write_private

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend


T = TypeVar("T")
SERVICE = "aspencli"
"""The service name of our keyring entries, which the old tool used too."""
_PROBE = "probe"
_LONG_S = 3.0
_WAITING = "Waiting for the system keyring; it may be showing a prompt ..."
_LOCK_S = 90  # longer than a refresh may take


@dataclass(frozen=True)
class Noted:
    """A sign-in's entry in the ledger.

    Attributes:
        place: The target that it is for.
        store: The kind of backend that holds it; None after signing out.
    """

    place: Place
    store: str | None


class Store:
    """The store for the sign-in to one target.

    Args:
        folder: The directory of the ledger, files, and locks.
        place: The target.
        keyring: The keyring.
    """

    def __init__(self, folder: Path, place: Place, keyring: KeyringBox):
        self._folder = folder
        self._place = place
        self._boxes: dict[str, Box] = {"file": FileBox(folder), "keyring": keyring}
        self.ledger = Ledger(folder)

    @property
    def where(self) -> str | None:
        """Return a description of where the sign-in is stored, or None if there is none."""
        box = self._box()
        return box.where(self._place.key) if box else None

    def load(self) -> SignIn | None:
        """Return the sign-in, or None if there is none.

        Raises:
            CredentialsError: It cannot be read.
        """
        box = self._box()
        text = box.get(self._place.key) if box else None
        if text is None:
            return None
        found = _object(text, box.where(self._place.key) if box else "")
        if found.get("place") != asdict(self._place):
            return None  # from another version or for another target, so it cannot be used
        try:
            return SignIn(**found["sign_in"])
        except (LookupError, TypeError):
            return None  # same

    def save(self, sign_in: SignIn, kind: str | None = None) -> None:
        """Save a sign-in, by default in the backend that it was in."""
        before = self._noted_kind()
        kind = kind or before or self.ledger.choice or "keyring"
        secret = _text({"place": asdict(self._place), "sign_in": asdict(sign_in)})
        self._boxes[kind].put(self._place.key, secret)
        if before != kind:
            self.ledger.note(Noted(self._place, kind))
            if before is not None:
                self._boxes[before].drop(self._place.key)

    def forget(self) -> None:
        """Delete the sign-in."""
        box = self._box()
        if box is not None:
            box.drop(self._place.key)
        self.ledger.note(Noted(self._place, None))

    def drop_refresh_token(self, sign_in: SignIn) -> None:
        """Keep the sign-in, but remove its refresh token, which can no longer be used."""
        self.save(replace(sign_in, refresh_token=None))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other threads and processes from renewing this sign-in during the block."""
        with locked(self._folder / self._place.key):
            yield

    def old_tools(self) -> SignIn | None:
        """Return the sign-in that the old tool left in the keyring, without changing it.

        None if there is none, it cannot be used here, or the ledger has an entry for this target.
        """
        noted = self.ledger.all().get(self._place.key)
        if noted is not None:
            return None
        parts = urlsplit(self._place.issuer)
        servers = dict.fromkeys((parts.netloc, f"{parts.hostname}:{parts.port or 443}"))
        try:
            texts = [self._boxes["keyring"].get(f"devicetoken-{server}") for server in servers]
        except KeyringError:  # without a keyring there is no old sign-in
            return None
        return next((found for text in texts if text and (found := _old(text, self._place))), None)

    def _box(self) -> Box | None:
        kind = self._noted_kind()
        return self._boxes[kind] if kind else None

    def _noted_kind(self) -> str | None:
        noted = self.ledger.all().get(self._place.key)
        return noted.store if noted and noted.store in self._boxes else None


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
            f"Another command has been renewing the sign-in for {_LOCK_S} s.",
            hint=f"Wait for it to finish, or stop it. Its lock file is {path}.lock",
        ) from None


class Ledger:
    """The list of sign-ins, and the kind of backend chosen for new ones."""

    def __init__(self, folder: Path):
        self._path = folder / "ledger.json"

    @property
    def choice(self) -> str | None:
        """Return the chosen kind of backend, or None if none was chosen yet."""
        choice = self._read().get("store")
        return choice if isinstance(choice, str) else None

    def choose(self, kind: str) -> None:
        """Record the kind of backend to use from now on."""
        with locked(self._path):
            write_private(self._path, _text({**self._read(), "store": kind}))

    def note(self, noted: Noted) -> None:
        """Record where a sign-in is stored, or that it is gone."""
        with locked(self._path):
            document = self._read()
            entries = {**document.get("sign_ins", {}), noted.place.key: _entry(noted)}
            write_private(self._path, _text({**document, "sign_ins": entries}))

    def all(self) -> dict[str, Noted]:
        """Return every sign-in ever recorded, by its key."""
        return {key: _noted(entry) for key, entry in self._read().get("sign_ins", {}).items()}

    def _read(self) -> dict[str, Any]:
        text = read_private(self._path)
        return {} if text is None else _object(text, str(self._path))


def _old(text: str, place: Place) -> SignIn | None:
    try:
        token = json.loads(text)["id_token"]
        claims = claims_of(token)
        same = str(claims["iss"]).rstrip("/") == place.issuer
        if same and place.client_id in _listed(claims["aud"]):
            return sign_in_of(token, claims)
    except (ValueError, LookupError, TypeError):  # not in a known format, so it cannot be used
        pass
    return None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _entry(noted: Noted) -> dict[str, Any]:
    return {"place": asdict(noted.place), "store": noted.store}


def _noted(entry: Mapping[str, Any]) -> Noted:
    return Noted(Place(**entry["place"]), entry["store"])


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CredentialsError(
            f"Could not read the sign-in stored in {where}.",
            hint="Sign out, then sign in again: aspencli auth logout --forget",
        )
    return found


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1, sort_keys=True)


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
            raise KeyringError("a test value could not be read back")
        self.drop(_PROBE)

    def _backend(self) -> KeyringBackend:
        import keyring

        return self._asked(keyring.get_keyring)

    def _asked(self, ask: Callable[[], T]) -> T:
        timer = threading.Timer(_LONG_S, self._tell or _ignore, [_WAITING])
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
            f"Could not use the system keyring: {reason}",
            hint="Unlock it, or store sign-ins in a file: aspencli auth login --store file. "
            "In scripts, set ASPEN_TOKEN.",
        )


def _ignore(_words: str) -> None:
    """Ignore the message."""


def _reason(error: Exception) -> str:
    from keyring.errors import NoKeyringError

    if isinstance(error, NoKeyringError):  # its own message is about installing Python packages
        return "none found"
    return str(error).partition("\n")[0] or type(error).__name__
