"""Runs of the program that need not load it again: a process has done so, and forks for each.

Most of the time of a command is the loading of Python modules. A run is still a process of its own,
with its own streams, environment, folder and exit code; only ``exec`` is left out. The first run
of each command in a run of the tests starts an interpreter as an operator does, and so does
whatever changes how Python starts (``PYTHON...``, the locale).

``python -m tests.zygote FD`` is the process that forks; it ends when its socket is closed.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import pkgutil
import random
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PROGRAM = "aspencli"
WARNINGS = "error:the service redirected"
"""A wrong slash in a path of ours costs operators nothing, and fails tests: in commands, too."""
_LOADED = ("aspencli", "db", "migrations")
_ALSO = (
    *("sqlalchemy.dialects.postgresql.psycopg2", "psycopg2.extras", "alembic.command"),
    *("joserfc.jwt", "rich.table", "rich.progress", "xlsxwriter", "encodings.idna", "dateparser"),
)
# What Python or a library looks at while it starts, so that a fork would not notice it.
_AT_START = ("PYTHON", "LC_", "LANG", "COVERAGE", "LD_", "MALLOC_", "SSL_", "OPENSSL_")
# These are obeyed by the child.
_OBEYED = frozenset({"PYTHONPATH", "PYTHON_KEYRING_BACKEND"})
_COLORS = frozenset({"FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "TERMINAL_WIDTH", "NO_COLOR"})
_LARGEST = 100_000  # bytes of a message
_STREAMS = 3

_noted: list[Path] = []


def run(
    arguments: Sequence[str],
    *,
    env: Mapping[str, str],
    stdin: bytes | None = None,
    timeout: float = 120,
) -> subprocess.CompletedProcess[bytes]:
    """Run the program to its end, as ``subprocess.run`` would.

    Args:
        arguments: What is behind the program's name.
        env: The whole environment.
        stdin: What standard input holds; None for nothing.
        timeout: The seconds after which it is killed.
    """
    message = json.dumps([list(arguments), dict(env), str(Path.cwd())]).encode()
    if not _forks() or len(message) > _LARGEST or _is_new(arguments) or _starts_otherwise(env):
        return _start(arguments, env, stdin, timeout)
    return _zygote().run(message, stdin, timeout)


def run_text(
    arguments: Sequence[str],
    *,
    env: Mapping[str, str],
    stdin: str | None = None,
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Do the same with text, whose lines end as Python's do."""
    given = None if stdin is None else stdin.encode()
    done = run(arguments, env=env, stdin=given, timeout=timeout)
    out, err = (
        io.IncrementalNewlineDecoder(None, translate=True).decode(said.decode(), final=True)
        for said in (done.stdout, done.stderr)
    )
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def note_in(folder: Path) -> None:
    """Say where the commands that ran in this run of the tests are noted."""
    _noted[:] = [folder]


def _start(
    arguments: Sequence[str], env: Mapping[str, str], stdin: bytes | None, timeout: float
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", PROGRAM, *arguments],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        env=env,
        timeout=timeout,
        capture_output=True,
        check=False,
    )


def _forks() -> bool:
    """Return True if this system can wait for a process without polling."""
    return hasattr(os, "pidfd_open")


def _starts_otherwise(env: Mapping[str, str]) -> bool:
    """Return True if a variable matters to Python's start and is not as the zygote had it."""
    mine = _zygote().env
    names = {name for name in (*env, *mine) if name.startswith(_AT_START) or name in _COLORS}
    changed = any(env.get(name) != mine.get(name) for name in names - _OBEYED)
    measured = any(name.startswith("COVERAGE") for name in env)
    hooked = any(Path(one, "sitecustomize.py").exists() for one in _paths(env))
    return changed or measured or hooked


def _paths(env: Mapping[str, str]) -> list[str]:
    return [one for one in env.get("PYTHONPATH", "").split(os.pathsep) if one]


def _is_new(arguments: Sequence[str]) -> bool:
    """Return True for the first run of a command, by whichever process of the tests."""
    if not _noted:
        return False
    words = [word for word in arguments if word.replace("-", "").isalpha() and word[0] != "-"]
    _noted[0].mkdir(exist_ok=True)
    try:
        (_noted[0] / " ".join(words[:2])[:100]).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


