"""The API and the identity provider of a target, and the stored sign-ins of its accounts.

Each sign-in is a secret in the system keyring or in a file. The ledger of accounts, which contains
no secrets, records where. So the keyring is not queried for sign-ins in files, and sign-ins can be
listed, which keyrings do not support.

A new sign-in gets a key that was never used. It is stored first, then recorded in the ledger in
place of the one before, which is deleted last. A process that ends in between leaves the old state
or the new one, and a secret that no account uses; the next change to the target's accounts deletes
it.
"""

from __future__ import annotations

import json
import re
import secrets
import shlex
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar
from urllib.parse import urlsplit

from aspencli.addresses import Origin, origin_of
from aspencli.auth.accounts import Account, Ledger, as_text, default_name, locked, read_object
from aspencli.auth.session import SignInTarget, StoredSignIn, read_token
from aspencli.config import BUILT_IN, Config, Safety, Target
from aspencli.errors import BadInputError, CredentialsError, UnreachableError
from aspencli.files import read_private, write_private

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

    from aspencli.config import Known

T = TypeVar("T")
SERVICE = "aspencli"
"""The service name of our keyring entries, which the old tool used too."""
_PROBE = "probe"  # the key of test values
_LONG_S = 3.0
_WAITING = "Waiting for the system keyring; it may be showing a prompt ..."


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
            raise KeyringError(_keyring_reason(error)) from error
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


def _keyring_reason(error: Exception) -> str:
    from keyring.errors import NoKeyringError

    if isinstance(error, NoKeyringError):  # its own message is about installing Python packages
        return "none found"
    return str(error).partition("\n")[0] or type(error).__name__


_Box: TypeAlias = FileBox | KeyringBox


class OtherUserError(CredentialsError):
    """A sign-in to an account by a user that is not the account's."""

    def __init__(self, account: Account, found: StoredSignIn):
        super().__init__(
            f"Account {account.label} on {account.place.target} is for "
            f"{account.email or account.subject}, but {found.who} signed in. Nothing was changed.",
        )


