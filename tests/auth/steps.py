"""Changes of stored accounts, each in a process that ends at one of its steps.

``python tests/auth/steps.py FOLDER OPERATION HOW`` prepares two accounts, and makes the same change
again and again, ending the process (``kill`` or ``interrupt``) before its first step, its second,
and so on, until it completes. A step is the creation, the renaming, or the removal of a file. It
prints the state after each end as one line of JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from aspencli.auth.accounts import Ledger
from aspencli.auth.session import SignInTarget, StoredSignIn
from aspencli.auth.store import KeyringBox, Store

PLACE = SignInTarget("mylab", "https://api.example.org", "https://login.example.org", "client")
INTERRUPTED = 130


def sign_in(user: str, number: int = 1) -> StoredSignIn:
    """Return the sign-in with a number of a user."""
    words = (f"token-{user}-{number}", f"refresh-{user}-{number}", f"auth0|{user}")
    return StoredSignIn(*words, 1_000.0 * number, 9e9, user, f"{user}@example.org")


def _store(folder: Path, name: str | None) -> Store:
    place = Store(folder, PLACE, KeyringBox())
    return Store(folder, PLACE, KeyringBox(), place.find(name) if name else None)


def _locked(store: Store, change: Callable[[], Any]) -> None:
    with store.lock():
        change()


def _add(folder: Path) -> None:
    store = _store(folder, None)
    _locked(store, lambda: store.replace(sign_in("eve"), "file", name="third"))


def _again(folder: Path) -> None:
    store = _store(folder, "admin")
    _locked(store, lambda: store.replace(sign_in("root", 2), "keyring", name="admin"))


def _another(folder: Path) -> None:
    store = _store(folder, "ada@example.org")
    _locked(store, lambda: store.replace(sign_in("bob"), "keyring", force=True))


def _move(folder: Path) -> None:
    store = _store(folder, "admin")
    _locked(store, lambda: store.move("file"))


def _renew(folder: Path) -> None:
    store = _store(folder, "ada@example.org")
    _locked(store, lambda: store.save(sign_in("ada", 2)))


def _renew_with_new_address(folder: Path) -> None:
    store = _store(folder, "ada@example.org")
    renewed = replace(sign_in("ada", 2), email="new@example.org")
    _locked(store, lambda: store.save(renewed))


def _sign_out(folder: Path) -> None:
    store = _store(folder, "admin")
    _locked(store, lambda: store.forget(may_switch=True))


def _switch(folder: Path) -> None:
    Ledger(folder).toggle(PLACE)


OPERATIONS = {
    "add": _add,
    "again": _again,
    "another": _another,
    "move": _move,
    "renew": _renew,
    "renew-with-new-address": _renew_with_new_address,
    "sign-out": _sign_out,
    "switch": _switch,
}


def _prepare(folder: Path) -> None:
    first, second = Store(folder, PLACE, KeyringBox()), Store(folder, PLACE, KeyringBox())
    _locked(first, lambda: first.replace(sign_in("ada"), "file"))
    _locked(second, lambda: second.replace(sign_in("root"), "keyring", name="admin"))


def _state(folder: Path) -> dict[str, Any]:
    """Return the accounts with their sign-ins, and the secrets before and after a sweep."""
    store = Store(folder, PLACE, KeyringBox())
    active = store.ledger.active(PLACE)
    accounts = {}
    for account in store.all():
        held = Store(folder, PLACE, KeyringBox(), account).load()
        accounts[account.label] = {
            "store": account.store,
            "subject": account.subject,
            "sign_in": held and asdict(held),
        }
    found = {"accounts": accounts, "active": active and active.label}
    _locked(store, store.sweep)
    used = {(one.store, one.key) for one in store.ledger.accounts()}
    keyring = json.loads(Path(os.environ["KEYRING_FILE"]).read_text())
    kept = {("keyring", key.removeprefix("aspencli/")) for key in keyring}
    names = {path.name for path in folder.iterdir()} - {"ledger.json"}
    files = {name for name in names if not name.endswith(".lock") and "ledger" not in name}
    kept |= {("file", name.removesuffix(".json")) for name in files}
    return {**found, "stray": sorted(kept ^ used)}


def _end_at(step: int, how: str) -> None:
    """End this process before one of its steps from now on."""
    left = step

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        creates = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
        if creates or event in {"os.rename", "os.remove", "os.chmod"}:
            left -= 1
            if left == 0 and how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if left == 0:
                raise KeyboardInterrupt

    sys.addaudithook(watch)


def _in_child(folder: Path, work: Callable[[], Any]) -> tuple[int, Any]:
    """Run something in a process of its own, and return its exit code and its result."""
    reading, writing = os.pipe()
    if not (pid := os.fork()):
        os.environ["KEYRING_FILE"] = str(folder.with_suffix(".keyring"))
        code = 1
        try:
            os.write(writing, json.dumps(work()).encode())
            code = 0
        except KeyboardInterrupt:
            code = INTERRUPTED
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as said:
        text = said.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), json.loads(text) if text else None


def _say(code: int | None, state: dict[str, Any] | None) -> None:
    sys.stdout.write(json.dumps({"code": code, **(state or {})}) + "\n")


def main(root: Path, operation: str, how: str) -> None:
    """Print the state before the change, and after each end of it."""
    prepared = root / "prepared"
    assert _in_child(prepared, lambda: _prepare(prepared))[0] == 0
    _say(None, _in_child(prepared, lambda: _state(prepared))[1])
    code, step = None, 0
    while code != 0:
        step += 1
        folder = root / f"step-{step}"
        shutil.copytree(prepared, folder)
        shutil.copy(prepared.with_suffix(".keyring"), folder.with_suffix(".keyring"))

        def change(folder: Path = folder, step: int = step) -> None:
            _end_at(step, how)
            OPERATIONS[operation](folder)

        code, _nothing = _in_child(folder, change)
        _say(code, _in_child(folder, partial(_state, folder))[1])


if __name__ == "__main__":
    # What the changes import is loaded already, so that only their own steps count.
    for name in ("filelock", "keyring.core", "keyring.errors"):
        import_module(name)
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
