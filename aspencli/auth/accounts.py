"""The accounts that are signed in on this machine, as recorded in a ledger without secrets.

An operator can have several accounts at one target, such as a personal one and an administrator's.
Each has a name, which the operator chose or which is the e-mail address at its sign-in. One account
of a target is active: commands use it unless another one is chosen for them.

The ledger is one file, which every change replaces under a lock. So a change of several accounts is
made completely or not at all, whenever its process ends.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from aspencli.auth.session import SignInTarget, StoredSignIn
from aspencli.errors import BadInputError, ConflictError, CredentialsError
from aspencli.files import make_folder, read_private, write_private

_LONGEST_NAME = 100
_KINDS = ("file", "keyring")
_LOCK_S = 90  # longer than a refresh may take


@dataclass(frozen=True)
class Account:
    """An account at one target, and where its sign-in is stored."""

    key: str  # the name of the secret in its box
    place: SignInTarget  # the target that it is for
    store: str  # the kind of box that holds the sign-in
    # The name of the account; None if an older version stored it, see `described`.
    name: str | None = None
    is_named: bool = False  # True if the operator chose the name
    subject: str = ""  # the user's ID at the provider
    email: str = ""

    @property
    def label(self) -> str:
        """Return the name, or a replacement if it is not known."""
        return self.name or self.email or self.subject or "(unknown)"

    @property
    def title(self) -> str:
        """Return the name, with the e-mail address if that is another one."""
        return self.label if self.email in {"", self.label} else f"{self.label} ({self.email})"

    def is_called(self, name: str) -> bool:
        """Return True if this is the name of the account; letter case does not matter."""
        return self.name is not None and _folded(self.name) == _folded(name)

    def described(self, found: StoredSignIn) -> Account:
        """Return the account with the user of a sign-in; its name is kept if it has one."""
        name = self.name or default_name(found)
        return replace(self, name=name, subject=found.subject, email=found.email)


def default_name(found: StoredSignIn) -> str:
    """Return the name of an account for which none was chosen."""
    return found.email or found.subject


def check_name(name: str) -> str:
    """Return a name that was chosen for an account, without surrounding spaces.

    Raises:
        BadInputError: It cannot be used.
    """
    found = name.strip()
    if found and found.isprintable() and len(found) <= _LONGEST_NAME and found[0] != "-":
        return found
    raise BadInputError(
        f"Invalid account name: {name!r}",
        hint=f"Use 1 to {_LONGEST_NAME} letters, digits, and other printable characters; the first "
        "one cannot be a hyphen.",
    )


class Ledger:
    """The list of accounts, and the kind of box chosen for new ones."""

    def __init__(self, folder: Path):
        self._path = folder / "ledger.json"

    @property
    def choice(self) -> str | None:
        """Return the chosen kind of box, or None if none was chosen yet."""
        choice = self._read().get("store")
        return choice if isinstance(choice, str) else None

    def choose(self, kind: str) -> None:
        """Record the kind of box to use from now on."""
        with self._changing() as document:
            document["store"] = kind

    def accounts(self, place: SignInTarget | None = None) -> list[Account]:
        """Return all accounts, or those of one target."""
        return _accounts(self._read(), place)

    def active(self, place: SignInTarget) -> Account | None:
        """Return the active account of a target, or None if none is."""
        return _active(self._read(), place)

    def knows(self, place: SignInTarget) -> bool:
        """Return True if anyone has ever signed in to a target, or out of it."""
        document = self._read()
        return place.key in document["sign_ins"] or place.key in document["active"]

    def current(self, account: Account) -> Account | None:
        """Return an account as it is recorded now, or None if it is gone.

        Each sign-in has a new key, so after one the account is found by its name.
        """
        return _current(self._read(), account)

    def put(
        self, account: Account, *, instead_of: Account | None = None, activate: bool = False
    ) -> None:
        """Record a new sign-in, which may replace another one.

        The key of the other one becomes a leftover. The new one is active if asked for, or if the
        other one was.
        """
        with self._changing() as document:
            active = _active(document, account.place)
            if instead_of is not None and instead_of.key in document["sign_ins"]:
                del document["sign_ins"][instead_of.key]
                document["leftovers"][instead_of.key] = instead_of.store
            document["leftovers"].pop(account.key, None)
            document["sign_ins"][account.key] = _entry(account)
            if activate or _is_same(active, instead_of):
                active = account
            _activate(document, account.place, active)

    def describe(self, account: Account) -> None:
        """Record the name and the user of an account, if it is still there."""
        with self._changing() as document:
            if account.key in document["sign_ins"]:
                document["sign_ins"][account.key] = _entry(account)

    def remove(self, account: Account, *, may_switch: bool) -> Account | None:
        """Remove an account, and return the account that is active now, if any.

        Its key becomes a leftover. If it was active, no account is afterward, unless ``may_switch``
        is true and exactly one account is left.
        """
        with self._changing() as document:
            active = _active(document, account.place)
            if document["sign_ins"].pop(account.key, None) is not None:
                document["leftovers"][account.key] = account.store
            if _is_same(active, account):
                left = _accounts(document, account.place)
                active = left[0] if may_switch and len(left) == 1 else None
            _activate(document, account.place, active)
            return active

    def switch(self, account: Account) -> bool:
        """Make an account active; return False if it is gone."""
        with self._changing() as document:
            found = _current(document, account)
            if found is not None:
                _activate(document, account.place, found)
            return found is not None

    def toggle(self, place: SignInTarget) -> Account | None:
        """Make the other one of two accounts active, and return it; None if there is a choice."""
        with self._changing() as document:
            active, accounts = _active(document, place), _accounts(document, place)
            if active is None or len(accounts) != 2:  # noqa: PLR2004 - the other one of two
                return None
            (other,) = (account for account in accounts if account.key != active.key)
            _activate(document, place, other)
            return other

    def leftovers(self, place: SignInTarget) -> dict[str, str]:
        """Return the keys of secrets that no account uses, with the kind of box that may hold them.

        They remain if a process ends before it has deleted one.
        """
        document = self._read()
        return {key: kind for key, kind in document["leftovers"].items() if _is_of(key, place)}

    def note_leftover(self, key: str, kind: str) -> None:
        """Record a secret before it is stored, so that it is deleted if no account gets it."""
        with self._changing() as document:
            document["leftovers"][key] = kind

    def forget_leftover(self, key: str) -> None:
        """Record that a secret is deleted."""
        with self._changing() as document:
            document["leftovers"].pop(key, None)

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        """Yield the document to change; it is written if the block ends without an error."""
        with locked(self._path):
            document = self._read()
            before = as_text(document)
            yield document
            if (after := as_text(document)) != before:
                write_private(self._path, after)

    def _read(self) -> dict[str, Any]:
        text = read_private(self._path)
        document = {} if text is None else read_object(text, str(self._path))
        parts = ("sign_ins", "active", "leftovers")
        return {**document, **{part: _table(document.get(part)) for part in parts}}


def _accounts(document: Mapping[str, Any], place: SignInTarget | None) -> list[Account]:
    found = (_account(key, entry) for key, entry in document["sign_ins"].items())
    return [one for one in found if one and (place is None or one.place.key == place.key)]


def _active(document: Mapping[str, Any], place: SignInTarget) -> Account | None:
    # Older versions had one account per target, under the key of the target.
    key = document["active"].get(place.key, place.key)
    return next((one for one in _accounts(document, place) if one.key == key), None)


def _activate(document: dict[str, Any], place: SignInTarget, account: Account | None) -> None:
    document["active"][place.key] = account.key if account else None


def _current(document: Mapping[str, Any], account: Account) -> Account | None:
    accounts = _accounts(document, account.place)
    for one in accounts:
        if one.key == account.key:
            return one
    name = account.name
    return next((one for one in accounts if name and one.is_called(name)), None)


def _is_same(one: Account | None, other: Account | None) -> bool:
    return one is not None and other is not None and one.key == other.key


def _account(key: str, entry: Any) -> Account | None:
    """Return the account of an entry; None after signing out, or if another version wrote it."""
    try:
        place, kind = SignInTarget(**entry["place"]), entry["store"]
        is_named = entry.get("named") is True
        texts = {name: entry.get(name) for name in ("account", "subject", "email")}
    except (AttributeError, LookupError, TypeError):
        return None
    if kind not in _KINDS:
        return None
    name, subject, email = (text if isinstance(text, str) else "" for text in texts.values())
    return Account(key, place, kind, name or None, is_named, subject, email)


def _entry(account: Account) -> dict[str, Any]:
    return {
        "place": asdict(account.place),
        "store": account.store,
        "account": account.name,
        "named": account.is_named,
        "subject": account.subject,
        "email": account.email,
    }


def _is_of(key: str, place: SignInTarget) -> bool:
    return key == place.key or key.startswith(f"{place.key}.")


def _folded(name: str) -> str:
    return name.strip().casefold()


def _table(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}


def read_object(text: str, where: str) -> dict[str, Any]:
    """Return the JSON object in a text that is stored somewhere.

    Raises:
        CredentialsError: It is not a JSON object.
    """
    found = None
    with suppress(ValueError):
        found = json.loads(text)
    if not isinstance(found, dict):
        raise CredentialsError(
            f"Could not read the sign-in stored in {where}.",
            hint="Sign out, then sign in again: aspencli auth logout --forget",
        )
    return found


def as_text(document: Mapping[str, Any]) -> str:
    """Return a JSON object as text."""
    return json.dumps(document, indent=1, sort_keys=True)


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