class Store:
    """The store for the sign-in of one account.

    Another process may sign in to the same account again, or sign out. So the secret is looked up
    each time, but the account stays the same.

    Args:
        folder: The directory with the ledger, files, and locks.
        place: The target.
        keyring: The system keyring.
        account: The account; None for one that is still to sign in.
    """

    def __init__(
        self,
        folder: Path,
        place: SignInTarget,
        keyring: KeyringBox,
        account: Account | None = None,
    ):
        self._folder = folder
        self._place = place
        self._files = FileBox(folder)
        self._boxes: dict[str, _Box] = {"file": self._files, "keyring": keyring}
        self.ledger = Ledger(folder)
        self.account = account

    @property
    def where(self) -> str | None:
        """Return a description of where the sign-in is stored, or None if there is none."""
        current = self._current()
        return self._boxes[current.store].where(current.key) if current else None

    def load(self) -> StoredSignIn | None:
        """Return the sign-in, or None if there is none.

        Raises:
            CredentialsError: It cannot be read.
        """
        current = self._current()
        while current is not None:
            text = self._boxes[current.store].get(current.key)
            if text is not None:
                return self._read(text, self._boxes[current.store].where(current.key))
            # Another process may have replaced the secret since the ledger was read.
            before, current = current, self._current()
            if current == before:
                return None
        return None

    def save(self, found: StoredSignIn, kind: str | None = None) -> None:
        """Save the account's renewed sign-in; without an account, the sign-in of a new one.

        The caller holds the lock.
        """
        current = self._current()
        if current is None or kind not in {None, current.store}:
            name = current.name if current else default_name(found)
            self._put(found, kind, name, current, activate=current is None)
            return
        self._boxes[current.store].put(current.key, self._secret(found))
        self.sweep()
        described = current.described(found)
        if described != current:
            self.ledger.describe(described)
        self.account = described

    def replace(
        self,
        found: StoredSignIn,
        kind: str,
        *,
        name: str | None = None,
        same_user: bool = False,
        force: bool = False,
        activate: bool = True,
    ) -> StoredSignIn | None:
        """Save a new sign-in in place of the account's, and return the sign-in that it replaced.

        The caller holds the lock. An account whose name the operator did not choose is renamed to
        the e-mail address of the user who signed in. If there is another account with that name,
        its sign-in is replaced instead.

        Args:
            found: The new sign-in.
            kind: The kind of box to store it in.
            name: The name that the operator chose for the account.
            same_user: True to accept only the user of the account, whatever its name.
            force: True to accept a different user.
            activate: True to make the account active in any case.

        Raises:
            OtherUserError: A different user signed in; nothing was changed.
        """
        current, mine = self._current(), self.account
        if name is None and mine is not None and mine.is_named:
            name = mine.name
        if mine is not None and not force and (same_user or name is not None):
            self._check_user(current or mine, found)
        label = name or default_name(found)
        namesake = next((one for one in self.all() if one.is_called(label)), None)
        if namesake is not None and (current is None or namesake.key != current.key):
            if not force:
                self._check_user(namesake, found)
            current = namesake
        before = None
        if current is not None:
            with suppress(CredentialsError):  # it is replaced even if it cannot be read
                before = self._load_of(current)
        is_named = name is not None or (namesake is not None and namesake.is_named)
        label = namesake.label if namesake is not None else label
        self._put(found, kind, label, current, is_named=is_named, activate=activate)
        return before

    def move(self, kind: str) -> None:
        """Move the sign-in to another kind of box; the caller holds the lock."""
        current = self._current()
        found = self.load()
        if current is not None and found is not None and current.store != kind:
            self.save(found, kind)

    def forget(self, *, may_switch: bool = False) -> Account | None:
        """Delete the sign-in, and return the account that is active now; see `Ledger.remove`.

        The caller holds the lock.
        """
        current = self._current()
        if current is None:
            return self.ledger.active(self._place)
        self._boxes[current.store].check()  # or else the secret would stay there
        active = self.ledger.remove(current, may_switch=may_switch)
        self.sweep()
        return active

    def sweep(self) -> None:
        """Delete secrets that no account uses; the caller holds the lock.

        One that cannot be deleted now, as in a locked keyring, is left for the next time.
        """
        with suppress(OSError):
            self._files.clear(self._place.key)
        for key, kind in self.ledger.leftovers(self._place).items():
            if kind in self._boxes:  # a newer version may have more kinds
                with suppress(CredentialsError, OSError):
                    self._boxes[kind].drop(key)
                    self.ledger.forget_leftover(key)

    def all(self) -> list[Account]:
        """Return the accounts of the target by name; see `described`."""
        found = [self.described(one) for one in self.ledger.accounts(self._place)]
        return sorted(found, key=lambda account: account.label.casefold())

    def find(self, name: str) -> Account | None:
        """Return the account of the target with this name, or None."""
        for accounts in (self.ledger.accounts(self._place), self.all()):
            for account in accounts:
                if account.is_called(name):
                    return account
        return None

    def described(self, account: Account) -> Account:
        """Return an account with its name and user, which older versions did not record.

        They are then in the sign-in, and stay unknown if that cannot be read.
        """
        if account.name is None:
            with suppress(CredentialsError):
                found = self._load_of(account)
                return account.described(found) if found else account
        return account

    def lock(self) -> AbstractContextManager[None]:
        """Keep other threads and processes from changing sign-ins to this target in the block."""
        return locked(self._folder / self._place.key)

    def old_tools(self) -> StoredSignIn | None:
        """Return the sign-in that the old tool left in the keyring, without changing it.

        None if there is none, it cannot be used here, or the ledger knows this target.
        """
        if self.ledger.knows(self._place):
            return None
        parts = urlsplit(self._place.issuer)
        servers = dict.fromkeys((parts.netloc, f"{parts.hostname}:{parts.port or 443}"))
        try:
            texts = [self._boxes["keyring"].get(f"devicetoken-{server}") for server in servers]
        except KeyringError:  # without a keyring there is no old sign-in
            return None
        return next((found for text in texts if text and (found := _old(text, self._place))), None)

    def _put(
        self,
        found: StoredSignIn,
        kind: str | None,
        name: str | None,
        before: Account | None,
        *,
        is_named: bool | None = None,
        activate: bool,
    ) -> None:
        """Store a sign-in under a new key, and let it replace another one."""
        kind = kind or (before.store if before else None) or self.ledger.choice or "keyring"
        named = (before is not None and before.is_named) if is_named is None else is_named
        key = f"{self._place.key}.{secrets.token_hex(4)}"
        account = Account(key, self._place, kind, name, named).described(found)
        self.ledger.note_leftover(key, kind)
        self._boxes[kind].put(key, self._secret(found))
        self.ledger.put(account, instead_of=before, activate=activate)
        self.account = account
        self.sweep()

    def _check_user(self, account: Account, found: StoredSignIn) -> None:
        account = self.described(account)
        if account.subject and account.subject != found.subject:
            raise OtherUserError(account, found)

    def _load_of(self, account: Account) -> StoredSignIn | None:
        box = self._boxes[account.store]
        text = box.get(account.key)
        return None if text is None else self._read(text, box.where(account.key))

    def _current(self) -> Account | None:
        return self.ledger.current(self.account) if self.account else None

    def _secret(self, found: StoredSignIn) -> str:
        return as_text({"place": asdict(self._place), "sign_in": asdict(found)})

    def _read(self, text: str, where: str) -> StoredSignIn | None:
        found = read_object(text, where)
        if found.get("place") != asdict(self._place):
            return None  # from another version or for another target, so it cannot be used
        try:
            return StoredSignIn(**found["sign_in"])
        except (LookupError, TypeError):
            return None  # same


def _old(text: str, place: SignInTarget) -> StoredSignIn | None:
    try:
        found, issuer, audiences = read_token(json.loads(text)["id_token"])
    except (ValueError, LookupError, TypeError):  # not in a known format, so it cannot be used
        return None
    return found if issuer == place.issuer and place.client_id in audiences else None


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

    def command(self, *words: str) -> str:
        """Return the command line of a command for this target and API."""
        place = ["--env", self.target.name]
        if self.target.stack:
            place += ["--stack", self.target.stack]
        if not self.is_usual and self.target.api_url:
            place += ["--api", self.target.api_url]
        return shlex.join(["aspencli", *place, *words])

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
        return self.known_place or self._place(*self._told())

    @property
    def known_place(self) -> SignInTarget | None:
        """Return `place` if no request is needed to find it, otherwise None.

        Raises:
            UnreachableError: No address is configured.
            BadInputError: Tokens would be sent there without encryption.
        """
        target = self.target
        if target.auth_url and target.auth_client_id:
            return self._place(target.auth_url, target.auth_client_id)
        noted = self._noted(str(origin_of(self.api_url, self.api_name)))
        return self._place(*noted) if noted else None

    def _place(self, issuer: str, client: str) -> SignInTarget:
        target = self.target
        api = str(origin_of(self.api_url, self.api_name))
        self._check(issuer, f"the {target.label} identity provider")
        return SignInTarget(target.label, api, issuer.rstrip("/"), client, target.auth_audience)

    def _noted(self, api: str) -> tuple[str, str] | None:
        for account in Ledger(self.folder).accounts():
            place = account.place
            if (place.target, place.api) == (self.target.label, api):
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