class Zygote:
    """The process that forks, as the tests see it."""

    def __init__(self) -> None:
        # As most tests have it, whichever of them is the first.
        self.env = {
            name: value
            for name, value in os.environ.items()
            if name not in _COLORS and name not in _OBEYED
        } | {"PYTHONWARNINGS": WARNINGS}
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.zygote", str(theirs.fileno())],
                cwd=Path(__file__).parents[1],
                env=self.env,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._lock = threading.Lock()

    def run(
        self, message: bytes, stdin: bytes | None, timeout: float
    ) -> subprocess.CompletedProcess[bytes]:
        """Have it fork, and wait for the child's end."""
        pipes = [os.pipe() for _ in range(_STREAMS + 1)]
        (input_r, input_w), (out_r, out_w), (err_r, err_w), (end_r, end_w) = pipes
        with self._lock:
            socket.send_fds(self._socket, [message], [input_r, out_w, err_w, end_w])
        for one in (input_r, out_w, err_w, end_w):
            os.close(one)
        with (
            os.fdopen(end_r, "rb") as ended,
            os.fdopen(out_r, "rb") as out,
            os.fdopen(err_r, "rb") as err,
        ):
            pid = int(ended.readline())
            said: dict[str, bytes] = {}
            threads = [
                threading.Thread(target=_write, args=(input_w, stdin or b"")),
                threading.Thread(target=lambda: said.update(out=out.read())),
                threading.Thread(target=lambda: said.update(err=err.read())),
            ]
            for thread in threads:
                thread.start()
            timer = threading.Timer(timeout, os.kill, (pid, signal.SIGKILL))
            timer.start()
            code = int(ended.readline())
            timed_out = not timer.is_alive()
            timer.cancel()
            for thread in threads:
                thread.join()
        if timed_out and code == -signal.SIGKILL:
            raise subprocess.TimeoutExpired(PROGRAM, timeout, said["out"], said["err"])
        return subprocess.CompletedProcess([PROGRAM], code, said["out"], said["err"])

    def close(self) -> None:
        """End it."""
        self._socket.close()
        self._process.wait()


_started: list[Zygote] = []


def _zygote() -> Zygote:
    if not _started:
        _started.append(Zygote())
        atexit.register(_started[0].close)
    return _started[0]


def _write(descriptor: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), os.fdopen(descriptor, "wb") as file:
        file.write(data)


# The process itself


def _serve(descriptor: int) -> None:
    """Fork for each message; returns in the child, which is the program then."""
    control = socket.socket(fileno=descriptor)
    running: dict[int, tuple[int, int]] = {}  # by the descriptor of the process: pid, where to say
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _events in selector.select():
                if key.fileobj is control:
                    message, fds, _flags, _address = socket.recv_fds(control, _LARGEST * 2, 8)
                    if not message:
                        os._exit(0)
                    pid = os.fork()
                    if not pid:
                        selector.close()
                        control.detach()
                        _become(json.loads(message), fds[:_STREAMS])
                        return
                    for one in fds[:_STREAMS]:
                        os.close(one)
                    _say(fds[_STREAMS], pid)
                    watched = os.pidfd_open(pid)
                    running[watched] = pid, fds[_STREAMS]
                    selector.register(watched, selectors.EVENT_READ)
                else:
                    watched = key.fd
                    pid, ended = running.pop(watched)
                    selector.unregister(watched)
                    os.close(watched)
                    _say(ended, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                    os.close(ended)


def _say(descriptor: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(descriptor, b"%d\n" % number)


def _become(request: list[object], streams: Sequence[int]) -> None:
    """Be as a process that has just been started."""
    arguments, env, folder = request
    assert isinstance(arguments, list)
    assert isinstance(env, dict)
    for number, one in enumerate(streams):
        os.dup2(one, number)
    os.closerange(_STREAMS, 1024)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(str(folder))
    sys.path[:1] = [str(folder), *_paths(env)]
    importlib.invalidate_caches()
    time.tzset()
    random.seed()
    encoding, strictness = sys.stdout.encoding, sys.stdout.errors
    sys.stdin = sys.__stdin__ = _text(0, "r", encoding, strictness)  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = _text(1, "w", encoding, strictness)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _text(2, "w", encoding, "backslashreplace")  # type: ignore[misc]
    sys.argv = [PROGRAM, *map(str, arguments)]


def _text(number: int, mode: str, encoding: str, errors: str | None) -> io.TextIOWrapper:
    opened = open(  # noqa: SIM115 - it lives as long as the process; a number, no path
        number, mode, -1, encoding, errors, "\n", closefd=False
    )
    assert isinstance(opened, io.TextIOWrapper)
    if mode == "w":
        opened.reconfigure(line_buffering=number == 2 or os.isatty(number))
    return opened


def _load() -> None:
    for name in _LOADED:
        package = importlib.import_module(name)
        for found in pkgutil.walk_packages(package.__path__, f"{name}."):
            if not found.name.startswith(_NOT_LOADED) and not found.name.endswith("__main__"):
                importlib.import_module(found.name)
    for name in _ALSO:
        importlib.import_module(name)
    cli, entries = (importlib.import_module(f"{PROGRAM}.{name}") for name in ("cli", "main"))
    for entry in entries.ENTRIES:
        cli.load_group(entry)


def _run_program() -> None:
    """Be the program, in the child.

    It ends as Python does, but for taking every module apart, which would copy their memory.
    """
    try:
        runpy.run_module(PROGRAM, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, int):
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            with contextlib.suppress(OSError, ValueError):  # Python reports it
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(end.code)
        raise


_NOT_LOADED = ("migrations.env", "migrations.versions")

if __name__ == "__main__":
    _load()
    gc.collect()
    gc.freeze()
    _serve(int(sys.argv[1]))
    _run_program()
