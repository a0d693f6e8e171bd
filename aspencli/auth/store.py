"""The API and the identity provider of a target, and the stored sign-ins to them.

Each sign-in is in the system keyring or in a file. A ledger next to the files, which contains no
secrets, records the credential backend of each sign-in. So the keyring is not queried for sign-ins
in files, and sign-ins can be listed, which keyrings do not support.
"""

from __future__ import annotations

import json
import re
import secrets
import shlex
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

from aspencli.auth.session import SignInTarget, StoredSignIn, read_token
from aspencli.config import BUILT_IN, Config, Safety, Target
from aspencli.errors import BadInputError, ConflictError, CredentialsError, UnreachableError
from aspencli.files import make_folder, read_private, write_private
from aspencli.remote.urls import Origin, origin_of

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

    from aspencli.config import Known

T = TypeVar("T")
_Box: TypeAlias = "_FileBox | KeyringBox"
SERVICE = "aspencli"
"""The service name of our keyring entries, which the old tool used too."""
_PROBE = "probe"
_LONG_S = 3.0
_WAITING = "Waiting for the system keyring; it may be showing a prompt ..."
_LOCK_S = 90  # longer than a refresh may take


@dataclass(frozen=True)
class Noted:
    """A sign-in's entry in the ledger."""

    place: SignInTarget  # the target that it is for
    store: str | None  # the kind of backend that holds it; None after signing out


class Store:
    """The store for the sign-in to one target; ``folder`` has the ledger, files, and locks."""

    def __init__(self, folder: Path, place: SignInTarget, keyring: KeyringBox):
        self._folder = folder
        self._place = place
        self._boxes: dict[str, _FileBox | KeyringBox] = {
            "file": _FileBox(folder),
            "keyring": keyring,
        }
        self.ledger = Ledger(folder)

    @property
    def where(self) -> str | None:
        """Return a description of where the sign-in is stored, or None if there is none."""
        box = self._box()
        return box.where(self._place.key) if box else None

    def load(self) -> StoredSignIn | None:
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
            return StoredSignIn(**found["sign_in"])
        except (LookupError, TypeError):
            return None  # same

    def save(self, sign_in: StoredSignIn, kind: str | None = None) -> None:
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

    def lock(self) -> AbstractContextManager[None]:
        """Keep other threads and processes from renewing this sign-in during the block."""
        return locked(self._folder / self._place.key)

    def old_tools(self) -> StoredSignIn | None:
        """Return the sign-in that the old tool left in the keyring, without changing it.

        None if there is none, it cannot be used here, or the ledger has an entry for this target.
        """
        if self._place.key in self.ledger.all():
            return None
        parts = urlsplit(self._place.issuer)
        servers = dict.fromkeys((parts.netloc, f"{parts.hostname}:{parts.port or 443}"))
        try:
            texts = [self._boxes["keyring"].get(f"devicetoken-{server}") for server in servers]
        except KeyringError:  # without a keyring there is no old sign-in
            return None
        return next((found for text in texts if text and (found := _old(text, self._place))), None)

    def _box(self) -> _Box | None:
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
            entries = {**document.get("sign_ins", {}), noted.place.key: asdict(noted)}
            write_private(self._path, _text({**document, "sign_ins": entries}))

    def all(self) -> dict[str, Noted]:
        """Return every sign-in ever recorded, by its key."""
        entries = self._read().get("sign_ins", {})
        return {
            key: Noted(SignInTarget(**one["place"]), one["store"]) for key, one in entries.items()
        }

    def _read(self) -> dict[str, Any]:
        text = read_private(self._path)
        return {} if text is None else _object(text, str(self._path))


def _old(text: str, place: SignInTarget) -> StoredSignIn | None:
    try:
        found, issuer, audiences = read_token(json.loads(text)["id_token"])
    except (ValueError, LookupError, TypeError):  # not in a known format, so it cannot be used
        return None
    return found if issuer == place.issuer and place.client_id in audiences else None


def _object(text: str, where: str) -> dict[str, Any]:
    found = None
    with suppress(ValueError):
        found = json.loads(text)
    if not isinstance(found, dict):
        raise CredentialsError(
            f"Could not read the sign-in stored in {where}.",
            hint="Sign out, then sign in again: aspencli auth logout --forget",
        )
    return found


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1, sort_keys=True)


class _FileBox:
    """Files in a directory that only their owner can read."""

    def __init__(self, folder: Path):
        self._folder = folder

    def where(self, key: str) -> str:
        return f"file {self._path(key)}"

    def get(self, key: str) -> str | None:
        return read_private(self._path(key))

    def put(self, key: str, secret: str) -> None:
        write_private(self._path(key), secret)

    def drop(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

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


@dataclass
class Whereabouts:
    """The addresses of a target's API and identity provider, found on first use."""

    target: Target  # the target, with all settings resolved
    config: Config  # the configuration that the target comes from
    folder: Path  # the directory where sign-ins are recorded
    # Asks the API for its issuer and client; returns None if it does not say.
    ask: Callable[[], tuple[str, str] | None]

    @property
    def api_name(self) -> str:
        """Return the display name of the API."""
        return f"the {self.target.label} API"

    @property
    def is_usual(self) -> bool:
        """Return True if the API is the target's own, not one that was given for this run."""
        return self.config.setting("api").value is None

    @cached_property
    def is_known(self) -> bool:
        """Return True if the address of the API belongs to a target, or to this machine."""
        return self.is_usual or bool(self._owners) or self._is_own_machine

    @property
    def has_own_issuer(self) -> bool:
        """Return True if the target at this address is known to use the issuer in `place`.

        The issuer that an API itself reports is trusted only at a built-in address, or if the
        operator has signed in there before. Anywhere else, a token from that issuer must not be
        sent.
        """
        issuer, target = self.place.issuer, self.target
        configured = (target.auth_url or "").rstrip("/")
        issuers = [configured] if self.is_usual or self._is_own_machine else []
        issuers += [(one.target.auth_url or "").rstrip("/") for one in self._owners]
        if issuer in issuers:
            return True
        api = origin_of(self.api_url, self.api_name)
        if any(one.api_url and _is_at(one.api_url, api) for one in BUILT_IN.values()):
            return True
        noted = self._noted(str(api))
        return noted is not None and noted[0].rstrip("/") == issuer

    @property
    def _owners(self) -> list[Known]:
        """Return all targets that have exactly this address."""
        api = origin_of(self.api_url, self.api_name)
        return [one for one in self.config.known if any(_is_at(a, api) for a in one.apis)]

    @property
    def _is_own_machine(self) -> bool:
        local = self.target.safety is Safety.LOCAL
        return local and origin_of(self.api_url, self.api_name).is_loopback

    @property
    def login_command(self) -> str:
        """Return the command to sign in."""
        words = ["aspencli", "--env", self.target.name]
        if self.target.stack:
            words += ["--stack", self.target.stack]
        if not self.is_usual and self.target.api_url:
            words += ["--api", self.target.api_url]
        return shlex.join([*words, "auth", "login"])

    @cached_property
    def api_url(self) -> str:
        """Return the address of the API.

        Raises:
            UnreachableError: No address is configured.
            BadInputError: Tokens would be sent there without encryption.
        """
        target = self.target
        if not target.api_url:
            start = "Start it: aspencli local up. Or pass" if target.name == "local" else "Pass"
            raise UnreachableError(
                f"No URL is configured for {self.api_name}.",
                hint=f"{start} --api URL (or set ASPEN_API), or set api_url under "
                f"[targets.{target.name}] in {self.config.path}.",
            )
        self._check(target.api_url, self.api_name)
        return target.api_url

    @cached_property
    def place(self) -> SignInTarget:
        """Return the API, issuer, and client to sign in with.

        They come from the settings, or from an earlier sign-in, or from the API itself.

        Raises:
            CredentialsError: The issuer and client are not known.
            UnreachableError: The API has to be asked for them, and does not respond.
            BadInputError: Tokens would be sent there without encryption.
        """
        target = self.target
        api = str(origin_of(self.api_url, self.api_name))
        if target.auth_url and target.auth_client_id:
            issuer, client = target.auth_url, target.auth_client_id
        else:
            issuer, client = self._noted(api) or self._told()
        self._check(issuer, f"the {target.label} identity provider")
        return SignInTarget(target.label, api, issuer.rstrip("/"), client, target.auth_audience)

    def _noted(self, api: str) -> tuple[str, str] | None:
        for noted in Ledger(self.folder).all().values():
            place = noted.place
            if noted.store and (place.target, place.api) == (self.target.label, api):
                return place.issuer, place.client_id
        return None

    def _told(self) -> tuple[str, str]:
        found = self.ask()
        if found is not None:
            return found
        name = self.target.name
        variables = [Config.variable(key, name) for key in ("auth_url", "auth_client_id")]
        raise CredentialsError(
            f"No identity provider is configured for {self.target.label}, and its API does not "
            "name one.",
            hint=f"Set auth_url and auth_client_id under [targets.{name}] in {self.config.path}, "
            f"or {' and '.join(variables)}.",
        )

    def _check(self, address: str, what: str) -> None:
        origin = origin_of(address, what)
        if not origin.is_private and self.target.safety is not Safety.LOCAL:
            raise BadInputError(
                f"Refused to send tokens unencrypted to {what}: {origin}",
                hint="Use an https:// URL.",
            )


def _is_at(address: str, api: Origin) -> bool:
    """Return True if an address leads to this server; ``{stack}`` in it matches any stack."""
    try:
        if "{stack}" not in address:
            return origin_of(address, "") == api
        pattern = re.escape(str(origin_of(address.replace("{stack}", "any--stack"), "")))
    except BadInputError:  # an invalid address leads to no API
        return False
    return re.fullmatch(pattern.replace(r"any\-\-stack", "[^.]+"), str(api)) is not None
